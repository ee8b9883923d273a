import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keyorbit.geometry.views import Layout, grid_size, merge_views, split_views
from oracles import grids

LAYOUTS = [(3, 2), (2, 3), (1, 6), (1, 1)]
SIZES = [(8, 12), (12, 8), (40, 40)]


@pytest.mark.parametrize(("rows", "cols"), LAYOUTS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_split_and_merge_match_the_loops(rows, cols, height, width):
    grid = torch.rand(rows * height, cols * width)
    views = split_views(grid, rows, cols)
    assert torch.equal(views, torch.stack(grids.split(grid, rows, cols)))
    if height < 40:
        assert torch.equal(merge_views(views, Layout(rows, cols)), grids.merge(list(views), rows, cols))
    assert torch.equal(merge_views(views, rows, cols), grid)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 5),
    st.lists(st.integers(1, 3), max_size=3),
)
def test_merge_undoes_split_for_any_type_and_leading_axes(rows, cols, h, w, lead):
    grid = torch.arange(rows * cols * h * w * int(torch.tensor([1, *lead]).prod()))
    grid = grid.reshape(*lead, rows * h, cols * w)
    views = split_views(grid, Layout(rows, cols))
    assert views.shape == (*lead, rows * cols, h, w)
    assert torch.equal(merge_views(views, rows, cols), grid)
    assert torch.equal(split_views(merge_views(views, rows, cols), rows, cols), views)


def test_a_120_by_80_latent_is_three_rows_of_two_views():
    markers = torch.arange(6).reshape(6, 1, 1).expand(6, 40, 40)
    latent = merge_views(markers, 3, 2)
    assert latent.shape == (120, 80)
    assert torch.equal(split_views(latent, 3, 2), markers)
    # The shape analysis reads the same 9600 positions as 80 rows of 120 and cuts 2 × 3: no view stays whole.
    scrambled = split_views(latent.reshape(80, 120), 2, 3)
    assert all(len(view.unique()) > 1 for view in scrambled)


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="does not divide into 3 rows × 2"):
        split_views(torch.zeros(80, 120), 3, 2)
    with pytest.raises(ValueError, match="does not divide"):
        split_views(torch.zeros(120, 81), Layout(3, 2))
    with pytest.raises(ValueError, match="5 views do not fill"):
        merge_views(torch.zeros(5, 4, 4), 3, 2)
    with pytest.raises(ValueError, match="holds no view"):
        Layout(0, 2)
    with pytest.raises(ValueError, match="columns is missing"):
        split_views(torch.zeros(4, 4), 2)
    with pytest.raises(ValueError, match="given twice"):
        split_views(torch.zeros(4, 4), Layout(2, 2), 2)


def test_layout_knows_its_views():
    assert Layout(3, 2).num_views == 6
    assert Layout(3, 2).view_size(120, 80) == (40, 40)
    assert Layout(2, 3).view_size(16, 36) == (8, 12)


@pytest.mark.parametrize(
    ("positions", "size"),
    [(9600, (120, 80)), (2400, (60, 40)), (600, (30, 20)), (150, (15, 10)), (40, (8, 5)), (1, (1, 1))],
)
def test_grid_size_follows_the_halvings(positions, size):
    assert grid_size(positions, 120, 80) == size


def test_grid_size_of_a_square_pass_and_odd_sides():
    assert [grid_size(n, 64, 64) for n in (4096, 1024, 256, 64)] == [(64, 64), (32, 32), (16, 16), (8, 8)]
    assert grid_size(4 * 3, 7, 5) == (4, 3)


@pytest.mark.parametrize("positions", [0, 4096, 9601, 7])
def test_grid_size_refuses_what_no_halving_gives(positions):
    with pytest.raises(ValueError, match=f"{positions} positions do not come"):
        grid_size(positions, 120, 80)
