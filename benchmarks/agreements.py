"""Other ways in which the views of one object can be made to agree; none of them was better than ours (geometry.py)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from keyorbit.discovery.config import SettledConfig
from keyorbit.discovery.consistency_run import ConsistencyRun
from keyorbit.discovery.objective import Observed, objective
from keyorbit.discovery.source import Source
from keyorbit.geometry.alignment import canonical_points
from keyorbit.geometry.cameras import Cameras, repeat_cameras
from keyorbit.geometry.evidence import view_evidence
from keyorbit.geometry.heatmaps import covariance
from keyorbit.geometry.hull import hull_points
from keyorbit.geometry.triangulation import triangulate
from keyorbit.geometry.warps import Warp
from keyorbit.ranks import Ranks

# Student's t with few degrees of freedom: a view ten deviations off pulls no more than one three deviations off.
_FREEDOM = 4.0
# No view's say falls below this, so that no view can be talked away.
_LEAST_VISIBLE = 0.1
_ROUNDS = 4


# Points of the visual hull that stand for an object, and the grid they are taken from, a side.
_HULL_POINTS, _HULL_SIDE = 300, 24


@dataclass(frozen=True)
class AgreementWeights:
    """How much each other form of agreement counts; 0 leaves it out.

    uncertain: residual in units of the maps' uncertainty, nats; epipolar: distance from the other views' lines, squared
    sides; likelihood: of the heatmaps, given that they mark one point of the visual hull, nats a view; uncovered:
    squared distance from the hull's surface to the nearest token; constellation: variance of the tokens over the
    batch's objects, turned to fit, that no common constellation explains, a share.
    """

    uncertain: float = 0.0
    epipolar: float = 0.0
    likelihood: float = 0.0
    uncovered: float = 0.0
    constellation: float = 0.0


class AgreementRun(ConsistencyRun):
    """Discovery by consistency with other terms besides."""

    def __init__(self, source: Source, config: SettledConfig, cameras: Cameras, weights: AgreementWeights) -> None:
        super().__init__(source, config, Ranks(), cameras)
        self.weights = weights

    def terms(self, objects: Sequence[int], maps: Tensor) -> dict[str, Tensor]:
        seen = self.observe(objects, maps)
        terms = objective(seen, self.cameras, self.config.weights)
        others = other_terms(seen, self.cameras, self.weights)
        total = sum((getattr(self.weights, name) * value for name, value in others.items()), terms["total"])
        return terms | others | {"total": total}


def other_terms(seen: Observed, cameras: Cameras, weights: AgreementWeights) -> dict[str, Tensor]:
    """The terms that have a weight."""
    places, everywhere = seen.places(), repeat_cameras(cameras, seen.heatmaps.shape[1])
    points = triangulate(places, everywhere)
    terms = {}
    if weights.uncertain:
        terms["uncertain"] = uncertain_agreement(places, uncertainties(seen), everywhere).nll.mean()
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
        terms["constellation"] = unexplained_variance(points)
    return terms


def uncertainties(seen: Observed) -> Float[Tensor, "object version_view token 2 2"]:
    """Covariances of the places in the unwarped views, never below a pixel's own."""
    height, width = seen.heatmaps.shape[-2:]
    pixel = torch.diag(torch.tensor([width, height]).to(seen.heatmaps) ** -2 / 12)
    back = Warp(seen.warps).inverse().matrix[..., :2].unsqueeze(-3)
    return rearrange(back @ (covariance(seen.heatmaps) + pixel) @ back.mT, "o n v t i j -> o (n v) t i j")


@dataclass(frozen=True, eq=False)
class Agreement:
    """What the views say together of every token: its point, how visible each view finds it, and how far off it is.

    visible: in [0.1, 1]; nll: negative log-likelihood of each view's place, nats up to a constant.
    """

    points: Float[Tensor, "batch token 3"]
    visible: Float[Tensor, "batch view token"]
    nll: Float[Tensor, "batch view token"]


def uncertain_agreement(
    xy: Float[Tensor, "batch view token 2"],
    covariance: Float[Tensor, "batch view token 2 2"],
    cameras: Cameras,
) -> Agreement:
    """Triangulation by Mahalanobis distance, and each view's residual in units of its own uncertainty; differentiable.

    Visibility is estimated without gradient, from the map's width (against the token's sharpest view: where a token is
    hidden its map has no peak) times its agreement with the other views' point (Cauchy weights, found by reweighting),
    both against the best view's; it never falls below a tenth. The likelihood is Student's t in two dimensions with
    the maps' covariance as its scale: flat maps pay by the determinant, a wrong view by no more than a logarithm, and
    visibility does not enter it, so that nothing fits by being left out.
    """
    with torch.no_grad():
        width = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
        peak = width.amin(dim=1, keepdim=True) / width
        visible = peak
        for _ in range(_ROUNDS):
            points = triangulate(xy, cameras, visible, covariance=covariance)
            visible = peak / (1 + _mahalanobis(cameras.project(points) - xy, covariance) / _FREEDOM)
            visible = visible / visible.amax(dim=1, keepdim=True)
        visible = visible.clamp_min(_LEAST_VISIBLE)
    points = triangulate(xy, cameras, visible, covariance=covariance)
    distance = _mahalanobis(cameras.project(points) - xy, covariance)
    spread = 0.5 * _determinant(covariance).log()
    return Agreement(points, visible, (_FREEDOM + 2) / 2 * (distance / _FREEDOM).log1p() + spread)


