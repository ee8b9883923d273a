"""The object in a page's scene: its visual hull, in the colours of the views, as ``viewer.js`` reads it."""

import base64
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from torch import Tensor

from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.hull import sampled
from keyorbit.geometry.hull_mesh import Mesh, hull_mesh

# Points of the grid a side, coarser until the page can draw it at each move of the mouse.
_SIDES, _MOST = (40, 28, 20), 8000
# Cells of the depth buffer a side, and how far behind the nearest vertex of its cell a vertex is still seen.
_CELLS, _BEHIND = 40, 0.06
_STEPS = 65535
# Outlines that leave less than this beside them are of no object: nobody cut it out.
_FULL = 0.97


def solid(
    views: Float[Tensor, "view 3 height width"], masks: Bool[Tensor, "view height width"], cameras: Cameras
) -> dict[str, Any] | None:
    """Return the hull for the scene; None where outlines tell nothing, or of too many pieces for a page.

    Little-endian in base64: ``places`` uint16 [vertex 3], between ``low`` and ``low + size``; ``quads`` uint16
    [quad 4]; ``colors`` uint8 [vertex 3].
    """
    if float(masks.float().mean()) > _FULL:
        return None
    for side in _SIDES:
        mesh = hull_mesh(masks, cameras, side)
        if mesh is None:
            return None
        if len(mesh.vertices) <= _MOST:
            low = mesh.vertices.min(0)
            size = float(np.ptp(mesh.vertices, 0).max()) or 1.0
            places = np.round((mesh.vertices - low) / size * _STEPS).astype("<u2")
            colors = vertex_colors(mesh, views, masks, cameras)
            return {
                "low": np.round(low, 5).tolist(),
                "size": round(size, 5),
                "places": _coded(places),
                "quads": _coded(mesh.quads.astype("<u2")),
                "colors": _coded(colors),
            }
    return None


def vertex_colors(
    mesh: Mesh,
    views: Float[Tensor, "view 3 height width"],
    masks: Bool[Tensor, "view height width"],
    cameras: Cameras,
) -> UInt8[ndarray, "vertex 3"]:
    """Take each vertex's colour from the views that it faces and that see it."""
    vertices, normals = (torch.from_numpy(part).float() for part in (mesh.vertices, mesh.normals))
    cameras = cameras.to("cpu", torch.float32)
    xy = cameras.project(vertices)
    masks = masks.cpu().float()[:, None]
    # What lies beside the object does not mix in.
    both = sampled(torch.cat([views.cpu().float() * masks, masks], 1), xy, "border")
    toward = -cameras.directions[:, None].expand(-1, len(vertices), -1)
    if not cameras.orthographic:
        toward = torch.nn.functional.normalize(cameras.centers[:, None] - vertices, dim=-1)
    facing = (toward * normals).sum(-1).clamp_min(0)
    weight = (facing.pow(3) * _seen(xy, cameras.depth(vertices)) + 1e-4) * both[:, 3]
    total = (weight[:, None] * both[:, :3] / both[:, 3:].clamp_min(1e-6)).sum(0)
    colors = total / weight.sum(0).clamp_min(1e-9)
    return (255 * colors.T.clamp(0, 1)).round().to(torch.uint8).numpy()


def _seen(xy: Float[Tensor, "view vertex 2"], depth: Float[Tensor, "view vertex"]) -> Float[Tensor, "view vertex"]:
    """1 where no vertex in the same cell of the view is nearer to the camera, else 0."""
    cell = (xy.clamp(0, 0.9999) * _CELLS).long()
    cell = cell[..., 1] * _CELLS + cell[..., 0]
    nearest = torch.full((len(xy), _CELLS**2), torch.inf).scatter_reduce(1, cell, depth, "amin")
    return (depth <= nearest.gather(1, cell) + _BEHIND).float()


def _coded(values: ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
