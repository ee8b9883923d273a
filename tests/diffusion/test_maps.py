"""Maps of layers: positions go back to their places, views do not bleed into each other."""

import pytest
import torch

from keyorbit.diffusion.maps import LayerMaps, to_map, view_maps
from keyorbit.geometry import heatmaps as hm
from keyorbit.geometry.heatmaps import gaussian, normalize, soft_argmax_xy
from keyorbit.geometry.rigs import rig
from keyorbit.geometry.triangulation import triangulate
from keyorbit.geometry.views import Layout, merge_views
from oracles import grids


def test_positions_go_back_row_by_row():
    x = torch.arange(2 * 3 * 5.0).reshape(6, 5)
    maps = to_map(x, 2, 3)
    assert maps.shape == (5, 2, 3)
    assert maps[4, 1, 2] == x[5, 4]
    assert maps[1, 0, 2] == x[2, 1]
    with pytest.raises(ValueError, match="6 positions do not fill 3 × 3"):
        to_map(x, 3, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_worked_on_in_float32(dtype):
    maps = torch.ones(64, 64, dtype=dtype)
    assert hm.normalize(maps).dtype == torch.float32
    assert hm.normalize(maps).sum().item() == pytest.approx(1.0, abs=1e-5)
    layer = LayerMaps("a", maps.reshape(1, 1, -1, 1), (64, 64))
    assert view_maps([layer], Layout(1, 1), (64, 64)).dtype == torch.float32


@pytest.mark.parametrize(("rows", "cols"), [(3, 2), (2, 3), (1, 6), (1, 1)])
def test_view_maps_match_the_loops(rows, cols):
    layers = []
    for heads, (h, w) in ((2, (4, 6)), (3, (6, 4))):
        size = (rows * h, cols * w)
        layers.append((torch.rand(2, heads, size[0] * size[1], 3), size))
    given_layers = [LayerMaps(f"layer{i}", m, s) for i, (m, s) in enumerate(layers)]
    before = [layer.maps.clone() for layer in given_layers]
    found = view_maps(given_layers, Layout(rows, cols), (8, 12))
    assert torch.allclose(found, grids.view_maps(layers, rows, cols, (8, 12)), atol=1e-5)
    assert all(torch.equal(a, layer.maps) for a, layer in zip(before, given_layers, strict=True))


def test_resizing_after_the_split_does_not_bleed_between_views():
    views = torch.zeros(6, 5, 5)
    views[2] = 1.0
    grid = merge_views(views, 3, 2)
    layer = LayerMaps("up", grid.reshape(1, 1, -1, 1), tuple(grid.shape))
    big = view_maps([layer], Layout(3, 2), (16, 16))[0, :, 0]
    assert torch.allclose(big[2], torch.ones(16, 16))
    assert big[[0, 1, 3, 4, 5]].abs().max() == 0


def test_bad_layers_are_named():
    good = LayerMaps("good", torch.rand(1, 2, 24, 3), (6, 4))
    with pytest.raises(ValueError, match=r"'up\.0' has 24 positions, not 5 × 5"):
        LayerMaps("up.0", torch.rand(1, 2, 24, 3), (5, 5))
    with pytest.raises(ValueError, match=r"layer 'up\.1': .*does not divide"):
        view_maps([good, LayerMaps("up.1", torch.rand(1, 2, 24, 3), (4, 6))], Layout(3, 2), (4, 4))
    with pytest.raises(ValueError, match=r"layer 'up\.2' gives maps"):
        view_maps([good, LayerMaps("up.2", torch.rand(1, 2, 24, 5), (6, 4))], Layout(3, 2), (4, 4))
    with pytest.raises(ValueError, match="no layer"):
        view_maps([], Layout(3, 2), (4, 4))
    with pytest.raises(ValueError, match="sigma"):
        hm.gaussian(torch.zeros(2), 4, 4, 0.0)


@pytest.mark.parametrize("name", ["zero123plus-v1.2", "wonder3d"])
def test_heatmaps_of_a_grid_and_of_a_batch_of_views_lead_to_the_points(name):
    entry = rig(name)
    points = 0.5 * torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0)) - 0.25
    heat = normalize(gaussian(entry.cameras.project(points), 32, 32, 1.5))  # [object view token 32 32]
    if entry.tiled:
        grid = merge_views(heat.transpose(1, 2), entry.layout)
        height, width = grid.shape[-2:]
        layer = LayerMaps("grid", grid.flatten(-2).mT[:, None], (height, width))
        maps = view_maps([layer], entry.layout, (32, 32))
        assert torch.equal(entry.views(grid), maps)
    else:
        layer = LayerMaps("batch", heat.flatten(0, 1).flatten(-2).mT[:, None], (32, 32))
        maps = entry.views(view_maps([layer], Layout(1, 1), (32, 32))[:, 0])
    torch.testing.assert_close(maps, heat)
    assert (triangulate(soft_argmax_xy(maps), entry.cameras) - points).abs().max() < 1e-3
