"""What a discovery minimises: from the layers' maps to its terms.

With cameras the views have to agree in space; without, as for Stable Diffusion's single view, StableKeypoints' terms.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from keyorbit.discovery import losses
from keyorbit.discovery.selection import select_tokens
from keyorbit.discovery.weights import LossWeights, SingleViewWeights
from keyorbit.geometry.cameras import Cameras, repeat_cameras
from keyorbit.geometry.heatmaps import argmax_xy, soft_argmax_xy, with_peak_one
from keyorbit.geometry.triangulation import triangulate
from keyorbit.geometry.warps import Warp


@dataclass(frozen=True, eq=False)
class Observed:
    """A batch as the objective sees it: heatmaps that sum to 1 over a view, and how each view was warped.

    masks: 1 on the object, warped likewise; distance: from the silhouette of the unwarped views.
    """

    heatmaps: Float[Tensor, "object version view token height width"]
    warps: Float[Tensor, "object version view 2 3"]
    masks: Float[Tensor, "object version view height width"]
    distance: Float[Tensor, "object view height width"]

    def places(self) -> Float[Tensor, "object version_view token 2"]:
        """Expected positions in the unwarped views, all versions' views in one axis."""
        xy = soft_argmax_xy(self.heatmaps)
        return rearrange(Warp(self.warps).inverse().apply(xy), "o n v t c -> o (n v) t c")


def objective(seen: Observed, cameras: Cameras, weights: LossWeights) -> dict[str, Float[Tensor, ""]]:
    """The terms of the objective and their weighted ``total``.

    Un-warping before the triangulation makes equivariance and cross-view consistency one term: every version of every
    view has to point at the same place in space.
    """
    places = seen.places()
    everywhere = repeat_cameras(cameras, seen.heatmaps.shape[1])
    points = triangulate(places, everywhere)
    flat = rearrange(seen.heatmaps, "o n v t h w -> (o n) v t h w")
    terms = {
        "geometric": (everywhere.project(points) - places).square().sum(-1).mean(),
        "spread": losses.spread(flat),
        "separation": losses.separation(points, weights.margin),
        "silhouette": losses.off_silhouette(points, cameras, seen.distance),
        "on_object": losses.on_object(flat, rearrange(seen.masks, "o n v h w -> (o n) v h w")),
    }
    if weights.sharpening:
        terms["sharpening"] = losses.sharpening(with_peak_one(flat))
    return _with_total(terms, weights)


def single_view_objective(
    maps: Float[Tensor, "object version view token height width"],
    warps: Float[Tensor, "object version view 2 3"],
    weights: SingleViewWeights,
    count: int,
) -> dict[str, Float[Tensor, ""]]:
    """StableKeypoints' two terms (Hedlin et al. 2024, `optimize_embedding`) and their weighted ``total``.

    In every view the ``count`` tokens that are sharp and far apart at this moment are sharpened and kept equivariant;
    the others are left to take the rest of the picture. Maps have a peak of at most 1; version 0 is not warped. With
    that version alone there is nothing to be equivariant to, and that term is 0.
    """
    maps = rearrange(maps, "o n v t h w -> (o v) n t h w")
    warp = Warp(rearrange(warps, "o n v i j -> (o v) n i j")[:, 1:])
    chosen = torch.stack([_chosen(item, count, weights.sigma) for item in maps])
    maps = maps[torch.arange(len(maps), device=maps.device)[:, None], :, chosen].transpose(1, 2)
    still, moved = maps[:, :1], maps[:, 1:]
    terms = {
        "sharpening": losses.sharpening(still, weights.sigma),
        "equivariance": losses.equivariance(still.expand_as(moved), moved, warp),
    }
    return _with_total(terms, weights)


@torch.no_grad()
def _chosen(maps: Float[Tensor, "version token height width"], count: int, sigma: float) -> Int[Tensor, " keypoint"]:
    """The sharpest tokens of the unwarped picture that lie far apart, as the last version shows them."""
    peaks = argmax_xy(maps[-1:])
    return select_tokens(maps[:1, None], peaks, torch.zeros_like(peaks[..., 0]), count, sigma=sigma).tokens


def _with_total(
    terms: dict[str, Float[Tensor, ""]], weights: LossWeights | SingleViewWeights
) -> dict[str, Float[Tensor, ""]]:
    total = torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
    return terms | {"total": total}