def epipolar_consistency(
    xy: Float[Tensor, "batch view token 2"], cameras: Cameras, scale: float = 0.05
) -> Float[Tensor, ""]:
    """Squared distance of places from the other views' epipolar lines, robust (Geman & McClure 1987), mean over pairs.

    In squared sides of the view as long as it is small against ``scale``². No point is computed: every pair of views
    speaks for itself, and what lies along the line is free. Perspective and orthographic cameras.
    """
    first, second = torch.combinations(torch.arange(len(cameras), device=xy.device)).unbind(-1)
    fundamental = _fundamental(cameras.to(xy.device, xy.dtype))
    total = xy.new_zeros(())
    for one, other in ((first, second), (second, first)):
        ends = torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)
        line = einsum(fundamental[one, other], ends[:, other], "p a b, o p t b -> o p t a")
        along = (line * ends[:, one]).sum(-1).square()
        squared = along / line[..., :2].square().sum(-1).clamp_min(1e-12)
        total = total + (squared / (1 + squared / scale**2)).mean() / 2
    return total


def hull_likelihood(
    heatmaps: Float[Tensor, "object version view token height width"],
    xy: Float[Tensor, "object version view point 2"],
    hull: Float[Tensor, "object point 3"],
) -> tuple[Float[Tensor, ""], Float[Tensor, "object token 3"]]:
    """How unlikely it is that all views mark one point of the object, nats a view, and where they do: differentiable.

    hull: points of the object's visual hull, seen at xy. The evidence of a version's views is multiplied (see
    `view_evidence`), versions are averaged; summed over the hull it is the likelihood of the heatmaps, whose negative
    logarithm is returned, mean over objects and tokens. One number for views that disagree, flat maps, and maps beside
    the object. The points are the hull's mean under each token's evidence.
    """
    evidence = view_evidence(heatmaps, xy).mean(dim=1).sum(dim=1)
    share = evidence.softmax(-1)
    likelihood = (evidence.logsumexp(-1) - torch.tensor(float(hull.shape[1])).log()) / heatmaps.shape[2]
    return -likelihood.mean(), einsum(share, hull, "o t p, o p c -> o t c")


def uncovered(
    hull: Float[Tensor, "object point 3"], points: Float[Tensor, "object token 3"], sharpness: float = 200.0
) -> Float[Tensor, ""]:
    """Mean squared distance from the object's points to the nearest token (soft minimum), world units squared.

    The half of a Chamfer distance that makes keypoints cover the shape (KeypointDeformer, Jakab et al. 2021, has both
    on sampled points). ``sharpness`` is of the soft minimum, per squared unit.
    """
    squared = (hull[:, :, None] - points[:, None]).square().sum(-1)
    return ((-sharpness * squared).softmax(-1) * squared).sum(-1).mean()


def _mahalanobis(offset: Tensor, covariance: Tensor) -> Tensor:
    """Squared, for a batch of 2 × 2 covariances."""
    x, y = offset.unbind(-1)
    (xx, xy), (_, yy) = (row.unbind(-1) for row in covariance.unbind(-2))
    return (yy * x.square() - 2 * xy * x * y + xx * y.square()) / _determinant(covariance)


def _determinant(covariance: Tensor) -> Tensor:
    (xx, xy), (_, yy) = (row.unbind(-1) for row in covariance.unbind(-2))
    return (xx * yy - xy.square()).clamp_min(1e-12)


def _fundamental(cameras: Cameras) -> Float[Tensor, "view other 3 3"]:
    """Matrices that take a place in the other view to its line in the view (Hartley & Zisserman 2004, §17.1).

    Entry (a, b) is ± the determinant of the two rows left of the view's projection and of the other's.
    """
    projection = cameras.projection.double()
    pairs = ((1, 2), (2, 0), (0, 1))
    rows = torch.stack([projection[:, list(pair)] for pair in pairs], dim=1)  # view 3 2 4
    ours = rearrange(rows, "v a r c -> v 1 a 1 r c").expand(-1, len(cameras), -1, 3, -1, -1)
    theirs = rearrange(rows, "v b r c -> 1 v 1 b r c").expand(len(cameras), -1, 3, -1, -1, -1)
    determinants: Tensor = torch.linalg.det(torch.cat([ours, theirs], dim=-2))
    return determinants.to(cameras.intrinsics)


def unexplained_variance(points: Float[Tensor, "item token 3"]) -> Float[Tensor, ""]:
    """Share of the points' variance that one common constellation does not explain, in [0, 1]; differentiable.

    0 when all items are the same up to a turn about the vertical and a shift. Tokens that mark a left leg here and a
    right one there, or that gather in the middle, leave more of it: spread that repeats makes it smaller.
    """
    aligned = canonical_points(points)
    mean = aligned.mean(dim=0)
    unexplained = (aligned - mean).square().sum(-1).mean()
    explained = mean.square().sum(-1).mean()
    return unexplained / (unexplained + explained).clamp_min(torch.finfo(points.dtype).tiny)
