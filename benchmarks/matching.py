"""Nearest-neighbour matching of a diffusion model's features, as DIFT does (Tang et al., NeurIPS 2023), without tokens.

Points far apart on one object's hull lend their features, means over the views that see them. On another object each is
where the features are most alike: a softmax over each view of the cosine, read within the visual hull as tokens are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.recording import Recording
from keyorbit.discovery.selection import furthest_point_sampling
from keyorbit.geometry.evidence import read_evidence
from keyorbit.geometry.heatmaps import resize, soft_argmax_xy
from keyorbit.geometry.hull import SURFACE_SPACING, in_sight, sampled, surface_points
from keyorbit.geometry.keypoints import Keypoints2D, Keypoints3D
from keyorbit.geometry.views import split_views

# The last but one of the decoder's blocks, whose resolution is the latent's; the temperature of cosines.
_BLOCK, _TEMPERATURE = -2, 0.05
_SIDE = 32


@contextmanager
def features(backend: Zero123PlusBackend) -> Iterator[list[Float[Tensor, "view channel side side"]]]:
    """Within the block every object that is recorded adds its features: mean over its draws, of length 1."""
    found: list[Tensor] = []
    rows, cols = backend.layout.rows, backend.layout.cols

    def keep(module: object, inputs: object, output: Tensor) -> None:
        if output.shape[-2] * cols == output.shape[-1] * rows:  # the grid, not the input picture
            found.append(F.normalize(split_views(output.mean(0), backend.layout).movedim(1, 0).float(), dim=1))

    hook = backend.unet.up_blocks[_BLOCK].register_forward_hook(keep)
    try:
        yield found
    finally:
        hook.remove()


@dataclass(frozen=True, eq=False)
class Points:
    """Features of points on one object, [point channel], each of length 1."""

    features: Float[Tensor, "point channel"]


def points_of(recording: Recording, maps: Float[Tensor, "view channel side side"], count: int) -> Points:
    """Points far apart on the surface of an object's hull."""
    surface = surface_points(recording.shown.silhouette.distance, recording.cameras)
    chosen = furthest_point_sampling(surface[None], count)
    seen = in_sight(surface[chosen], surface, recording.cameras, SURFACE_SPACING).float()
    each = sampled(maps, recording.cameras.project(surface[chosen]), "border")  # view channel point
    total = (each * seen[:, None]).sum(0) / seen.sum(0).clamp_min(1)
    return Points(F.normalize(total.T, dim=-1))


def matched(points: Points, recording: Recording, maps: Float[Tensor, "view channel side side"]) -> Keypoints3D:
    """Where another object has them."""
    alike = torch.einsum("pc,vchw->vphw", points.features, maps)
    larger = resize(alike, (_SIDE, _SIDE))
    heatmaps = (larger.flatten(-2) / _TEMPERATURE).softmax(-1).unflatten(-1, (_SIDE, _SIDE))
    xyz = read_evidence(heatmaps, recording.cameras, recording.shown.silhouette.distance).xyz
    flat = Keypoints2D(soft_argmax_xy(heatmaps), alike.flatten(-2).amax(-1).clamp(0, 1), recording.cameras)
    return flat.lift(xyz)
