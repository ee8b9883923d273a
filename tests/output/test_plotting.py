"""Pictures from code: a figure comes back, with what was given in it; nothing is shown and pyplot is not touched."""

import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from keyorbit.geometry.keypoints import Keypoints3D
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.output.plotting import draw_heatmaps, draw_keypoints, draw_losses, draw_points, loss_terms, running_mean

HISTORY = [{"step": float(i), "b": 2.0 * i, "total": 3.0 * i, "seconds": 1.0} for i in range(1, 9)]


def test_heatmaps_stand_in_rows_and_columns():
    maps = torch.rand(2, 3, 8, 8)
    figure = draw_heatmaps(maps, ["first", "second"], ["a", "b", "c"], [np.zeros((8, 8, 3), np.uint8)] * 3)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 6
    np.testing.assert_array_equal(figure.axes[4].images[-1].get_array(), maps[1, 1])
    assert [axes.get_title() for axes in figure.axes[:3]] == ["a", "b", "c"]
    assert figure.axes[3].get_ylabel() == "second"


def test_keypoints_lie_on_pictures_of_different_sizes():
    pictures = [np.full((32, 32, 3), 255, np.uint8), np.zeros((16, 24, 3), np.uint8), np.ones((9, 5, 3), np.uint8)]
    xy = [torch.rand(3, 2, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    score = [torch.tensor([0.11, 0.09, 0.1], dtype=torch.float64), torch.ones(3), torch.zeros(3)]
    figure = draw_keypoints(pictures, xy, score, ["first", "second"])
    assert [axes.get_title() for axes in figure.axes] == ["first", "second", ""]
    for axes, picture, places, scores in zip(figure.axes, pictures, xy, score, strict=True):
        (image,) = axes.images
        np.testing.assert_array_equal(image.get_array(), picture)
        # Places are in the unit square of each picture, whatever its size, from its upper left corner.
        assert tuple(image.get_extent()) == (0, 1, 1, 0)
        assert (axes.get_xlim(), axes.get_ylim()) == ((0, 1), (1, 0))
        np.testing.assert_allclose([line.get_xydata()[0] for line in axes.lines], places, rtol=1e-6)
        assert [text.get_text() for text in axes.texts] == ["0", "1", "2"]
        faint = [line.get_alpha() < 1 for line in axes.lines]
        assert faint == [text.get_alpha() < 1 for text in axes.texts] == (scores < 0.1).tolist()


def test_keypoints_that_mean_nothing_are_grey_rings_and_withheld_ones_are_not_drawn():
    pictures, xy = [np.zeros((16, 16, 3), np.uint8)], [torch.rand(3, 2, generator=torch.Generator().manual_seed(0))]
    figure = draw_keypoints(pictures, xy, heading=("not known", "#B3261E"), hollow=True)
    assert [(line.get_mfc(), line.get_mec()) for line in figure.axes[0].lines] == [("none", "#777777")] * 3
    assert not figure.axes[0].texts
    assert (figure.get_suptitle(), figure._suptitle.get_color()) == ("not known", "#B3261E")
    some = draw_keypoints(pictures, xy, hidden=(1,)).axes[0]
    assert [text.get_text() for text in some.texts] == ["0", "2"]
    np.testing.assert_allclose([line.get_xydata()[0] for line in some.lines], xy[0][[0, 2]], rtol=1e-6)


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
