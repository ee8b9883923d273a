"""All tokens of an object read together: each where its own evidence and the common constellation say.

One token alone cannot tell a left leg from a right one where the model is not sure, and nothing that a single object
shows would hold it to the same leg on the next. Together the tokens can: objects stand upright, so what is unknown of
an object is one turn about the vertical, and that in which most tokens are where they belong is found by trying all.
"""

import math
from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from keyorbit.geometry.alignment import Form, form_of, stretched, turns_by
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.evidence import Evidence, evidence_grid, refined
from keyorbit.geometry.hull import search_volume, surface_points

# Points whose evidence is so much below the best of any token are not searched: beside the object, nats.
_HOPELESS = 60.0


@dataclass(frozen=True)
class ConstellationConfig:
    """How much a token's evidence and the constellation count. Lengths are in radii of what the views look at.

    angles: turns that are tried; wide: standard deviation of a token about its place while the turn is looked for;
    near: while it learns; read: when it is read on a new object. trust: share of the views' evidence that counts, as
    neighbouring views do not err independently. absent: the likelihood, against flat heatmaps, of an object that does
    not have the token's part: it bounds how much one token speaks against a turn. stretch: whether the constellation is
    stretched to each object's form, as its silhouettes tell it, once the turn is found.
    """

    angles: int = 36
    wide: float = 0.3
    near: float = 0.12
    read: float = 0.2
    trust: float = 0.5
    absent: float = 0.05
    stretch: bool = True


def turns(count: int) -> Float[Tensor, "{count} 3 3"]:
    """Rotations about +z by equal steps, the first by 0."""
    return turns_by(torch.arange(count) * (2 * torch.pi / count))


def turned(
    points: Float[Tensor, "*batch point 3"], rotations: Float[Tensor, "angle 3 3"]
) -> Float[Tensor, "*batch angle point 3"]:
    """The points under every rotation."""
    return einsum(rotations, points, "a i j, ... p j -> ... a p i")


def turn_scores(
    evidence: Float[Tensor, "*batch token point"],
    points: Float[Tensor, "*batch angle point 3"],
    places: Float[Tensor, "token 3"],
    width: float,
    absent: float = ConstellationConfig.absent,
) -> Float[Tensor, "*batch angle"]:
    """How well all tokens fit the constellation in each turn: log-likelihood, nats, mean over tokens.

    evidence: log-likelihood of each token at each point, 0 for flat heatmaps; points: the same points under each turn;
    places: where the tokens belong; ``width``: standard deviation of a token about its place. A token that is nowhere
    near counts as ``absent``.
    """
    fit = (evidence[..., None, :, :] + _log_prior(places, points, width)).logsumexp(-1) - math.log(points.shape[-2])
    return torch.logaddexp(fit, torch.full_like(fit, math.log(absent))).mean(-1)


def placed(
    evidence: Float[Tensor, "*batch token point"],
    points: Float[Tensor, "*batch point 3"],
    places: Float[Tensor, "*#batch token 3"],
    width: float,
) -> Float[Tensor, "*batch token point"]:
    """The chance of each point to be the token's, given its evidence and its place; sums to 1 over the points."""
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
) -> Evidence:
    """As :func:`keyorbit.geometry.evidence.read_evidence`, with the constellation as the prior in its best turn.

    places: of the tokens, about the middle of what the views look at, in its radii. The prior chooses among the peaks
    of a token's evidence; within the peak the evidence alone decides. count: how many tokens are read, the first ones;
    the others only help to find the turn. form: of the object that the places are of; they are stretched to this one's,
    where there are silhouettes to tell it.
    """
    config = config or ConstellationConfig()
    middle, radius = search_volume(cameras)
    grid, step, value = evidence_grid(heatmaps, cameras, distance)
    likely = value.amax(0) > value.max() - _HOPELESS
    points, value = grid[likely], value[:, likely]
    rotations = turns(config.angles).to(points)
    under, places = turned((points - middle.to(points)) / radius, rotations), places.to(points)
    best = turn_scores(config.trust * value, under, places, config.wide, config.absent).argmax()
    own = places[:count]
    if config.stretch and form is not None and distance is not None:
        surface = (surface_points(distance, cameras) - middle.to(points)) / radius
        own = stretched(own, form, form_of(surface @ rotations[best].mT))
    chance = placed(value[:count], under[best], own, config.read)
    return refined(points[chance.argmax(-1)], step, heatmaps[:, :count], cameras, distance)


def upright(cameras: Cameras) -> bool:
    """Whether the views' up is +z, more or less: what turns of the constellation are about."""
    up = -cameras.world_to_camera[:, 1, :3].mean(0)
    return bool(up[2] > 0.5)


def gathered(
    values: Float[Tensor, "*batch angle point 3"], angle: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch point 3"]:
    """The points under each item's own turn."""
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
