"""Read keypoints in space from the product of all views' heatmaps, on grids from coarse to fine."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.hull import beside_silhouette, cube, sampled, search_grid

# Points of the coarse grid, a side, and in all.
_POINTS = 24
GRID_POINTS = _POINTS**3
# Grids round the best point so far: points a side, how many grids, and how much finer each is than the one before.
_FINE, _LEVELS, _ZOOM = 7, 3, 2.5
# The chance that a view marks another part. It bounds how much one view can speak against a point.
_OUTLIER = 0.05
# Standard deviation, in sides of the view, of how far beside the silhouette a point of the object may be seen.
_FALLOFF = 0.01


@dataclass(frozen=True, eq=False)
class Evidence:
    """The peak of the views' evidence for each keypoint.

    Attributes:
        xyz: position of the peak, world units.
        covariance: covariance of the normalised evidence round the peak, world units squared.
        strength: logarithm of the evidence at the peak, in nats per view; 0 for flat heatmaps.
    """

    xyz: Float[Tensor, "*batch keypoint 3"]
    covariance: Float[Tensor, "*batch keypoint 3 3"]
    strength: Float[Tensor, "*batch keypoint"]


def view_evidence(
    heatmaps: Float[Tensor, "*batch view keypoint height width"],
    xy: Float[Tensor, "*batch view point 2"],
    outlier: float = _OUTLIER,
) -> Float[Tensor, "*batch view keypoint point"]:
    """Compute the evidence of each view for points that it sees at xy: log((1 − o)·h·pixels + o), in nats.

    h is the value of the heatmap there (heatmaps sum to 1 over their pixels) and o is the probability that the view
    marks another part. Flat heatmaps give 0. The result is differentiable.
    """
    return heat_evidence(relative_heat(heatmaps, xy), outlier)


def relative_heat(
    heatmaps: Float[Tensor, "*batch view keypoint height width"], xy: Float[Tensor, "*batch view point 2"]
) -> Float[Tensor, "*batch view keypoint point"]:
    """Sample heatmaps at xy, as multiples of a flat map's value: h·pixels."""
    return sampled(heatmaps, xy) * (heatmaps.shape[-2] * heatmaps.shape[-1])


def heat_evidence(heat: Float[Tensor, "*batch"], outlier: float = _OUTLIER) -> Float[Tensor, "*batch"]:
    """Compute `view_evidence` from the result of `relative_heat`."""
    return ((1 - outlier) * heat + outlier).log()


def log_evidence(
    points: Float[Tensor, "*batch point 3"],
    heatmaps: Float[Tensor, "*batch view keypoint height width"],
    cameras: Cameras,
    distance: Float[Tensor, "*batch view mask_height mask_width"] | None = None,
) -> Float[Tensor, "*batch keypoint point"]:
    """Compute the log-likelihood of each keypoint at each point: `view_evidence` summed over the views.

    With ``distance`` from the silhouettes, a point that some view sees beside the object is unlikely, so that the peak
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
    """Find the most likely point of each keypoint (see `log_evidence`), on a coarse grid and then on finer grids.

    The peak is the mean of the evidence on the last grid; the covariance is that on the first fine grid. Where the
    heatmaps are flat, the point is arbitrary and its strength is 0.
    """
    grid, step, value = evidence_grid(heatmaps, cameras, distance)
    return refined(grid[value.argmax(-1)], step, heatmaps, cameras, distance)


def evidence_grid(
    heatmaps: Float[Tensor, "*batch view keypoint height width"],
    cameras: Cameras,
    distance: Float[Tensor, "*batch view mask_height mask_width"] | None,
) -> tuple[Float[Tensor, "point 3"], float, Float[Tensor, "*batch keypoint point"]]:
    """Return the coarse grid of the searched volume, its spacing in world units, and `log_evidence` on it."""
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
    """Find the peak of the evidence near the best points of a coarse grid, on finer and finer grids round them."""
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
    """Reduce heatmaps to a resolution at which the coarse grid cannot miss a peak; each still sums to 1."""
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
