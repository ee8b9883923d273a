import pytest
import torch

from keyorbit.evaluation import metrics
from keyorbit.geometry.rigs import zero123plus_cameras


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# A rod of length 5 along (3, 4, 0), and three keypoints: on it, 0.05 above it, and 1 beside it.
ROD = (torch.linspace(0, 1, 101)[:, None] * torch.tensor([3.0, 4.0, 0.0]))[None]
KEYPOINTS = torch.tensor([[[0.6, 0.8, 0.0], [1.5, 2.0, 0.05], [3.0, 4.0, 1.0]]])


def test_inclusivity_by_hand():
    assert metrics.inclusivity(KEYPOINTS, ROD, 0.04).item() == pytest.approx(1 / 3)
    assert metrics.inclusivity(KEYPOINTS, ROD, 0.06).item() == pytest.approx(2 / 3)
    mask = torch.tensor([[True, True, False]])
    assert metrics.inclusivity(KEYPOINTS, ROD, 0.06, mask).item() == 1
    # Items count the same, however many of their keypoints are known.
    both = torch.cat([KEYPOINTS, KEYPOINTS + 9])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert metrics.inclusivity(both, ROD.expand(2, -1, -1), 0.06, mask).item() == pytest.approx((1 + 0) / 2)
    with pytest.raises(ValueError, match="nothing to average"):
        metrics.inclusivity(both, ROD.expand(2, -1, -1), mask=mask & ~mask)
    # The limit is excluded.
    assert metrics.inclusivity(torch.tensor([[[0.0, 0, 2]]]), torch.zeros(1, 1, 3), 2.0).item() == 0


def test_extent_coverage_by_hand():
    # Boxes from (0, 0, 0) to (3, 4, 0), diagonal 5, and from (0.6, 0.8, 0) to (3, 4, 1), diagonal √(16 + 1).
    assert metrics.extent_coverage(KEYPOINTS, ROD).item() == pytest.approx(17**0.5 / 5)
    mask = torch.tensor([[True, True, False]])
    expected = (0.9**2 + 1.2**2 + 0.05**2) ** 0.5 / 5
    assert metrics.extent_coverage(KEYPOINTS, ROD, mask).item() == pytest.approx(expected)
    # Too wide counts as too narrow does, and twice too wide is nothing.
    assert metrics.extent_coverage(1.25 * ROD, ROD).item() == pytest.approx(0.75)
    assert metrics.extent_coverage(3 * ROD, ROD).item() == 0
    both, rods = torch.cat([KEYPOINTS, KEYPOINTS]), torch.cat([ROD, ROD])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert metrics.extent_coverage(both, rods, mask).item() == pytest.approx(expected)
    with pytest.raises(ValueError, match="nothing to average"):
        metrics.extent_coverage(both, rods, mask & ~mask)


def test_shape_metrics_move_and_scale_with_the_object():
    surface, keypoints = draw(3, 200, 3), 0.8 * draw(3, 7, 3, seed=1)
    shift = draw(3, 1, 3, seed=2)
    q, _ = torch.linalg.qr(draw(3, 3, seed=3))
    inside = metrics.inclusivity(keypoints, surface, 0.4)
    assert 0.2 < inside.item() < 0.95
    assert metrics.inclusivity(5 * keypoints @ q.T + shift, 5 * surface @ q.T + shift, 2.0) == inside
    extent = metrics.extent_coverage(keypoints, surface)
    assert 0.2 < extent.item() < 0.95
    moved = metrics.extent_coverage(5 * keypoints + shift, 5 * surface + shift)
    assert moved.item() == pytest.approx(extent.item())


def test_coverage_by_the_known_keypoints():
    landmarks = torch.tensor([[[0.0, 0, 0], [1.0, 0, 0], [2.0, 0, 0]]])
    keypoints = torch.tensor([[[0.1, 0, 0], [1.1, 0, 0]]])
    assert metrics.coverage(keypoints, landmarks, 0.2).item() == pytest.approx(2 / 3)
    only = torch.tensor([[False, True]])
    assert metrics.coverage(keypoints, landmarks, 0.2, keypoint_mask=only).item() == pytest.approx(1 / 3)
    assert metrics.coverage(keypoints, landmarks, 0.2, keypoint_mask=only & ~only).item() == 0


def test_reprojection_in_pixels_and_percent_by_hand():
    cameras = zero123plus_cameras().to(dtype=torch.float64)
    points = 0.1 * draw(2, 3, 3)
    # 0.03 of 100 columns and 0.02 of 200 rows: 3 and 4 pixels, 2.5 % of the longer side.
    xy = cameras.project(points) + torch.tensor([0.03, 0.02])
    assert metrics.mean_reprojection_px(points, xy, cameras, 200, 100).item() == pytest.approx(5)
    assert metrics.mean_reprojection_percent(points, xy, cameras, 200, 100).item() == pytest.approx(2.5)
    # In square views the percentage is the share of the side, at any resolution.
    share = metrics.mean_reprojection(points, xy, cameras).item()
    for side in (64, 320):
        percent = metrics.mean_reprojection_percent(points, xy, cameras, side, side)
        assert percent.item() == pytest.approx(100 * share)


def test_unseen_points_have_no_say_in_the_views():
    cameras = zero123plus_cameras().to(dtype=torch.float64)
    points = 0.1 * draw(2, 3, 3)
    xy = cameras.project(points) + torch.tensor([0.03, 0.04])
    mask = torch.rand(xy.shape[:-1], generator=torch.Generator().manual_seed(0)) > 0.3
    xy = torch.where(mask[..., None], xy, torch.nan)
    assert metrics.mean_reprojection(points, xy, cameras, mask).item() == pytest.approx(0.05)
    assert metrics.mean_reprojection_px(points, xy, cameras, 320, 320, mask).item() == pytest.approx(16)
    with pytest.raises(ValueError, match="nothing to average"):
        metrics.mean_reprojection(points, xy, cameras, mask & ~mask)
    masks = torch.zeros(1, 1, 4, 4)
    masks[0, 0, 0, 0] = 1
    places = torch.tensor([[[[0.1, 0.1], [0.9, 0.9], [0.9, 0.1]]]])
    known = torch.tensor([[[True, True, False]]])
    assert metrics.on_object_rate(places, masks, 0.0).item() == pytest.approx(1 / 3)
    places[0, 0, 2] = torch.nan
    assert metrics.on_object_rate(places, masks, 0.0, known).item() == pytest.approx(1 / 2)
