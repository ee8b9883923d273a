"""Where marked points are: clicks in several views are triangulated, one click is lifted on the visual hull."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.hull import (
    SURFACE_SPACING,
    beside_silhouette,
    convex_outlines,
    in_sight,
    search_volume,
    silhouette_distance,
    surface_points,
)
from keyorbit.geometry.hull_depth import lifted
from keyorbit.geometry.triangulation import triangulate
from keyorbit.objects.marks import Mark, names_of
from keyorbit.values import short

# How far beside the object a click may be, and clicks in several views from one point, in sides of the view; besides,
# a pixel of the silhouettes.
BESIDE = MISSES = 0.05
# How far from the middle of the volume that all views see a place in space may be, in radii: its corners, and more.
_FAR = 3.0
How = Literal["triangulated", "lifted", "given", "flat"]


@dataclass(frozen=True)
class PlacedMark:
    """Where one marked point of one object is.

    Attributes:
        object: its name.
        name: of the point.
        how: ``triangulated`` from clicks in two views or more; ``lifted`` from one click to the nearest point of the
            visual hull behind it; ``given`` in space; ``flat``: a place in a single view, of a model without 3D.
        xyz: in space, world units; None where it is flat.
        xy: its place in every view, in the view's unit square.
        seen: whether each view sees it: it was clicked there, or nothing of the hull is before it.
        miss: largest distance of a click from it, in sides of the view; 0 where there was no click.
        picture_xy: its place on the input picture, where it was marked there.
    """

    object: str
    name: str
    how: How
    xyz: tuple[float, float, float] | None
    xy: tuple[tuple[float, float], ...]
    seen: tuple[bool, ...]
    miss: float = 0.0
    picture_xy: tuple[float, float] | None = None

    @property
    def words(self) -> str:
        """How it was placed, for tables."""
        return {
            "triangulated": f"triangulated, misses its clicks by {self.miss:.1%} of the side",
            "lifted": "lifted on the visual hull",
            "given": "given in space",
            "flat": "in the picture",
        }[self.how]


def place_marks(
    marks: Sequence[Mark],
    name: str,
    masks: Bool[Tensor, "view height width"],
    cameras: Cameras | None,
    picture: Cameras | None = None,
    generated: bool = False,
) -> tuple[PlacedMark, ...]:
    """Find where the marks of one object are, in the order of their names.

    Args:
        marks: of this object.
        name: the object's.
        masks: True on the object in each view.
        cameras: of the views; None for a model of a single view.
        picture: camera of the input picture, in whose unit square marks without a view are told; None where it is not
            known.
        generated: whether the model made the views. Parts of the object may then be of the ground's colour and missing
            in the silhouettes, so that only places beside the convex hull of a silhouette are beside the object.
            Default False.

    Raises:
        InputError: a mark is beside the object, in a view that there is not or on a picture whose camera is not known,
            or clicks of one name are not one point.
    """
    distance = silhouette_distance(masks.cpu())
    allowed = silhouette_distance(convex_outlines(masks.cpu())) if generated else distance
    found = []
    for point in names_of(marks):
        own = [mark for mark in marks if mark.name == point]
        told = f"{name}: {short(point)}"
        _check_views(own, len(masks), cameras, picture, told)
        if cameras is None:
            found.append(_flat(own[0], name, allowed, told))
        else:
            found.append(_in_space(own, name, distance, allowed, cameras.to("cpu"), picture, told))
    return tuple(found)


def _check_views(
    marks: Sequence[Mark], views: int, cameras: Cameras | None, picture: Cameras | None, told: str
) -> None:
    for mark in marks:
        if mark.view is not None and mark.view >= views:
            there = "0 only" if views == 1 else f"0 to {views - 1}"
            raise InputError(f"{told} is marked in view {mark.view}; there are views {there}")
        if cameras is None and mark.xyz is not None:
            raise InputError(f"{told} is marked in space, of which a model of a single view knows nothing: give xy")
        if cameras is not None and picture is None and mark.xy is not None and mark.view is None:
            raise InputError(f"{told} is marked on the input picture, whose camera is not known: mark it in a view")
    if cameras is None and len(marks) > 1:
        raise InputError(f"{told} is marked in view 0 and without a view, which are one picture: leave one out")


def _flat(mark: Mark, name: str, distance: Float[Tensor, "view height width"], told: str) -> PlacedMark:
    xy = mark.xy or (0.0, 0.0)
    _check_beside(distance, torch.tensor([[xy]]), told, "in the picture")
    return PlacedMark(name, mark.name, "flat", None, (xy,), (True,), picture_xy=xy if mark.view is None else None)


def _in_space(
    marks: Sequence[Mark],
    name: str,
    distance: Float[Tensor, "view height width"],
    allowed: Float[Tensor, "view height width"],
    cameras: Cameras,
    picture: Cameras | None,
    told: str,
) -> PlacedMark:
    clicks = [mark for mark in marks if mark.xy is not None]
    given = next((mark.xy for mark in clicks if mark.view is None), None)
    for mark in clicks:
        if mark.view is not None:
            at = torch.tensor([[mark.xy]])
            _check_beside(allowed[mark.view : mark.view + 1], at, told, mark.words)
    xy = torch.tensor([mark.xy for mark in clicks])
    looking = None if not clicks else _joined(cameras, picture, [mark.view for mark in clicks])
    how: How = "given" if not clicks else "lifted" if len(clicks) == 1 else "triangulated"
    miss = 0.0
    if looking is None:
        point = torch.tensor(marks[0].xyz)
        _check_volume(point, cameras, told)
    elif len(clicks) == 1:
        # Its own view says nothing of its depth. Where that silhouette has a hole, the others tell it.
        own = [view == clicks[0].view for view in range(len(distance))]
        hull = torch.where(torch.tensor(own)[:, None, None], allowed, distance)
        point = lifted(xy[0], looking, hull, cameras)
    else:
        point = triangulate(xy[:, None], looking)[0]
        miss = float(torch.linalg.vector_norm(looking.project(point[None])[:, 0] - xy, dim=-1).max())
        if not miss <= MISSES:
            where = " and ".join(mark.words for mark in clicks)
            raise InputError(
                f"{told} is marked {where}, and these are not one point: they miss each other by {miss:.0%} of the "
                "view's side; mark it anew"
            )
    places = cameras.project(point[None])
    remedy = "mark it anew"
    if allowed is not distance and clicks:
        remedy = "generated views may contradict each other: mark it in another view, or in a single one"
    _check_beside(allowed, places, told, "from where it is in space", remedy)
    surface = surface_points(distance, cameras)
    seen = in_sight(point[None], surface, cameras, SURFACE_SPACING)[:, 0]
    for mark in clicks:
        if mark.view is not None:
            seen[mark.view] = not mark.hidden
    x, y, z = point.tolist()
    return PlacedMark(
        name,
        marks[0].name,
        how,
        (x, y, z),
        tuple((x, y) for x, y in places[:, 0].tolist()),
        tuple(seen.tolist()),
        miss,
        given,
    )


def _check_volume(point: Float[Tensor, "3"], cameras: Cameras, told: str) -> None:
    """Raise InputError where a place in space is in no view: its unit or its axes are not those of the cameras."""
    middle, radius = search_volume(cameras)
    if not float(torch.linalg.vector_norm((point - middle).double())) <= _FAR * radius:
        x, y, z, *about = (f"{value:.3g}" for value in (*point.tolist(), *middle.tolist()))
        raise InputError(
            f"{told} is far outside the views, at xyz ({x}, {y}, {z}): give it in the world units of the cameras, "
            f"which see a sphere of radius {radius:.3g} about ({', '.join(about)})"
        )


def _joined(cameras: Cameras, picture: Cameras | None, views: Sequence[int | None]) -> Cameras:
    """The cameras in which a point was clicked; None stands for the input picture's."""
    chosen = [picture if view is None and picture is not None else cameras.select([view or 0]) for view in views]
    return reduce(Cameras.join, chosen)


def _check_beside(
    distance: Float[Tensor, "view height width"],
    xy: Float[Tensor, "view 1 2"],
    told: str,
    where: str,
    remedy: str = "mark it anew",
) -> None:
    """Raise InputError where a place is further beside the object than a click may be."""
    beside = float(beside_silhouette(distance, xy).max())
    if not beside <= BESIDE + 1 / max(distance.shape[-2:]):
        raise InputError(f"{told}, {where}, is beside the object by {beside:.0%} of the view's side: {remedy}")
