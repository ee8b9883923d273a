"""Keypoints read in space: the product of what all views' heatmaps say of a point, on a grid from coarse to fine."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.hull import beside_silhouette, cube, sampled, search_grid

# Points of the coarse grid, a side.
_POINTS = 24
# Grids round the best point so far: points a side, how many grids, and how much finer each is than the one before.
_FINE, _LEVELS, _ZOOM = 7, 3, 2.5
# The chance that a view marks another part. It bounds how much one view can speak against a point.
_OUTLIER = 0.05
# Standard deviation, in sides of the view, of how far beside the silhouette a point of the object may be seen.
_FALLOFF = 0.01


@dataclass(frozen=True, eq=False)
class Evidence:
    """Where the views' evidence has its peak, and how wide the peak is.

    xyz: world units; covariance: of the normalised evidence round the peak; strength: the logarithm of the evidence at
    the peak, nats a view above what flat heatmaps have.
    """

    xyz: Float[Tensor, "*batch keypoint 3"]
    covariance: Float[Tensor, "*batch keypoint 3 3"]
    strength: Float[Tensor, "*batch keypoint"]


def view_evidence(
    heatmaps: Float[Tensor, "*batch view keypoint height width"],
    xy: Float[Tensor, "*batch view point 2"],
    outlier: float = _OUTLIER,
) -> Float[Tensor, "*batch view keypoint point"]:
    """What each view says of points that it sees at xy: log((1 − o)·h·pixels + o), in nats.

    h is the heatmap there (heatmaps sum to 1 over their pixels), o the chance of an outlier; flat heatmaps give 0.
    Differentiable.
    """
    return heat_evidence(relative_heat(heatmaps, xy), outlier)


def relative_heat(
    heatmaps: Float[Tensor, "*batch view keypoint height width"], xy: Float[Tensor, "*batch view point 2"]
) -> Float[Tensor, "*batch view keypoint point"]:
    """Heatmaps at places, as multiples of a flat map's: h·pixels."""
    return sampled(heatmaps, xy) * (heatmaps.shape[-2] * heatmaps.shape[-1])


def heat_evidence(heat: Float[Tensor, "*batch"], outlier: float = _OUTLIER) -> Float[Tensor, "*batch"]:
    """`view_evidence` of what `relative_heat` gives."""
    return ((1 - outlier) * heat + outlier).log()


def log_evidence(
    points: Float[Tensor, "*batch point 3"],
    heatmaps: Float[Tensor, "*batch view keypoint height width"],
    cameras: Cameras,
    distance: Float[Tensor, "*batch view mask_height mask_width"] | None = None,
) -> Float[Tensor, "*batch keypoint point"]:
    """How likely each keypoint is at each point: `view_evidence` summed over the views.

    With ``distance`` from the silhouettes a point that some view sees beside the object is unlikely: the answer then
    lies in the visual hull (Laurentini 1994).
    """
    xy = cameras.project(points)
    total = view_evidence(heatmaps, xy).sum(-3)
    if distance is None:
        return total
    beside = (beside_silhouette(distance, xy) / _FALLOFF).square().sum(-2)
    return total - 0.5 * beside[..., None, :]


@torch.no_grad()
def read_evidence(
    heatmaps: Float[Tensor, "*batch view keypoint height width"],
    cameras: Cameras,
    distance: Float[Tensor, "*batch view mask_height mask_width"] | None = None,
) -> Evidence:
    """The most likely point of each keypoint (see `log_evidence`), on a coarse grid refined round its best point.

    The peak is the mean of the evidence on the last grid, the covariance that on the first fine one. Where the heatmaps
    are flat the answer is some point, of strength 0.
    """
    grid, step, value = evidence_grid(heatmaps, cameras, distance)
    return refined(grid[value.argmax(-1)], step, heatmaps, cameras, distance)


def evidence_grid(
    heatmaps: Float[Tensor, "*batch view keypoint height width"],
    cameras: Cameras,
    distance: Float[Tensor, "*batch view mask_height mask_width"] | None,
) -> tuple[Float[Tensor, "point 3"], float, Float[Tensor, "*batch keypoint point"]]:
    """The coarse grid of the searched space, its spacing, and `log_evidence` on it."""
    grid, step = search_grid(cameras, _POINTS)
    grid = grid.to(heatmaps)
    shared = grid.expand(*heatmaps.shape[:-4], -1, 3)
    return grid, step, log_evidence(shared, _pooled(heatmaps), cameras, distance)


def refined(
    best: Float[Tensor, "*batch keypoint 3"],
    step: float,
    heatmaps: Float[Tensor, "*batch view keypoint height width"],
    cameras: Cameras,
    distance: Float[Tensor, "*batch view mask_height mask_width"] | None,
) -> Evidence:
    """The peak of the evidence next to the best points of a grid, on finer and finer grids round them."""
    # From here on every keypoint has points of its own, so it becomes an axis of the batch.
    alone = rearrange(heatmaps, "... v k h w -> ... k v 1 h w")
    if distance is not None:
        distance = distance.unsqueeze(-4).expand(*alone.shape[:-4], -1, -1, -1)
    near = cube(_FINE).to(heatmaps)
    covariance = torch.eye(3).to(heatmaps).expand(*best.shape, 3) * step**2
    for level in range(_LEVELS):
        step /= _ZOOM
        points = best[..., None, :] + step * near
        value = log_evidence(points, alone, cameras, distance)[..., 0, :]
        middle, spread = _moments(points, value)
        covariance = spread if level == 0 else covariance
        peak = value.max(-1)
        best = points.gather(-2, peak.indices[..., None, None].expand(*value.shape[:-1], 1, 3))[..., 0, :]
    return Evidence(middle, covariance, peak.values / len(cameras))


def _pooled(heatmaps: Tensor) -> Tensor:
    """Heatmaps no finer than a grid of that many points can find a peak in; each still sums to 1."""
    height, width = heatmaps.shape[-2:]
    if min(height, width) <= 1.5 * _POINTS:
        return heatmaps
    pooled = F.adaptive_avg_pool2d(heatmaps.reshape(-1, 1, height, width), _POINTS)
    return pooled.reshape(*heatmaps.shape[:-2], _POINTS, _POINTS) * (height * width / _POINTS**2)


def _moments(points: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    share = value.softmax(-1)
    middle = einsum(share, points, "... p, ... p c -> ... c")
    away = points - middle[..., None, :]
    return middle, einsum(share, away, away, "... p, ... p a, ... p b -> ... a b")
