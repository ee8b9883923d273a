"""Depth of the visual hull, against points tried one by one, and against a sphere."""

import numpy as np
import pytest
import torch

from keyorbit.geometry.hull import search_volume
from keyorbit.geometry.hull_depth import hull_depth
from keyorbit.geometry.rigs import rig

SIDE = 24


def pixels(side=SIDE):
    middles = (torch.arange(side) + 0.5) / side
    return torch.stack(torch.meshgrid(middles, middles, indexing="xy"), dim=-1)


def sphere_masks(cameras, radius):
    """Which pixels' middles see a sphere about the origin."""
    draw = torch.randn(40000, 3, generator=torch.Generator().manual_seed(0))
    places = cameras.project(draw / draw.norm(dim=1, keepdim=True) * radius)
    masks = torch.zeros(len(cameras), SIDE, SIDE, dtype=torch.bool)
    for mask, xy in zip(masks, places, strict=True):
        column, row = (xy * SIDE).long().clamp(0, SIDE - 1).T
        mask[row, column] = True
    return masks


@pytest.mark.parametrize("name", ["zero123plus-v1.2", "wonder3d"])
def test_a_sphere_is_within_its_hull_and_not_much_nearer(name):
    cameras, radius = rig(name).cameras, 0.25
    masks = sphere_masks(cameras, radius)
    depth = hull_depth(masks, cameras)
    assert torch.equal(depth.isfinite(), masks)
    middle = cameras.depth(torch.zeros(1, 3))[:, 0]
    front = middle - depth[:, SIDE // 2 - 1 : SIDE // 2 + 1, SIDE // 2 - 1 : SIDE // 2 + 1].mean((1, 2))
    # The hull of six views sticks out beyond the sphere between the views, by a third of its radius at most.
    _, reach = search_volume(cameras)
    step = 2 * 3**0.5 * reach / 127
    assert (front > radius - step - 0.002).all()
    assert (front < radius * 1.35).all()


def test_each_pixel_has_the_first_point_on_its_ray_that_all_views_take_for_the_object():
    cameras = rig("zero123plus-v1.2").cameras
    masks = torch.rand(6, 4, 4, generator=torch.Generator().manual_seed(1)) > 0.3
    masks = masks.repeat_interleave(6, 1).repeat_interleave(6, 2)
    masks[:, :4] = masks[:, -4:] = False
    steps = 64
    depth = hull_depth(masks, cameras, steps)
    half, found = 0.5 / SIDE, 0
    for view in (0, 3):
        camera, inverse = cameras.world_to_camera[view], cameras.world_to_camera[view].inverse()
        focal = cameras.intrinsics[view, 0, 0]
        middle = float(camera[2, 3])
        reach = float(3**0.5 * 0.5 * middle / focal)
        along = np.linspace(middle - reach, middle + reach, steps)
        for row, column in masks[view].nonzero()[::17].tolist():
            xy = pixels()[row, column]
            for z in along:
                point = inverse @ torch.tensor([*((xy - 0.5) / focal * z), z, 1.0], dtype=torch.float32)
                places = cameras.project(point[None, :3])[:, 0]
                taken = [near(*each) <= half + 1e-6 for each in zip(masks, places, strict=True)]
                if all(taken):
                    assert float(depth[view, row, column]) == pytest.approx(z, abs=1e-5)
                    found += 1
                    break
    assert found > 10


def near(mask, place):
    """How far a place is from a silhouette, in sides of the view, linear between pixels' middles."""
    inside = place.clamp(0, 1)
    at = (inside * SIDE - 0.5).clamp(0, SIDE - 1)
    low = at.floor().long().clamp(max=SIDE - 2)
    share = at - low
    total = 0.0
    for dx in (0, 1):
        for dy in (0, 1):
            column, row = int(low[0]) + dx, int(low[1]) + dy
            weight = float((share[0] if dx else 1 - share[0]) * (share[1] if dy else 1 - share[1]))
            true = mask.nonzero()
            total += weight * float((true - torch.tensor([row, column])).float().norm(dim=1).min()) / SIDE
    return total + float((place - inside).abs().sum())


def test_silhouettes_that_contradict_each_other_still_have_depths():
    cameras = rig("zero123plus-v1.2").cameras
    masks = torch.zeros(6, SIDE, SIDE, dtype=torch.bool)
    masks[0, 2:5, 2:5] = masks[1, 18:22, 18:22] = True
    depth = hull_depth(masks, cameras)
    assert torch.equal(depth.isfinite(), masks)
    assert not hull_depth(torch.zeros_like(masks), cameras).isfinite().any()
