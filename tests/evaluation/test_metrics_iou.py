import pytest
import torch

from keyorbit.evaluation import metrics


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# A hairpin: five points along one side at height 0 and five back at height 1, one apart along the wire.
WIRE = torch.tensor([[[float(x), 0.0, 0.0] for x in range(5)] + [[float(x), 1.0, 0.0] for x in range(4, -1, -1)]])
STEPS = torch.arange(10.0)
# Landmarks at the wire's two ends, one across from the other, and at its bend.
PLACES = torch.tensor([0, 9, 4])
LANDMARKS = WIRE[:, PLACES]
GEODESIC = (STEPS[PLACES][:, None] - STEPS).abs()[None]


def test_the_three_ious_by_hand():
    # Off the wire near its points 0 and 6, which is (3, 1, 0).
    keypoints = torch.tensor([[[0.0, 0.0, 0.3], [3.2, 1.0, 0.0]]])
    # Along the wire, landmarks are at 0, 9, 4 from the first keypoint and 6, 3, 2 from the second.
    assert metrics.geodesic_iou(keypoints, WIRE, GEODESIC, 1.0).item() == pytest.approx((3 - 2) / (3 + 1))
    assert metrics.geodesic_iou(keypoints, WIRE, GEODESIC, 2.0).item() == pytest.approx((3 - 1) / (3 + 0))
    # Straight, the first keypoint is 1 from the other end too; the second √2 from the bend.
    assert metrics.snapped_iou(keypoints, WIRE, LANDMARKS, 1.0).item() == pytest.approx((3 - 1) / (3 + 1))
    assert metrics.snapped_iou(keypoints, WIRE, LANDMARKS, 1.5).item() == pytest.approx(3 / 3)
    # Paired, one landmark goes without; unsnapped, the distances are 0.3 and √(0.8² + 1).
    assert metrics.hungarian_iou(keypoints, LANDMARKS, 1.0).item() == pytest.approx(1 / (3 + 2 - 1))
    assert metrics.hungarian_iou(keypoints, LANDMARKS, 1.5).item() == pytest.approx(2 / (3 + 2 - 2))
    assert metrics.hungarian_iou(keypoints, LANDMARKS, 0.2).item() == 0


def test_masks_of_landmarks_and_keypoints():
    keypoints = torch.tensor([[[0.0, 0.0, 0.3], [3.2, 1.0, 0.0]]])
    ends, first = torch.tensor([[True, True, False]]), torch.tensor([[True, False]])
    assert metrics.geodesic_iou(keypoints, WIRE, GEODESIC, 1.0, ends).item() == pytest.approx(1 / 3)
    assert metrics.geodesic_iou(keypoints, WIRE, GEODESIC, 1.0, ends, first).item() == pytest.approx(1 / 2)
    assert metrics.snapped_iou(keypoints, WIRE, LANDMARKS, 1.0, ends, first).item() == pytest.approx(2 / 2)
    assert metrics.hungarian_iou(keypoints, LANDMARKS, 1.0, ends, first).item() == pytest.approx(1 / 2)
    none, no_landmark = torch.zeros_like(first), torch.zeros_like(ends)
    for score, where in [
        (metrics.geodesic_iou, (WIRE, GEODESIC)),
        (metrics.snapped_iou, (WIRE, LANDMARKS)),
        (metrics.hungarian_iou, (LANDMARKS,)),
    ]:
        assert score(keypoints, *where, 1.0, ends, none).item() == 0
        with pytest.raises(ValueError, match="one landmark must be known"):
            score(keypoints, *where, 1.0, no_landmark)


def test_items_are_counted_together_or_averaged():
    # One landmark found of one, then none of three: 1 / 6 together, but (1 + 0) / 2 as a mean.
    landmarks = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 0, 0], [1, 0, 0], [2, 0, 0]]])
    keypoints = torch.tensor([[[0.0, 0, 0], [7, 0, 0]], [[8.0, 0, 0], [9, 0, 0]]])
    mask = torch.tensor([[True, False, False], [True, True, True]])
    counted = torch.tensor([[True, False], [True, True]])
    surface = torch.cat([landmarks, keypoints], dim=1)
    assert metrics.snapped_iou(keypoints, surface, landmarks, 0.1, mask, counted).item() == pytest.approx(1 / 6)
    assert metrics.hungarian_iou(keypoints, landmarks, 0.1, mask, counted).item() == pytest.approx(1 / 2)
    mask[1] = False
    assert metrics.hungarian_iou(keypoints, landmarks, 0.1, mask, counted).item() == 1


def test_ious_turn_with_the_object_and_do_not_ask_for_the_order():
    surface, landmarks = draw(3, 60, 3), draw(3, 6, 3, seed=1)
    keypoints = landmarks[:, :5] + 0.3 * draw(3, 5, 3, seed=2)
    q, _ = torch.linalg.qr(draw(3, 3, seed=3))
    geodesic = torch.cdist(landmarks, surface) * 1.3
    order = torch.tensor([3, 0, 4, 1, 2])

    found = [
        metrics.geodesic_iou(keypoints, surface, geodesic, 0.9),
        metrics.snapped_iou(keypoints, surface, landmarks, 0.9),
        metrics.hungarian_iou(keypoints, landmarks, 0.5),
    ]
    moved = keypoints[:, order] @ q.T + 2
    again = [
        metrics.geodesic_iou(moved, surface @ q.T + 2, geodesic, 0.9),
        metrics.snapped_iou(moved, surface @ q.T + 2, landmarks @ q.T + 2, 0.9),
        metrics.hungarian_iou(moved, landmarks @ q.T + 2, 0.5),
    ]
    assert all(0.1 < score < 0.95 for score in found)
    assert again == found
    # The way along a surface is never shorter than the straight one.
    assert found[0] <= found[1]
    assert metrics.geodesic_iou(keypoints, surface, torch.cdist(landmarks, surface), 0.9) == found[1]
