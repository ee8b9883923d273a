"""Pictures from code: a figure comes back, with what was given in it; nothing is shown and pyplot is not touched."""

import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from keyorbit.geometry.keypoints import Keypoints3D
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.output.plotting import draw_heatmaps, draw_losses, draw_points, loss_terms, running_mean

HISTORY = [{"step": float(i), "b": 2.0 * i, "total": 3.0 * i, "seconds": 1.0} for i in range(1, 9)]


def test_heatmaps_stand_in_rows_and_columns():
    maps = torch.rand(2, 3, 8, 8)
    figure = draw_heatmaps(maps, ["first", "second"], ["a", "b", "c"], [np.zeros((8, 8, 3), np.uint8)] * 3)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 6
    np.testing.assert_array_equal(figure.axes[4].images[-1].get_array(), maps[1, 1])
    assert [axes.get_title() for axes in figure.axes[:3]] == ["a", "b", "c"]
    assert figure.axes[3].get_ylabel() == "second"


def test_losses_have_a_plot_a_term_the_total_first():
    figure = draw_losses(HISTORY)
    assert [axes.get_title() for axes in figure.axes] == ["total", "b"] == loss_terms(HISTORY)
    raw, mean = figure.axes[1].lines
    np.testing.assert_array_equal(raw.get_xydata(), [(i, 2 * i) for i in range(1, 9)])
    assert len(mean.get_xydata()) == 8
    with pytest.raises(ValueError, match="empty"):
        draw_losses([])


def test_a_running_mean_is_the_mean_of_the_neighbours():
    values = torch.rand(40).tolist()
    slow = [float(np.mean(values[max(0, i - 2) : i + 3])) for i in range(40)]
    np.testing.assert_allclose(running_mean(values), slow)
    assert running_mean([3.0]) == [3.0]


def test_points_are_numbered_and_those_without_a_score_left_out():
    score = torch.tensor([1.0, 0.0, 0.4])
    points = Keypoints3D(torch.rand(3, 3), score, torch.zeros(3), torch.zeros(6, 3))
    figure = draw_points(points, zero123plus_cameras("v1.2"), [(0, 2), (0, 1)])
    words = [text.get_text().strip() for text in figure.axes[0].texts]
    assert words == ["0", "2", *(f"view {i}" for i in range(6))]
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
