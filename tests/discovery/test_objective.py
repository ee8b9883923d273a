"""The objectives mean what they say: planted points cost nothing, and moved ones do."""

import pytest
import torch

from keyorbit.discovery.objective import Observed, objective, single_view_objective
from keyorbit.discovery.weights import LossWeights, SingleViewWeights
from keyorbit.geometry.heatmaps import gaussian, normalize
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.geometry.warps import Warp, random_warps
from oracles import stable_keypoints


def planted(points, warps, side=32, sigma=1.5):
    """Gaussians where known 3D points are seen, in views warped by ``warps [object version view 2 3]``."""
    xy = zero123plus_cameras().project(points)[:, None]
    seen = Warp(warps).apply(xy.expand(*warps.shape[:3], *xy.shape[-2:]))
    heatmaps = normalize(gaussian(seen, side, side, sigma))
    nowhere = torch.zeros(len(warps), 6, side, side)
    return Observed(heatmaps, warps, torch.ones(*warps.shape[:3], side, side), nowhere)


def test_planted_points_cost_nothing_and_moved_ones_do(generator):
    points = 0.5 * torch.rand(2, 4, 3, generator=generator) - 0.25
    identity = Warp.identity((2, 1, 6)).matrix
    warps = torch.cat([identity, random_warps((2, 2, 6), generator, 10.0, (0.9, 1.0), 0.05).matrix], 1)
    seen = planted(points, warps)
    cameras, weights = zero123plus_cameras(), LossWeights()
    assert objective(seen, cameras, weights)["geometric"] < 1e-6
    # The same pixel in every view is not the same point of a turning object.
    same_place = seen.heatmaps[:, :, :1].expand_as(seen.heatmaps)
    moved = Observed(same_place, warps, seen.masks, seen.distance)
    assert objective(moved, cameras, weights)["geometric"] > 1e-3


def test_tokens_all_in_one_place_are_pushed_apart(generator):
    warps = Warp.identity((1, 1, 6)).matrix
    together = objective(planted(torch.zeros(1, 4, 3), warps), zero123plus_cameras(), LossWeights())
    corners = 0.3 * torch.tensor([[[1.0, 1, 1], [-1, -1, 1], [1, -1, -1], [-1, 1, -1]]])
    apart = objective(planted(corners, warps), zero123plus_cameras(), LossWeights())
    assert apart["separation"] == 0
    assert together["separation"] > 0.9 * LossWeights().margin ** 2


def test_the_objective_matches_the_loops(generator):
    maps = torch.rand(1, 2, 1, 5, 9, 12, generator=generator)
    spots = gaussian(torch.tensor([[0.2, 0.3], [0.8, 0.7]]), 9, 12, 1.5)
    maps[0, :, 0, 1:4:2] = spots + 0.01 * maps[0, :, 0, 1:4:2]
    warp = random_warps((1, 1), generator, 10.0, (0.9, 1.1), 0.1)
    warps = torch.cat([Warp.identity((1, 1)).matrix, warp.matrix])[None]
    terms = single_view_objective(maps, warps, SingleViewWeights(100.0, 1000.0, 1.5), 2)
    sharp, moved = stable_keypoints.objective(maps[0, 0, 0], maps[0, 1, 0], warp.matrix[0, 0], (1, 3), 1.5)
    assert terms["sharpening"].item() == pytest.approx(sharp, rel=1e-4)
    assert terms["equivariance"].item() == pytest.approx(moved, rel=1e-3)
    assert terms["total"].item() == pytest.approx(100 * sharp + 1000 * moved, rel=1e-3)


def test_spots_that_follow_the_warp_cost_nothing(generator):
    xy = torch.tensor([[8.5, 8.5], [22.5, 10.5], [12.5, 24.5]]) / 32
    warps = Warp(torch.tensor([[[[1.0, 0, 0], [0, 1, 0]]], [[[1.0, 0, 2 / 32], [0, 1, -3 / 32]]]]))
    spots = gaussian(warps.apply(xy.expand(2, 1, 3, 2)), 32, 32, 2.0)
    weights = SingleViewWeights()
    assert single_view_objective(spots[None], warps.matrix[None], weights, 3)["total"] < 1e-3
    stuck = spots[:1].expand_as(spots)
    assert single_view_objective(stuck[None], warps.matrix[None], weights, 3)["equivariance"] > 1e-3
    # Without a warped version there is nothing to compare with.
    alone = single_view_objective(spots[None, :1], warps.matrix[None, :1], weights, 3)
    assert alone["equivariance"] == 0
    assert alone["total"].isfinite()
