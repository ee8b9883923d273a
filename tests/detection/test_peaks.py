"""Peaks of heatmaps: places and scores are those of the loops, and are read near a given point."""

from typing import get_args

import pytest
import torch

from keyorbit.detection.peaks import Peak, peak_score, peak_xy
from keyorbit.detection.reading import near
from keyorbit.geometry.heatmaps import gaussian, normalize
from oracles.peaks import slow_peak


@pytest.mark.parametrize("peak", get_args(Peak))
def test_places_and_scores_are_those_of_the_loops(peak, generator):
    heatmaps = normalize(torch.rand(2, 3, 32, 32, generator=generator, dtype=torch.float64) ** 8)
    heatmaps[0, 0] = normalize(gaussian(torch.tensor([0.1, 0.95]), 32, 32, 1.5))  # its window is cut by the border
    places, scores = peak_xy(heatmaps, peak, 0.12), peak_score(heatmaps, heatmaps, 0.12)
    for i in range(2):
        for k in range(3):
            place, score = slow_peak(heatmaps[i, k].numpy(), peak)
            assert places[i, k].tolist() == pytest.approx(place, abs=1e-5)
            assert scores[i, k].item() == pytest.approx(score, abs=1e-5)


def test_a_place_is_read_near_the_common_point_and_scored_by_the_heat_there():
    both = gaussian(torch.tensor([[[0.2, 0.2]], [[0.8, 0.8]]]), 32, 32, 1.0)
    heatmaps = normalize(both[:1] * 0.3 + both[1:])  # one view of one token, that marks two places
    guided = near(heatmaps, torch.tensor([[[0.22, 0.2]]]), 0.08)
    torch.testing.assert_close(peak_xy(guided, "soft", 0.12), torch.tensor([[[0.2, 0.2]]]), atol=0.02, rtol=0)
    assert (peak_xy(heatmaps, "soft", 0.12) - 0.2).norm() > 0.3
    flat = 81 / 1024  # of the window
    assert peak_score(heatmaps, guided, 0.12).item() == pytest.approx((0.3 / 1.3 - flat) / (1 - flat), abs=0.01)
    # Where a view has no heat at all its place is the common one, with a score of 0.
    far = torch.tensor([[[0.2, 0.8]]])
    nowhere = near(heatmaps, far, 0.08)
    torch.testing.assert_close(peak_xy(nowhere, "soft", 0.12), far, atol=0.02, rtol=0)
    assert peak_score(heatmaps, nowhere, 0.12) < 0.01
