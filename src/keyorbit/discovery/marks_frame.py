"""The common shape of marked objects: how each is turned on it, and where the marked points belong there.

Lengths are in radii of the volume that all views see, about its middle, as in a discovery by constellation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from keyorbit.diffusion.recording import Recording
from keyorbit.discovery.constellation_run import Hull
from keyorbit.discovery.needs import points_of
from keyorbit.geometry.alignment import Form, form_of, stretched
from keyorbit.geometry.constellation import turned, turns
from keyorbit.geometry.hull import SURFACE_SPACING, in_sight, search_volume, surface_points


@dataclass(frozen=True, eq=False)
class Solid:
    """One object as the fit knows it in space.

    Attributes:
        hull: points on its visual hull, under each turn; of one version, since nothing is warped.
        middle: of the volume that all views see, world units.
        radius: of it.
    """

    hull: Hull
    middle: Float[Tensor, "3"]
    radius: float

    def form(self, turn: int) -> Form:
        """Of its surface under one of the turns."""
        return form_of(self.hull.turned[turn])

    def inside(self, points: Float[Tensor, "point 3"]) -> Float[Tensor, "point 3"]:
        """World points about the middle, in radii."""
        return (points - self.middle.to(points)) / self.radius


def solid_of(recording: Recording, angles: int, tokens: int, number: int, device: torch.device) -> Solid | None:
    """The object in space; None where it has no cameras. ``number`` seeds the points that are drawn from its hull."""
    if recording.cameras is None:
        return None
    cameras, draw = recording.cameras.to("cpu"), torch.Generator().manual_seed(number)
    middle, radius = search_volume(cameras)
    surface = surface_points(recording.shown.silhouette.distance.cpu(), cameras, draw)
    points = surface[torch.randint(len(surface), (points_of(tokens),), generator=draw)]
    xy = cameras.project(points)
    seen = in_sight(points, surface, cameras, SURFACE_SPACING) & ((xy > 0) & (xy < 1)).all(-1)
    under = turned((points - middle) / radius, turns(angles))
    return Solid(Hull(under.to(device), xy[None].to(device), seen[None].to(device)), middle.to(device), radius)


@dataclass(frozen=True, eq=False)
class Frame:
    """The common shape.

    Attributes:
        form: of the object that lends its shape.
        places: of every token, marked ones first.
    """

    form: Form
    places: Float[Tensor, "token 3"]


def turns_of_marks(
    points: Sequence[Float[Tensor, "name 3"]], known: Sequence[Bool[Tensor, " name"]], reference: int, angles: int
) -> Int[Tensor, " object"]:
    """Which turn brings each object's marks nearest to the reference's, by the points that both have.

    It is the first turn, none, for an object that shares no point.
    """
    rotations, found = turns(angles).to(points[0]), []
    for own, there in zip(points, known, strict=True):
        both = there & known[reference]
        apart = (turned(own[both], rotations) - points[reference][both]).square().sum((-2, -1))
        found.append(apart.argmin())
    return torch.stack(found)


def common_turns(relative: Int[Tensor, " object"], fits: Float[Tensor, "object angle"]) -> Int[Tensor, " object"]:
    """The turns of all marked objects on a shape that is known, from how well each fits it in each turn.

    ``relative`` is the turn of each with respect to the first, by its marks: only one turn of all together is unknown,
    so that an object which the model takes for turned is outvoted by the others.
    """
    angles = fits.shape[1]
    shifted = torch.stack([row.roll(-int(turn)) for row, turn in zip(fits, relative, strict=True)])
    return (relative.to(fits.device) + shifted.sum(0).argmax()) % angles


def mean_places(
    solids: Sequence[Solid],
    points: Sequence[Float[Tensor, "name 3"]],
    known: Sequence[Bool[Tensor, " name"]],
    turn: Int[Tensor, " object"],
    form: Form,
    angles: int,
) -> Float[Tensor, "name 3"]:
    """Where marks belong on the common shape: the mean over the objects that have them, each brought to that form."""
    rotations = turns(angles).to(points[0])
    total, count = torch.zeros_like(points[0]), torch.zeros_like(points[0][:, :1])
    for solid, own, there, which in zip(solids, points, known, turn.tolist(), strict=True):
        back = stretched(own @ rotations[which].mT, solid.form(which), form)
        total, count = total + torch.where(there[:, None], back, 0.0), count + there[:, None]
    return total / count.clamp_min(1)


def far_points(
    points: Float[Tensor, "point 3"], taken: Float[Tensor, "other 3"], count: int
) -> Float[Tensor, "{count} 3"]:
    """Points that lie far from one another and from those that are taken, by furthest point sampling."""
    nearest, chosen = torch.cdist(points, taken).amin(1), []
    for _ in range(count):
        chosen.append(points[nearest.argmax()])
        nearest = torch.minimum(nearest, torch.cdist(points, chosen[-1][None])[:, 0])
    return torch.stack(chosen) if chosen else points[:0]
