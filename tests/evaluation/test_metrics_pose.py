import math

import pytest
import torch

from keyorbit.evaluation import metrics


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turn(axis, degrees):
    """Rotation about an axis, by Rodrigues' formula."""
    x, y, z = (torch.tensor(axis, dtype=torch.float64) / math.hypot(*axis)).tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    angle = math.radians(degrees)
    return torch.eye(3, dtype=torch.float64) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


@pytest.mark.parametrize("degrees", [0.0, 1e-4, 10.0, 90.0, 179.0, 180.0])
def test_relative_pose_error_is_the_angle_it_was_turned_by(degrees):
    source = draw(1, 6, 3)
    true = turn((1.0, -2.0, 0.5), 70)
    # Keypoints of another size elsewhere tell the rotation all the same.
    target = 3 * source @ (turn((0.3, 1.0, 2.0), degrees) @ true).T + draw(1, 1, 3, seed=1)
    error = metrics.relative_pose_error(source, target, true[None])
    assert error.item() == pytest.approx(degrees, abs=1e-5)


def test_relative_pose_error_by_hand():
    # Three axis ends, turned by a quarter about z: x → y, y → −x.
    source = torch.eye(3)
    target = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert metrics.relative_pose_error(source, target, quarter).item() == pytest.approx(0, abs=1e-3)
    assert metrics.relative_pose_error(source, target, torch.eye(3)).item() == pytest.approx(90, abs=1e-3)
    assert metrics.relative_pose_error(source, target, quarter.T).item() == pytest.approx(180, abs=0.1)


def test_relative_pose_error_never_answers_a_mirror_image():
    # Mirrored along its shortest axis, a cross of 3, 2 and 1 is still best met without turning it.
    source = torch.cat([torch.diag(torch.tensor([3.0, 2.0, 1.0])), -torch.diag(torch.tensor([3.0, 2.0, 1.0]))])
    mirrored = source * torch.tensor([1.0, 1.0, -1.0])
    assert metrics.relative_pose_error(source, mirrored, torch.eye(3)).item() == pytest.approx(0, abs=1e-3)


def test_relative_pose_error_does_not_depend_on_the_frame():
    source, target, true = draw(4, 7, 3), draw(4, 7, 3, seed=1), turn((1.0, 1.0, 0.0), 40).expand(4, 3, 3)
    a, b = turn((0.0, 1.0, 3.0), 100), turn((2.0, 1.0, 0.0), 250)
    error = metrics.relative_pose_error(source, target, true)
    assert error.min() > 1
    assert torch.allclose(metrics.relative_pose_error(source @ a.T, target @ b.T, b @ true @ a.T), error)
    assert torch.allclose(metrics.relative_pose_error(target, source, true.mT), error)


def test_points_on_a_line_tell_no_rotation_but_points_in_a_plane_do():
    true = turn((1.0, 2.0, 3.0), 50)
    all_true = true.expand(8, 3, 3)
    flat = draw(8, 5, 3) * torch.tensor([1.0, 1.0, 0.0])
    assert metrics.relative_pose_error(flat, flat @ true.T, all_true).max().item() == pytest.approx(0, abs=1e-5)
    line = flat * torch.tensor([1.0, 0.0, 0.0])
    assert metrics.relative_pose_error(line, line @ true.T, all_true).isnan().all()
    two = torch.tensor([True, True, False, False, False]).expand(8, 5)
    assert metrics.relative_pose_error(flat, flat @ true.T, all_true, two).isnan().all()
    assert metrics.relative_pose_error(flat, flat @ true.T, all_true, torch.zeros_like(two)).isnan().all()


def test_masks_leave_the_answer_of_the_known_points():
    predicted, truth = draw(3, 8, 3), draw(3, 8, 3, seed=1)
    mask = torch.ones(3, 8, dtype=torch.bool)
    mask[:, 5:] = False
    spoilt = torch.where(mask[..., None], truth, torch.nan)
    for score in (metrics.mpjpe, metrics.n_mpjpe, metrics.pa_mpjpe):
        expected = score(predicted[:, :5], truth[:, :5])
        assert torch.allclose(score(predicted, spoilt, mask), expected)
        assert not torch.allclose(score(predicted, truth), expected)
        with pytest.raises(ValueError, match="nothing to average"):
            score(predicted, truth, torch.zeros_like(mask))
    true = turn((1.0, 0.0, 0.0), 30).expand(3, 3, 3)
    expected = metrics.relative_pose_error(predicted[:, :5], truth[:, :5], true)
    assert torch.allclose(metrics.relative_pose_error(predicted, spoilt, true, mask), expected)


def test_scaled_and_aligned_errors_by_hand():
    # Best scale of (1, 0, 0), (0, 1, 0) for (2, 0, 0), (0, 4, 0): 6 / 2 = 3; the errors are 1 and 1.
    predicted = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    truth = torch.tensor([[2.0, 0.0, 0.0], [0.0, 4.0, 0.0]])
    assert metrics.n_mpjpe(predicted, truth).item() == pytest.approx(1)
    # Two points can always be laid on two others.
    assert metrics.pa_mpjpe(predicted, truth).item() == pytest.approx(0, abs=1e-5)
    assert metrics.mpjpe(predicted, truth).item() == pytest.approx(2)
