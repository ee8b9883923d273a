"""Keypoints read in space: the product of what all views' heatmaps say of a point, on a grid from coarse to fine."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from keyorbit.cameras import Cameras


@dataclass(frozen=True)
class EvidenceConfig:
    """How space is searched.

    radius: half the side of the searched cube, world units; points: of the coarse grid, a side; fine: of the grids
    round the best point so far, a side, ``levels`` of them, each ``zoom`` times finer than the one before. outlier: the
    chance that a view marks something else, which bounds its veto. falloff: standard deviation of how far beside the
    silhouette a point of the object may be seen, in sides of the view.
    """

    radius: float = 0.5
    points: int = 24
    fine: int = 7
    zoom: float = 2.5
    levels: int = 3
    outlier: float = 0.05
    falloff: float = 0.01


@dataclass(frozen=True, eq=False)
class Evidence:
    """Where the views' evidence has its peak, and how wide the peak is.

    xyz: world units; covariance: of the normalised evidence over the coarse neighbourhood of the peak; strength: the
    logarithm of the evidence at the peak, nats a view above what flat heatmaps have.
    """

    xyz: Float[Tensor, "*batch keypoint 3"]
    covariance: Float[Tensor, "*batch keypoint 3 3"]
    strength: Float[Tensor, "*batch keypoint"]


def log_evidence(
    points: Float[Tensor, "*batch keypoint point 3"],
    heatmaps: Float[Tensor, "*batch view keypoint height width"],
    cameras: Cameras,
    distance: Float[Tensor, "*batch view mask_height mask_width"] | None = None,
    config: EvidenceConfig | None = None,
) -> Float[Tensor, "*batch keypoint point"]:
    """How likely each keypoint is at each of its points: log((1 − o)·h·pixels + o), in nats, summed over the views.

    h is the heatmap (sums to 1 over its pixels) where the view sees the point, o the chance of an outlier; flat
    heatmaps give 0. With ``distance`` from the silhouette (0 on it), a point that some view sees beside the object is
    unlikely: the answer then lies in the visual hull (Laurentini 1994). Differentiable.
    """
    config = config or EvidenceConfig()
    height, width = heatmaps.shape[-2:]
    xy = cameras.project(rearrange(points, "... k p c -> ... (k p) c"))
    xy = rearrange(xy, "... v (k p) c -> ... v k p c", k=points.shape[-3])
    seen = _sample(heatmaps * (height * width), xy)
    total = ((1 - config.outlier) * seen + config.outlier).log().sum(-3)
    if distance is None:
        return total
    beside = beside_silhouette(distance, rearrange(xy, "... v k p c -> ... v (k p) c"))
    beside = rearrange(beside, "... v (k p) -> ... v k p", k=points.shape[-3])
    return total - 0.5 * (beside / config.falloff).square().sum(-3)


def beside_silhouette(
    distance: Float[Tensor, "*batch view height width"], xy: Float[Tensor, "*batch view point 2"]
) -> Float[Tensor, "*batch view point"]:
    """How far places lie from the object, by a map of the distance from its silhouette (0 on it), in sides.

    Outside the picture, the distance to the picture's edge is added (along both axes).
    """
    inside = xy.clamp(0, 1)
    sampled = _sample(distance[..., None, :, :], inside[..., None, :, :], "border")[..., 0, :]
    beyond: Tensor = (xy - inside).abs().sum(-1)
    return sampled + beyond


@torch.no_grad()
def read_evidence(
    heatmaps: Float[Tensor, "*batch view keypoint height width"],
    cameras: Cameras,
    distance: Float[Tensor, "*batch view mask_height mask_width"] | None = None,
    config: EvidenceConfig | None = None,
) -> Evidence:
    """The most likely point of each keypoint (see :func:`log_evidence`), from a coarse grid refined round its best.

    Peak and covariance come from the last grids; where the heatmaps are flat the answer is some point of strength 0.
    """
    config = config or EvidenceConfig()
    lead, keypoints = heatmaps.shape[:-4], heatmaps.shape[-3]
    axis = torch.linspace(-config.radius, config.radius, config.points).to(heatmaps)
    points = torch.cartesian_prod(axis, axis, axis).expand(*lead, keypoints, -1, 3)
    step = float(axis[1] - axis[0])
    value = log_evidence(points, heatmaps, cameras, distance, config)
    best = _best(points, value)
    near = _cube(config.fine).to(heatmaps)
    covariance = None
    for _ in range(config.levels):
        step /= config.zoom
        points = best[..., None, :] + step * near
        value = log_evidence(points, heatmaps, cameras, distance, config)
        best = _best(points, value)
    middle, covariance = _moments(points, value)
    return Evidence(middle, covariance, value.amax(-1) / len(cameras))


def _best(points: Tensor, value: Tensor) -> Tensor:
    index = value.argmax(-1)[..., None, None].expand(*value.shape[:-1], 1, 3)
    return points.gather(-2, index)[..., 0, :]


def _cube(side: int) -> Tensor:
    axis = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
    return torch.cartesian_prod(axis, axis, axis)


def _moments(points: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    share = value.softmax(-1)
    middle = einsum(share, points, "... p, ... p c -> ... c")
    away = points - middle[..., None, :]
    return middle, einsum(share, away, away, "... p, ... p a, ... p b -> ... a b")


def _sample(
    maps: Float[Tensor, "*batch keypoint height width"], xy: Float[Tensor, "*batch keypoint point 2"], edge: str = "zeros"
) -> Float[Tensor, "*batch keypoint point"]:
    """Maps at places of the unit square, bilinear."""
    grid = (2 * xy - 1).reshape(-1, xy.shape[-2], 1, 2)
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    found = F.grid_sample(flat, grid, mode="bilinear", padding_mode=edge, align_corners=False)
    return found.reshape(xy.shape[:-1])
