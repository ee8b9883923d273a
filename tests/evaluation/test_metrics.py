import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keyorbit.evaluation import metrics
from keyorbit.geometry.rigs import zero123plus_cameras
from oracles import choice


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotations(count, seed=0):
    q, _ = torch.linalg.qr(draw(count, 3, 3, seed=seed))
    return q * torch.linalg.det(q)[:, None, None]


def affine_world(items=20, seed=0):
    """Keypoints, and landmarks that are fixed affine combinations of them; weights [landmark keypoint]."""
    weights = draw(4, 5, seed=seed + 1)
    weights = weights / 5 - weights.mean(1, keepdim=True) / 5 + 1 / 5
    keypoints = draw(items, 5, 3, seed=seed)
    return keypoints, torch.einsum("lk,ikd->ild", weights, keypoints), weights


def test_landmark_weights_are_recovered_and_sum_to_one():
    keypoints, landmarks, weights = affine_world()
    found = metrics.fit_landmark_weights(keypoints, landmarks, ridge=1e-12)
    assert torch.allclose(found, weights, atol=1e-8)
    strong = metrics.fit_landmark_weights(keypoints, landmarks + draw(20, 4, 3, seed=9), ridge=0.3)
    assert torch.allclose(strong.sum(1), torch.ones(4, dtype=torch.float64))


def test_a_fit_turns_moves_and_scales_with_the_object():
    keypoints, landmarks, _ = affine_world()
    landmarks = landmarks + 0.1 * draw(20, 4, 3, seed=5)
    turn = rotations(1)[0]

    def move(x):
        return 3 * x @ turn.T + torch.tensor([1.0, -2.0, 5.0])

    weights = metrics.fit_landmark_weights(keypoints, landmarks, ridge=0.1)
    assert torch.allclose(weights, metrics.fit_landmark_weights(move(keypoints), move(landmarks), ridge=0.1))
    predicted = metrics.apply_landmark_weights(weights, keypoints)
    assert torch.allclose(metrics.apply_landmark_weights(weights, move(keypoints)), move(predicted))


def test_a_strong_ridge_or_an_unseen_landmark_answers_the_mean():
    keypoints, landmarks, _ = affine_world()
    equal = torch.full((4, 5), 0.2, dtype=torch.float64)
    assert torch.allclose(metrics.fit_landmark_weights(keypoints, landmarks, ridge=1e9), equal, atol=1e-6)
    mask = torch.ones(20, 4, dtype=torch.bool)
    mask[:, 2] = False
    weights = metrics.fit_landmark_weights(keypoints.float(), landmarks.float(), mask, ridge=1e-6)
    assert torch.allclose(weights[2], torch.full((5,), 0.2))
    assert not torch.allclose(weights[1], torch.full((5,), 0.2), atol=1e-2)


def test_masked_landmarks_do_not_enter_the_fit():
    keypoints, landmarks, weights = affine_world()
    mask = torch.rand(20, 4, generator=torch.Generator().manual_seed(1)) > 0.4
    spoilt = torch.where(mask[..., None], landmarks, landmarks + 100)
    found = metrics.fit_landmark_weights(keypoints, spoilt, mask, ridge=1e-12)
    assert torch.allclose(found, weights, atol=1e-7)


def test_regression_3d_is_exact_for_affine_landmarks_on_turned_items():
    keypoints, landmarks, _ = affine_world()
    turn = rotations(1, seed=3)[0]
    error = metrics.landmark_regression_3d(keypoints, landmarks, keypoints @ turn.T, landmarks @ turn.T, ridge=1e-12)
    assert error.item() == pytest.approx(0, abs=1e-8)
    noise = metrics.landmark_regression_3d(keypoints, landmarks, draw(20, 5, 3, seed=8), landmarks)
    assert noise.item() > 0.6


def test_regression_2d_is_one_linear_map_about_the_centre():
    train, test = draw(40, 3, 2), draw(10, 3, 2, seed=1)
    linear = draw(6, 8, seed=2)

    def landmarks(x):
        return ((x - 0.5).flatten(1) @ linear).reshape(-1, 4, 2) + 0.5

    assert metrics.landmark_regression_2d(train, landmarks(train), test, landmarks(test)).item() < 1e-4
    mask = torch.ones(40, 4, dtype=torch.bool)
    mask[:5, 1] = False
    spoilt = torch.where(mask[..., None], landmarks(train), landmarks(train) + 50)
    error = metrics.landmark_regression_2d(train, spoilt, test, landmarks(test), mask)
    assert error.item() < 1e-4
    assert metrics.landmark_regression_2d(train, spoilt, test, landmarks(test)).item() > 0.1


def test_point_error_and_pck_by_hand():
    truth = torch.zeros(2, 2, 2)
    predicted = torch.tensor([[[3.0, 4.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 2.0]]])
    mask = torch.tensor([[True, True], [False, True]])
    assert metrics.point_error(predicted, truth).item() == pytest.approx(2.0)
    assert metrics.point_error(predicted, truth, mask, size=2.0).item() == pytest.approx(8 / 3 / 2)
    assert metrics.pck(predicted, truth, 1.0).item() == pytest.approx(0.5)
    assert metrics.pck(predicted, truth, 1.0, mask).item() == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="nothing to average"):
        metrics.point_error(predicted, truth, torch.zeros(2, 2, dtype=torch.bool))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.floats(0.1, 10.0))
