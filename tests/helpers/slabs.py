"""An object of known shape and colours that stands in any direction."""

import math

import torch

from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.geometry.views import Layout, merge_views

CAMERAS = zero123plus_cameras("v1.2")
LAYOUT, SIDE = Layout(3, 2), 32


def rotation(angle):
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def picture(angle, stretch, waves):
    """Features [1 1 position 64] and silhouettes of a slab with a tower, seen from the six views."""
    along = torch.linspace(-1, 1, 24)
    slab = torch.cartesian_prod(0.35 * along, 0.2 * along, torch.tensor([-0.2, -0.1]))
    tower = torch.cartesian_prod(torch.tensor([-0.35, -0.25]), 0.15 * along, 0.1 + 0.25 * along)
    own = torch.cat([slab, tower])
    world = (own * stretch) @ rotation(angle).T
    xy, depth = CAMERAS.project(world), CAMERAS.depth(world)
    grid, mask = torch.zeros(6, SIDE * SIDE, 64), torch.zeros(6, SIDE * SIDE, dtype=torch.bool)
    phase = own @ waves
    features = torch.cat([phase.cos(), phase.sin()], dim=-1)
    for view in range(6):
        order = depth[view].argsort(descending=True)  # the nearest is painted last
        column, row = (xy[view, order] * SIDE).long().clamp(0, SIDE - 1).unbind(-1)
        for pixel, point in zip((row * SIDE + column).tolist(), order.tolist(), strict=True):
            grid[view, pixel], mask[view, pixel] = features[point], True
    tiles = merge_views(grid.reshape(6, SIDE, SIDE, 64).permute(3, 0, 1, 2)[None], LAYOUT)[0]
    return tiles.flatten(1).T[None, None], mask.reshape(6, SIDE, SIDE)
