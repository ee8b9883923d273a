"""Read all tokens of an object together, each from its own evidence and from its place in the constellation.

A single token cannot distinguish a left leg from a right one where the model is uncertain, and nothing on a single
object binds it to the same leg on the next. All tokens together can. Objects stand upright, so the only unknown of an
object is its turn about the vertical. All turns are tried, and the one in which most tokens fit their places is used.
"""

import math
from dataclasses import dataclass, fields

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from keyorbit.geometry.alignment import Form, form_of, stretched, turns_by
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.constellation_config import ConstellationConfig
from keyorbit.geometry.evidence import Evidence, evidence_grid, refined
from keyorbit.geometry.hull import search_volume, surface_points

# Points whose evidence is so much below the best of any token are not searched: beside the object, nats.
_HOPELESS = 60.0
# Turns further than this from the best one are others, and not the same one read less well. Degrees.
_ANOTHER = 60.0


@dataclass(frozen=True, eq=False)
class Reading(Evidence):
    """Keypoints in space, and how well the whole object fits the constellation.

    Attributes:
        fit: log-likelihood of all tokens in the best turn, nats a token.
        margin: by how much that exceeds the best turn that is more than 60° away, nats a token; 0 if none is tried.
        stray: distance of each keypoint from its place on the constellation, radii.
    """

    fit: Float[Tensor, ""]
    margin: Float[Tensor, ""]
    stray: Float[Tensor, " keypoint"]

    def cpu(self) -> "Reading":
        """The same on the CPU."""
        return Reading(**{field.name: getattr(self, field.name).cpu() for field in fields(self)})


def turns(count: int) -> Float[Tensor, "{count} 3 3"]:
    """Compute rotations about +z by ``count`` equal steps; the first is the identity."""
    return turns_by(torch.arange(count) * (2 * torch.pi / count))


def turned(
    points: Float[Tensor, "*batch point 3"], rotations: Float[Tensor, "angle 3 3"]
) -> Float[Tensor, "*batch angle point 3"]:
    """Apply every rotation to the points."""
    return einsum(rotations, points, "a i j, ... p j -> ... a p i")


def turn_scores(
    evidence: Float[Tensor, "*batch token point"],
    points: Float[Tensor, "*batch angle point 3"],
    places: Float[Tensor, "token 3"],
    width: float,
    absent: float = ConstellationConfig.absent,
) -> Float[Tensor, "*batch angle"]:
    """Compute how well all tokens fit the constellation in each turn: log-likelihood in nats, mean over tokens.

    Args:
        evidence: log-likelihood of each token at each point; 0 for flat heatmaps.
        points: the same points under each turn.
        places: place of each token, in the unit of the points.
        width: standard deviation of a token about its place.
        absent: likelihood of a token that has evidence nowhere near its place.
    """
    fit = (evidence[..., None, :, :] + _log_prior(places, points, width)).logsumexp(-1) - math.log(points.shape[-2])
    return torch.logaddexp(fit, torch.full_like(fit, math.log(absent))).mean(-1)


def placed(
    evidence: Float[Tensor, "*batch token point"],
    points: Float[Tensor, "*batch point 3"],
    places: Float[Tensor, "*#batch token 3"],
    width: float,
) -> Float[Tensor, "*batch token point"]:
    """Compute the probability of each point to be the token's, from evidence and place; sums to 1 over the points."""
    return (evidence + _log_prior(places, points, width)).softmax(-1)


@torch.no_grad()
def read_constellation(
    heatmaps: Float[Tensor, "view token height width"],
    cameras: Cameras,
    places: Float[Tensor, "token 3"],
    distance: Float[Tensor, "view mask_height mask_width"] | None = None,
    config: ConstellationConfig | None = None,
    count: int | None = None,
    form: Form | None = None,
) -> Reading:
    """Read keypoints in space, as :func:`~keyorbit.geometry.evidence.read_evidence`, with the constellation as a prior.

    All turns are tried, and the best one is used. The prior chooses among the peaks of a token's evidence; within the
    peak the evidence alone decides.

    Args:
        heatmaps: of all tokens in every view; each sums to 1.
        cameras: of the views.
        places: place of each token, relative to the middle of the volume that all cameras see, in its radii.
        distance: from the silhouettes, 0 on them. Default None: the visual hull is not used.
        config: weights of evidence and constellation; default :class:`ConstellationConfig`.
        count: number of tokens that are read, the first ones. The others only help to find the turn. Default None: all.
        form: form of the object to which the places belong. The places are stretched from it to this object's form if
            ``distance`` is given. Default None: no stretching.
    """
    config = config or ConstellationConfig()
    middle, radius = search_volume(cameras)
    grid, step, value = evidence_grid(heatmaps, cameras, distance)
    likely = value.amax(0) > value.max() - _HOPELESS
    points, value = grid[likely], value[:, likely]
    rotations = turns(config.angles).to(points)
    under, places = turned((points - middle.to(points)) / radius, rotations), places.to(points)
    scores = turn_scores(config.trust * value, under, places, config.wide, config.absent)
    best = scores.argmax()
    own = places[:count]
    if config.stretch and form is not None and distance is not None:
        surface = (surface_points(distance, cameras) - middle.to(points)) / radius
        own = stretched(own, form, form_of(surface @ rotations[best].mT))
    chance = placed(value[:count], under[best], own, config.read)
    found = refined(points[chance.argmax(-1)], step, heatmaps[:, :count], cameras, distance)
    where = (found.xyz - middle.to(points)) / radius @ rotations[best].mT
    stray = torch.linalg.vector_norm(where - own.to(where), dim=-1)
    return Reading(found.xyz, found.covariance, found.strength, scores.max(), _margin(scores, best), stray)


def _margin(scores: Float[Tensor, " angle"], best: Int[Tensor, ""]) -> Float[Tensor, ""]:
    steps = (torch.arange(len(scores), device=scores.device) - best).abs()
    away = torch.minimum(steps, len(scores) - steps) * (360 / len(scores))
    others = scores.masked_fill(away <= _ANOTHER, -torch.inf).max()
    return torch.where(others.isfinite(), scores.max() - others, 0.0)


def upright(cameras: Cameras) -> bool:
    """Whether the views' up direction is about +z, the axis of the turns."""
    up = -cameras.world_to_camera[:, 1, :3].mean(0)
    return bool(up[2] > 0.5)


def gathered(
    values: Float[Tensor, "*batch angle point 3"], angle: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch point 3"]:
    """Select each item's points under its own turn."""
    index = angle[..., None, None, None].expand(*angle.shape, 1, *values.shape[-2:])
    return values.gather(-3, index).squeeze(-3)


def _log_prior(
    places: Float[Tensor, "*#batch token 3"], points: Float[Tensor, "*batch point 3"], width: float
) -> Float[Tensor, "*batch token point"]:
    """-½ (distance / width)², as one product: the squares are channels of their own, and no differences are stored."""
    half = 0.5 / width**2
    square = _square(places)
    from_places = torch.cat([2 * half * places, -half * square, torch.full_like(square, -half)], dim=-1)
    at_points = torch.cat([points, torch.ones_like(points[..., :1]), _square(points)], dim=-1)
    return einsum(from_places, at_points, "... t c, ... p c -> ... t p")


def _square(points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 1"]:
    return points.square().sum(-1, keepdim=True)
