"""KeypointNet's IoU, PCK and mAP: by hand, and as its benchmark's words define them, one keypoint after another."""

import math

import pytest
import torch

from keyorbit.evaluation import metrics

# Two models of three landmarks, of which the second lacks one; four keypoints each.
DISTANCE = torch.tensor(
    [
        [[0.02, 0.5, 0.6], [0.04, 0.5, 0.6], [0.5, 0.1, 0.3], [0.7, 0.8, 0.9]],
        [[0.3, 0.01, 0.0], [0.3, 0.4, 0.0], [0.05, 0.06, 0.0], [0.3, 0.2, 0.0]],
    ],
    dtype=torch.float64,
)
KNOWN = torch.tensor([[True, True, True], [True, True, False]])
SURE = torch.tensor([[0.9, 0.8, 0.7, 0.6], [0.5, 0.4, 0.3, 0.2]], dtype=torch.float64)
ALL = torch.ones(2, 4, dtype=torch.bool)


def slow_precision(distance, sure, threshold, known, counted):
    """The area below the envelope of precision over recall."""
    found, right, taken, curve = 0, 0, set(), []
    everyone = [(-float(sure[i, k]), i, k) for i in range(len(sure)) for k in range(sure.shape[1]) if counted[i, k]]
    for _, i, k in sorted(everyone):
        own = [(float(distance[i, k, j]), j) for j in range(distance.shape[2]) if known[i, j]]
        away, nearest = min(own, default=(math.inf, -1))
        hit = away < threshold and (i, nearest) not in taken
        taken |= {(i, nearest)} if hit else set()
        found, right = found + 1, right + hit
        curve.append((right / int(known.sum()), right / found))
    area, before = 0.0, 0.0
    for n, (recall, _) in enumerate(curve):
        area += (recall - before) * max(precision for _, precision in curve[n:])
        before = recall
    return area


def test_by_hand():
    # Of the first model one landmark at 0.02 and one at just 0.1; of the second both.
    assert metrics.keypointnet_iou(DISTANCE, 0.1, KNOWN).item() == pytest.approx((5 - 1) / (5 + 3))
    assert metrics.keypointnet_iou(DISTANCE, 0.05, KNOWN).item() == pytest.approx(3 / (5 + 4))
    own = torch.tensor([[0.02, 0.1, 0.3], [0.04, 0.05, 0.0]])
    assert metrics.keypointnet_pck(own, 0.1, KNOWN).item() == pytest.approx((1 / 3 + 2 / 2) / 2)
    # Right: the first of all; not the second, whose landmark is taken, nor the third, at just 0.1; the fifth; and the
    # seventh, whose nearest landmark is still free.
    area = (1 / 1 + 3 / 7 + 3 / 7) / 5
    assert metrics.keypointnet_map(DISTANCE, SURE, 0.1, KNOWN).item() == pytest.approx(area)
    some = ALL.clone()
    some[0, :2] = False
    assert metrics.keypointnet_map(DISTANCE, SURE, 0.1, KNOWN, some).item() == pytest.approx((2 / 5 + 2 / 5) / 5)
    assert metrics.keypointnet_map(DISTANCE, SURE, 0.1, KNOWN, ~ALL).item() == 0


def test_average_precision_against_one_keypoint_after_another():
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        distance = torch.rand(5, 6, 4, generator=generator, dtype=torch.float64) * 0.3
        distance[torch.rand(distance.shape, generator=generator) < 0.2] = torch.inf
        sure = torch.rand(5, 6, generator=generator, dtype=torch.float64)
        known, counted = (torch.rand(5, n, generator=generator) < 0.7 for n in (4, 6))
        found = metrics.keypointnet_map(distance, sure, 0.1, known, counted).item()
        assert found == pytest.approx(slow_precision(distance, sure, 0.1, known, counted))


def test_without_a_known_landmark_there_is_nothing_to_average():
    nothing = torch.zeros_like(KNOWN)
    for metric, values in (
        (metrics.keypointnet_iou, (DISTANCE,)),
        (metrics.keypointnet_pck, (DISTANCE[:, 0],)),
        (lambda d, t, m: metrics.keypointnet_map(d, SURE, t, m), (DISTANCE,)),
    ):
        with pytest.raises(ValueError, match="must be known"):
            metric(*values, 0.1, nothing)