def test_procrustes_undoes_a_similarity(seed, scale):
    truth = draw(4, 6, 3, seed=seed)
    moved = scale * truth @ rotations(4, seed).mT + draw(4, 1, 3, seed=seed + 1)
    assert metrics.pa_mpjpe(moved, truth).item() == pytest.approx(0, abs=1e-8)
    assert metrics.mpjpe(moved, truth).item() > 1e-3


def test_procrustes_does_not_mirror_and_never_makes_it_worse():
    truth = draw(1, 8, 3)
    mirrored = truth * torch.tensor([-1.0, 1.0, 1.0])
    assert metrics.pa_mpjpe(mirrored, truth).item() > 0.1
    noisy = truth + 0.1 * draw(1, 8, 3, seed=4)

    def squared(x):
        return (x - truth).square().sum()

    assert squared(metrics.procrustes_align(noisy, truth)) <= squared(noisy)


def test_mpjpe_and_its_scaled_form():
    truth = draw(3, 5, 3)
    assert metrics.mpjpe(truth + torch.tensor([0.0, 0.3, 0.4]), truth).item() == pytest.approx(0.5)
    assert metrics.n_mpjpe(0.2 * truth, truth).item() == pytest.approx(0, abs=1e-12)
    assert metrics.n_mpjpe(0.2 * truth + 1, truth).item() > 0.1


@pytest.mark.parametrize("seed", range(6))
def test_dual_alignment_matches_the_loops(seed):
    landmarks = draw(5, 6, 3, seed=seed)
    keypoints = landmarks[:, :4] + 0.7 * draw(5, 4, 3, seed=seed + 50)
    known = torch.rand(5, 6, generator=torch.Generator().manual_seed(seed)) > 0.25 * (seed % 3)
    for references in (1, 3, 10):
        found = metrics.dual_alignment_score(keypoints, landmarks, known, references).item()
        expected = choice.dual_alignment(keypoints, landmarks, known, references)
        assert found == pytest.approx(expected, abs=1e-6)


def test_dual_alignment_is_one_for_consistent_keypoints_in_any_pose():
    landmarks = draw(4, 5, 3)
    keypoints = (landmarks + 1e-3)[:, torch.tensor([2, 0, 4, 1, 3])]
    assert metrics.dual_alignment_score(keypoints, landmarks).item() == pytest.approx(1)
    swapped = keypoints.clone()
    swapped[1] = swapped[1, torch.tensor([1, 2, 3, 4, 0])]
    assert metrics.dual_alignment_score(swapped, landmarks).item() < 0.6
    turn = rotations(4)
    turned = metrics.dual_alignment_score(swapped @ turn.mT, landmarks @ turn.mT)
    assert turned.item() == pytest.approx(metrics.dual_alignment_score(swapped, landmarks).item())
    with pytest.raises(ValueError, match="two or more"):
        metrics.dual_alignment_score(keypoints[:1], landmarks[:1])
    with pytest.raises(ValueError, match="nothing to average"):
        metrics.dual_alignment_score(keypoints, landmarks, torch.zeros(4, 5, dtype=torch.bool))


def test_coverage_by_hand():
    landmarks = torch.tensor([[[0.0, 0, 0], [1.0, 0, 0], [2.0, 0, 0], [9.0, 0, 0]]])
    keypoints = torch.tensor([[[0.1, 0, 0], [1.8, 0, 0]]])
    assert metrics.coverage(keypoints, landmarks, 0.15).item() == pytest.approx(0.25)
    assert metrics.coverage(keypoints, landmarks, 0.25).item() == pytest.approx(0.5)
    mask = torch.tensor([[True, True, False, False]])
    assert metrics.coverage(keypoints, landmarks, 0.15, mask).item() == pytest.approx(0.5)


def test_mean_reprojection():
    cameras = zero123plus_cameras().to(dtype=torch.float64)
    points = 0.1 * draw(2, 3, 3)
    xy = cameras.project(points) + torch.tensor([0.03, 0.04])
    assert metrics.mean_reprojection(points, xy, cameras).item() == pytest.approx(0.05)


def test_on_object_rate_by_hand():
    masks = torch.zeros(1, 1, 20, 40)
    masks[0, 0, 10, 20] = 1
    xy = torch.tensor([[20.5, 10.5], [21.5, 10.5], [22.5, 10.5], [20.5, 11.5], [-1.0, 10.5], [39.9, 19.9]])
    xy = (xy / torch.tensor([40.0, 20.0]))[None, None]
    assert metrics.on_object_rate(xy, masks, 0.0).item() == pytest.approx(1 / 6)
    # 0.05 of a side is two columns, but one row.
    assert metrics.on_object_rate(xy, masks > 0, 0.05).item() == pytest.approx(4 / 6)
    assert metrics.on_object_rate(xy, torch.ones(1, 1, 20, 40)).item() == pytest.approx(5 / 6)
