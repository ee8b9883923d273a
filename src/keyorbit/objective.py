"""What a discovery minimises: from the layers' maps to its terms.

With cameras the views have to agree in space; without, as for Stable Diffusion's single view, StableKeypoints' terms.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from keyorbit import losses
from keyorbit.cameras import Cameras
from keyorbit.canonical import constellation
from keyorbit.evidence import hull_points
from keyorbit.heatmaps import (
    LayerMaps,
    argmax_xy,
    covariance,
    normalize,
    soft_argmax_xy,
    spatial_softmax,
    upsampled_attention,
    view_maps,
)
from keyorbit.multiview import epipolar_consistency, hull_likelihood, uncertain_agreement, uncovered
from keyorbit.queries import MapKind
from keyorbit.selection import select_tokens
from keyorbit.triangulation import triangulate
from keyorbit.views import Layout
from keyorbit.warps import Warp

# Points of the visual hull that stand for an object, and the grid they are taken from, a side.
_HULL_POINTS, _HULL_SIDE = 300, 24


@dataclass(frozen=True)
class LossWeights:
    """How much each term of the objective counts.

    geometric: reprojection of the triangulated point over all views and warped versions, in squared sides of a view;
    spread: spatial variance of the heatmaps, the same unit; separation: hinge that keeps the tokens' 3D points
    ``margin`` world units apart; silhouette: distance of the projected 3D points from the object, in sides of a view;
    on_object: heatmap mass outside the silhouette; sharpening: squared error to a Gaussian at the peak
    (StableKeypoints' form; has almost no gradient for attention maps that start near 1/93).

    Other forms of agreement, computed where they have a weight (see `keyorbit.multiview`): uncertain: residual in
    units of the maps' uncertainty, nats; epipolar: distance from the other views' lines, squared sides; likelihood:
    of the heatmaps, given that they mark one point of the visual hull, nats a view. uncovered: squared distance from
    the hull's surface to the nearest token. constellation: variance of the tokens over the batch's objects, turned to
    fit, that no common constellation explains, a share.
    """

    geometric: float = 5.0
    spread: float = 0.25
    separation: float = 10.0
    silhouette: float = 1.0
    on_object: float = 0.0
    sharpening: float = 0.0
    uncertain: float = 0.0
    epipolar: float = 0.0
    likelihood: float = 0.0
    uncovered: float = 0.0
    constellation: float = 0.0
    margin: float = 0.25


@dataclass(frozen=True)
class SingleViewWeights:
    """How much each term counts where there are no cameras; StableKeypoints' numbers.

    sharpening: squared error to a Gaussian of ``sigma`` pixels at the peak; equivariance: squared difference to the
    maps of the warped versions.
    """

    sharpening: float = 100.0
    equivariance: float = 1000.0
    sigma: float = 2.0


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

    def uncertainties(self) -> Float[Tensor, "object version_view token 2 2"]:
        """Covariances of the places in the unwarped views, never below a pixel's own."""
        height, width = self.heatmaps.shape[-2:]
        pixel = torch.diag(torch.tensor([width, height]).to(self.heatmaps) ** -2 / 12)
        back = Warp(self.warps).inverse().matrix[..., :2].unsqueeze(-3)
        return rearrange(back @ (covariance(self.heatmaps) + pixel) @ back.mT, "o n v t i j -> o (n v) t i j")


def token_maps(
    layers: Sequence[LayerMaps], layout: Layout, kind: MapKind, side: int, temperature: float
) -> Float[Tensor, "item view token side side"]:
    """Maps of all layers as one map per view and token; ``temperature`` is for logits only.

    logits: averaged over heads and layers, then a softmax over the pixels, so each map sums to 1 over its view.
    attention: probabilities of the softmax over text and tokens, at each layer's size, then averaged.
    stablekeypoints: probabilities of the softmax over the learnable tokens alone, at ``side``, then averaged.
    """
    size = (side, side)
    if kind == "stablekeypoints":
        return upsampled_attention(layers, layout, size)
    together = view_maps(layers, layout, size)
    return spatial_softmax(together, temperature) if kind == "logits" else together


def token_heatmaps(
    layers: Sequence[LayerMaps], layout: Layout, kind: MapKind, side: int, temperature: float
) -> Float[Tensor, "item view token side side"]:
    """The same as heatmaps: each sums to 1 over its view."""
    maps = token_maps(layers, layout, kind, side, temperature)
    return maps if kind == "logits" else normalize(maps)


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
    return _with_total(terms | _other_terms(seen, places, points, cameras, weights), weights)


def _other_terms(
    seen: Observed, places: Tensor, points: Tensor, cameras: Cameras, weights: LossWeights
) -> dict[str, Tensor]:
    """The terms that are off unless they have a weight."""
    everywhere = repeat_cameras(cameras, seen.heatmaps.shape[1])
    terms = {}
    if weights.uncertain:
        terms["uncertain"] = uncertain_agreement(places, seen.uncertainties(), everywhere).nll.mean()
    if weights.epipolar:
        terms["epipolar"] = epipolar_consistency(places, everywhere)
    if weights.likelihood or weights.uncovered:
        draw = torch.Generator().manual_seed(0)  # the same choice of cells at every step
        hull = torch.stack([hull_points(field, cameras, _HULL_POINTS, draw, _HULL_SIDE) for field in seen.distance])
        shown = Warp(seen.warps).apply(cameras.project(hull)[:, None].expand(-1, seen.warps.shape[1], -1, -1, -1))
        unlikely, marked = hull_likelihood(seen.heatmaps, shown, hull)
        if weights.likelihood:
            terms["likelihood"], points = unlikely, marked
        if weights.uncovered:
            terms["uncovered"] = uncovered(hull, points)
    if weights.constellation:
        terms["constellation"] = constellation(points)
    return terms


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


def with_peak_one(maps: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch height width"]:
    """Maps divided by their greatest value, which moves with them."""
    return maps / maps.amax((-2, -1), keepdim=True)


def repeat_cameras(cameras: Cameras, versions: int) -> Cameras:
    """The cameras once for each version, in the order of :meth:`Observed.places`."""
    return cameras.select(list(range(len(cameras))) * versions)


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
