"""What a discovery minimises: from the layers' maps to its terms.

With cameras the views have to agree in space; without, as for Stable Diffusion's single view, StableKeypoints' terms.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from keyorbit.discovery import losses, published
from keyorbit.discovery.choices import Published
from keyorbit.discovery.selection import furthest_point_sampling, usual_candidates
from keyorbit.discovery.weights import LossWeights, SingleViewWeights
from keyorbit.geometry.cameras import Cameras, repeat_cameras
from keyorbit.geometry.heatmaps import argmax_xy, gaussian_kl, soft_argmax_xy, with_peak_one
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
    choices: Collection[Published] = (),
) -> dict[str, Float[Tensor, ""]]:
    """StableKeypoints' two terms (Hedlin et al. 2024, `optimize_embedding`) and their weighted ``total``.

    In every view the ``count`` tokens that are sharp and far apart at this moment are sharpened and kept equivariant;
    the others are left to take the rest of the picture. Maps have a peak of at most 1; version 0 is not warped. With
    that version alone there is nothing to be equivariant to, and that term is 0. ``choices``: what of it is as
    published, of ``ranking``, ``pair`` and ``pixels``.
    """
    maps = rearrange(maps, "o n v t h w -> (o v) n t h w")
    warp = Warp(rearrange(warps, "o n v i j -> (o v) n i j")[:, 1:])
    chosen = torch.stack([chosen_in(item[0], item[-1], weights, count, choices) for item in maps])
    maps = maps[torch.arange(len(maps), device=maps.device)[:, None], :, chosen].transpose(1, 2)
    still, moved = maps[:, :1], maps[:, 1:]
    agreement = losses.equivariance
    if "pixels" in choices and moved.shape[1]:
        agreement = published.equivariance
    terms = {
        "sharpening": losses.sharpening(still, weights.sigma, subjects=weights.subjects),
        "equivariance": agreement(still.expand_as(moved), moved, warp),
    }
    return _with_total(terms, weights)


@torch.no_grad()
def chosen_in(
    maps: Float[Tensor, "token height width"],
    moved: Float[Tensor, "token height width"],
    weights: SingleViewWeights,
    count: int,
    choices: Collection[Published] = (),
) -> Int[Tensor, " keypoint"]:
    """The best tokens of one picture that lie far apart, as its maps and those of another version show them.

    ``choices``: with ``ranking`` they are ranked as published, with ``pair`` furthest points begin with a pair.
    """
    keep, places = min(len(maps), usual_candidates(count)), argmax_xy(moved)
    if "ranking" in choices or weights.strategy != "gaussian" or weights.subjects > 1:
        pool = published.candidates(maps, keep, weights.strategy, weights.sigma, weights.subjects)
    else:
        pool = gaussian_kl(maps, weights.sigma).argsort(stable=True)[:keep]
    if "pair" in choices:
        return published.furthest_from_pair(places, count, pool)
    return furthest_point_sampling(places[None], count, pool)


def _with_total(
    terms: dict[str, Float[Tensor, ""]], weights: LossWeights | SingleViewWeights
) -> dict[str, Float[Tensor, ""]]:
    total = torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
    return terms | {"total": total}
