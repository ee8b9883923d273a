"""The surface of the visual hull as a mesh: what the outlines alone say about the object's form."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.hull import beside_silhouette, search_grid, search_volume

# Share of a cell by which the hull is widened, so that what is as thin as a cell has an inside.
_WIDER = 0.3
_CORNERS = tuple(product((0, 1), repeat=3))
_EDGES = tuple(
    (a, b) for a in range(8) for b in range(a + 1, 8) if sum(np.abs(np.subtract(_CORNERS[a], _CORNERS[b]))) == 1
)


@dataclass(frozen=True, eq=False)
class Mesh:
    """A closed surface of quadrilaterals.

    Attributes:
        vertices: world units, [vertex 3].
        quads: indices of a face's corners, anticlockwise as seen from outside, [quad 4].
        normals: unit vectors that point outwards, [vertex 3].
    """

    vertices: Float[ndarray, "vertex 3"]
    quads: Int[ndarray, "quad 4"]
    normals: Float[ndarray, "vertex 3"]


def hull_mesh(masks: Bool[Tensor, "view height width"], cameras: Cameras, side: int = 48) -> Mesh | None:
    """Compute the surface of the visual hull of silhouettes, by naive surface nets (Gibson, MICCAI 1998).

    Each cell of a grid that the surface crosses has one vertex: the mean of the points where its edges cross it.

    Args:
        masks: True on the object. A view without an object does not constrain the hull.
        cameras: of the views.
        side: points of the grid, a side, 4 or more. Default 48.

    Returns:
        None where there is no hull: the silhouettes exclude everything, or nothing.
    """
    if side < 4:
        raise ValueError(f"a grid of {side} points a side has no inside: use 4 or more")
    masks, cameras = masks.cpu(), cameras.to("cpu", torch.float32)
    grid, step = search_grid(cameras, side)
    middle, _ = search_volume(cameras)
    # Sides of a view that a world unit takes at the object's middle.
    depth = 1.0 if cameras.orthographic else float(cameras.depth(middle[None])[:, 0].abs().mean())
    wider = _WIDER * step * float(cameras.intrinsics[0, 0, 0]) / depth
    xy = cameras.project(grid)
    within = torch.stack([_sampled_depth(mask, place) for mask, place in zip(masks, xy, strict=True)])
    field = (beside_silhouette(_outside(masks), xy) - within).amax(0).numpy() - wider
    inside = field.reshape(side, side, side) < 0
    if not inside.any() or inside.all():
        return None
    # A border of empty space closes what reaches the end of the grid.
    values = np.pad(field.reshape(side, side, side), 1, constant_values=float(np.abs(field).max()) + wider)
    vertices, quads = _surface_net(values)
    world = grid[0].numpy() + (vertices - 1) * step
    return Mesh(world, quads, _normals(world, quads))


def _outside(masks: Bool[Tensor, "view height width"]) -> Float[Tensor, "view height width"]:
    return torch.stack([_distance(~mask) if mask.any() else torch.zeros(mask.shape) for mask in masks])


def _sampled_depth(mask: Bool[Tensor, "height width"], xy: Float[Tensor, "point 2"]) -> Float[Tensor, " point"]:
    """How far positions lie within a silhouette, in sides of the view; 0 beside it, and 1 where there is none."""
    if not mask.any():
        return torch.ones(len(xy))
    return beside_silhouette(_distance(mask)[None], xy.clamp(0, 1)[None])[0]


def _distance(where: Bool[Tensor, "height width"]) -> Float[Tensor, "height width"]:
    """Distance of each pixel that is True to the nearest one that is not, in sides of the picture."""
    height, width = where.shape
    field = distance_transform_edt(np.pad(where.numpy(), 1), sampling=(1 / height, 1 / width))
    return torch.from_numpy(field[1:-1, 1:-1]).float()


def _surface_net(values: Float[ndarray, "x y z"]) -> tuple[Float[ndarray, "vertex 3"], Int[ndarray, "quad 4"]]:
    """Vertices in units of cells, and faces, of the surface where the values are 0."""
    size = np.array(values.shape)
    corners = np.stack([values[tuple(slice(o, n - 1 + o) for o, n in zip(c, size, strict=True))] for c in _CORNERS])
    crossed = (corners < 0).any(0) & (corners >= 0).any(0)
    own = corners[:, crossed]
    total, count = np.zeros((own.shape[1], 3)), np.zeros(own.shape[1])
    for a, b in _EDGES:
        cut = (own[a] < 0) != (own[b] < 0)
        along = own[a] / np.where(cut, own[a] - own[b], 1)
        start, way = np.array(_CORNERS[a], float), np.subtract(_CORNERS[b], _CORNERS[a]).astype(float)
        total += cut[:, None] * (start + along[:, None] * way)
        count += cut
    vertices = np.argwhere(crossed) + total / count[:, None]
    number = np.full(crossed.shape, -1)
    number[crossed] = np.arange(len(vertices))
    quads = []
    for axis in range(3):
        low = values[tuple(slice(0, -1) if i == axis else slice(1, -1) for i in range(3))] < 0
        high = values[tuple(slice(1, None) if i == axis else slice(1, -1) for i in range(3))] < 0
        first, second = (axis + 1) % 3, (axis + 2) % 3
        for leaving in (True, False):
            at = np.argwhere(low & ~high if leaving else ~low & high)
            at[:, first] += 1
            at[:, second] += 1
            around = []
            for u, v in ((0, 0), (1, 0), (1, 1), (0, 1)) if leaving else ((0, 0), (0, 1), (1, 1), (1, 0)):
                cell = at.copy()
                cell[:, first] -= 1 - u
                cell[:, second] -= 1 - v
                around.append(number[tuple(cell.T)])
            quads.append(np.stack(around, 1))
    return vertices, np.concatenate(quads)


def _normals(vertices: Float[ndarray, "vertex 3"], quads: Int[ndarray, "quad 4"]) -> Float[ndarray, "vertex 3"]:
    corner = vertices[quads]
    face = np.cross(corner[:, 2] - corner[:, 0], corner[:, 3] - corner[:, 1])
    total = np.zeros_like(vertices)
    for i in range(4):
        np.add.at(total, quads[:, i], face)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.asarray(total / np.maximum(length, 1e-12))
