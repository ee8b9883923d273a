"""What the tokens are optimised for. Pure functions of maps; how much each counts is the caller's.

Maps are [batch view token height width], or any leading axes where nothing else is said.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.heatmaps import (
    argmax_rowcol,
    gaussian_kl,
    normalize,
    soft_argmax_xy,
    spatial_variance,
    subject_spots,
)
from keyorbit.geometry.hull import beside_silhouette
from keyorbit.geometry.triangulation import triangulate
from keyorbit.geometry.views import Layout, merge_views
from keyorbit.geometry.warps import Warp, inside, unwarp


def sharpening(
    maps: Float[Tensor, "*batch height width"], sigma: float = 2.0, form: str = "mse", subjects: int = 1
) -> Float[Tensor, ""]:
    """How far maps are from one Gaussian at their own peak; `sigma` in pixels; mean over all maps.

    "mse": mean square over pixels to a Gaussian of peak 1, for attention in [0, 1] (StableKeypoints, Hedlin
    et al. 2024, localisation loss); for several `subjects` to the mean of as many Gaussians, see
    :func:`keyorbit.geometry.heatmaps.subject_spots`. "kl": KL of the normalised Gaussian to the normalised
    map, in nats. The peak is taken without gradient: the maps move towards it, not it towards them.
    Raises ValueError for another form.
    """
    if form == "kl":
        return gaussian_kl(maps, sigma).mean()
    if form != "mse":
        raise ValueError(f"sharpening has no form {form!r}: use 'mse' or 'kl'")
    target = subject_spots(maps, sigma, subjects)
    return F.mse_loss(maps.to(target.dtype), target)


def localization(maps: Float[Tensor, "batch view token height width"], sigma: float = 2.0) -> Float[Tensor, ""]:
    """Sharpening of every view by itself, averaged over the views (the shape analysis's localisation part).

    Views are equally large, so the average of their means is the mean over everything.
    """
    return sharpening(maps, sigma)


def grid_sharpening(
    maps: Float[Tensor, "batch view token height width"], layout: Layout, sigma: float = 2.0
) -> Float[Tensor, ""]:
    """Sharpening of the whole tiled grid: one peak per token in all views together; `sigma` in pixels.

    The shape analysis's second method, for comparison: it asks a token to be silent in all views but one.
    Raises ValueError when the layout does not hold the views.
    """
    return sharpening(merge_views(rearrange(maps, "b v t h w -> b t v h w"), layout), sigma)


def pixel_consistency(maps: Float[Tensor, "batch view token height width"]) -> Float[Tensor, ""]:
    """Mean squared distance, in pixels, between a token's peaks in two views, over all pairs of views.

    Peaks as row and column; 0 for a single view. The shape analysis's cross-view consistency. It is a metric
    and carries no gradient: an argmax has none. Nor would a differentiable version do as an objective: it
    asks for the same pixel in every view, but a point of a turning object moves from view to view. Optimise
    `geometric_consistency` instead.
    """
    views = maps.shape[1]
    peaks = argmax_rowcol(maps).to(torch.get_default_dtype())
    if views < 2:
        return peaks.new_zeros(())
    # Σ over pairs |a − b|² is the number of views times Σ |a − mean|²; there are n(n − 1)/2 pairs.
    about_mean = (peaks - peaks.mean(dim=1, keepdim=True)).square().sum(dim=(1, -1))
    return (2 / (views - 1) * about_mean).mean()


def equivariance(
    maps: Float[Tensor, "*batch token height width"],
    warped_maps: Float[Tensor, "*batch token height width"],
    warp: Warp,
) -> Float[Tensor, ""]:
    """Mean square between the maps of pictures and those of the warped pictures, brought back.

    Only pixels that the warped picture shows count; 0 where it shows none. Source: StableKeypoints (Hedlin et
    al. 2024), equivariance loss, there over all pixels.
    """
    back = unwarp(warped_maps, warp)
    shown = inside(warp, maps.shape[-2], maps.shape[-1]).to(back)
    shown = shown.expand(*maps.shape[:-3], *maps.shape[-2:]).unsqueeze(-3)
    count = shown.sum() * maps.shape[-3]
    return ((back - maps).square() * shown).sum() / count.clamp_min(1.0)


def geometric_consistency(
    maps: Float[Tensor, "batch view token height width"],
    cameras: Cameras,
    weights: Float[Tensor, "batch view token"] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared reprojection error of each token's best 3D point, in squared sides of the view.

    The maps (≥ 0, normalised here) give an expected position per view; the positions are triangulated and the
    point is projected back. 0 when the views agree on one point of space, wherever that is. `weights` ≥ 0 say
    how much each view counts, in the point and in the mean. Differentiable.
    Raises ValueError when maps and cameras differ in their number of views.
    """
    xy = soft_argmax_xy(normalize(maps))
    points = triangulate(xy, cameras, weights)
    squared = (cameras.project(points) - xy).square().sum(-1)
    if weights is None:
        return squared.mean()
    return (squared * weights).sum() / weights.sum().clamp_min(torch.finfo(squared.dtype).tiny)


def spread(heatmaps: Float[Tensor, "*batch height width"]) -> Float[Tensor, ""]:
    """Mean spatial variance of heatmaps that sum to 1, in squared sides of the view."""
    return spatial_variance(heatmaps).mean()


def separation(points: Float[Tensor, "*batch keypoint 3"], margin: float) -> Float[Tensor, ""]:
    """Squared amount by which pairs of 3D points are nearer than `margin` (world units), mean over pairs.

    0 for fewer than two points.
    """
    count = points.shape[-2]
    if count < 2:
        return points.sum() * 0
    first, second = torch.triu_indices(count, count, offset=1, device=points.device)
    distance: Tensor = torch.linalg.vector_norm(points[..., first, :] - points[..., second, :], dim=-1)
    return (margin - distance).clamp_min(0).square().mean()


def on_object(
    heatmaps: Float[Tensor, "batch view token height width"],
    mask: Float[Tensor, "batch view height width"] | Bool[Tensor, "batch view height width"],
) -> Float[Tensor, ""]:
    """Mean share of the heatmaps' mass that lies off the object; `mask` is 1 on it and 0 off it."""
    off = 1 - mask.to(heatmaps.dtype)
    return (heatmaps * off.unsqueeze(2)).sum(dim=(-2, -1)).mean()


def off_silhouette(
    points: Float[Tensor, "batch keypoint 3"], cameras: Cameras, distance: Float[Tensor, "batch view height width"]
) -> Float[Tensor, ""]:
    """Mean distance of projected 3D points from the object's silhouette, over all views, in sides of the view.

    `distance` is 0 on the silhouette (:class:`keyorbit.geometry.hull.Silhouette`). 0 when every point lies in the
    visual hull (Laurentini 1994), so it pulls points that hang in the air onto the object; the purpose of KeypointNet's
    silhouette loss (Suwajanakorn et al. 2018) without the need for a sharp heatmap.
    """
    return beside_silhouette(distance, cameras.project(points)).mean()


@dataclass(frozen=True, eq=False)
class MultiViewLoss:
    """The parts of `multi_view`, unweighted, and their weighted sum."""

    localization: Float[Tensor, ""]
    consistency: Float[Tensor, ""]
    total: Float[Tensor, ""]

    def as_dict(self) -> dict[str, Tensor]:
        """The parts by name."""
        return {"localization": self.localization, "consistency": self.consistency, "total": self.total}


def multi_view(
    maps: Float[Tensor, "batch view token height width"],
    sigma: float = 2.0,
    cameras: Cameras | None = None,
    consistency: str = "geometric",
    weights: tuple[float, float] = (1.0, 1.0),
) -> MultiViewLoss:
    """Localisation per view and consistency between views; `weights` are theirs, in this order.

    "pixel" reproduces the shape analysis: its consistency then adds to the total but not to the gradient.
    Raises ValueError when "geometric" lacks cameras, and for another consistency.
    """
    if consistency == "pixel":
        between = pixel_consistency(maps)
    elif consistency != "geometric":
        raise ValueError(f"there is no consistency {consistency!r}: use 'geometric' or 'pixel'")
    elif cameras is None:
        raise ValueError("geometric consistency needs the views' cameras: pass them, or consistency='pixel'")
    else:
        between = geometric_consistency(maps, cameras)
    within = localization(maps, sigma)
    return MultiViewLoss(within, between, weights[0] * within + weights[1] * between)
