"""Points that annotation tools exported, as marks of the annotators' loop."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.app.seen import Seen
from keyorbit.discovery.placing import MISSES
from keyorbit.errors import InputError
from keyorbit.geometry.triangulation import robust_triangulate
from keyorbit.objects.marks import Annotations, Mark, names_of

if TYPE_CHECKING:
    from keyorbit.app.annotating import Annotating


@dataclass(frozen=True)
class Imported:
    """What became of imported points.

    Attributes:
        annotations: the annotations with them.
        points: how many points of objects were marked.
        objects: how many objects.
        dropped: how many places in views did not fit the others of their point, and were left out.
    """

    annotations: Annotations
    points: int
    objects: int
    dropped: int


def with_imported(work: "Annotating", marks: Sequence[Mark]) -> Imported:
    """Return the annotations with these marks in the place of earlier ones of the same points.

    Where places of a point in several views are not one point, those that are not with the others are left out.

    Args:
        work: the annotations; the marked objects have been read.
        marks: on these objects.

    Raises:
        InputError: a mark is beside its object.
    """
    known = {name.casefold(): name for name in work.names}
    for mark in marks:
        known.setdefault(mark.name.casefold(), mark.name)
    new, dropped = list[Mark](), 0
    objects = tuple(dict.fromkeys(mark.object for mark in marks))
    for name in objects:
        seen = work.seen(name)
        if seen is None:
            raise InputError(f"{name} has not been read yet")
        own = [replace(mark, name=known[mark.name.casefold()]) for mark in marks if mark.object == name]
        for point in names_of(own):
            clicks = [mark for mark in own if mark.name == point]
            fitting = _fitting(seen, clicks)
            seen.place(fitting)  # raises where they are not on the object
            new += fitting
            dropped += len(clicks) - len(fitting)
    marked = {(mark.object, mark.name) for mark in new}
    kept = [mark for mark in work.marks if (mark.object, mark.name) not in marked]
    absent = tuple(one for one in work.state.annotations.absent if (one.object, one.name) not in marked)
    # A confirmation was of the points before.
    reviewed = tuple(one for one in work.state.annotations.reviewed if one.object not in objects)
    made = replace(work.state.annotations, marks=(*kept, *new), absent=absent, reviewed=reviewed)
    return Imported(made, len(marked), len(objects), dropped)


def _fitting(seen: Seen, clicks: Sequence[Mark]) -> list[Mark]:
    """The places that are one point; all of them where fewer than three cameras tell.

    The cameras of views are known and that of the input picture is an estimate: views decide, where there are two.
    """
    in_views = [mark for mark in clicks if mark.view is not None]
    if seen.cameras is None or len(clicks) < 3 or len(in_views) < 2:
        return list(clicks)
    cameras = seen.cameras.select([mark.view or 0 for mark in in_views])
    point, _ = robust_triangulate(torch.tensor([mark.xy for mark in in_views])[:, None], cameras)
    near = [mark for mark in in_views if _away(seen, mark, point) <= MISSES / 2]
    if len(near) < 2:
        return list(clicks)
    return [mark for mark in clicks if mark in near or (mark.view is None and _away(seen, mark, point) <= MISSES / 2)]


def _away(seen: Seen, mark: Mark, point: Float[Tensor, "1 3"]) -> float:
    """Distance of a place from where its picture shows the point, in sides; infinite where no camera is known."""
    camera = seen.camera if mark.view is None else seen.cameras and seen.cameras.select([mark.view])
    if camera is None or mark.xy is None:
        return torch.inf
    return float(torch.linalg.vector_norm(camera.project(point)[0, 0] - torch.tensor(mark.xy)))
