"""Points that annotation tools exported, as marks of the annotators' loop."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from keyorbit.app.annotating import Annotating
from keyorbit.app.seen import Seen
from keyorbit.discovery.placing import MISSES
from keyorbit.errors import InputError
from keyorbit.geometry.triangulation import robust_triangulate
from keyorbit.objects.marks import Annotations, Mark, names_of


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


def with_imported(work: Annotating, marks: Sequence[Mark]) -> Imported:
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
    """The places that are one point; all of them where there are two."""
    if seen.cameras is None or len(clicks) < 3 or any(mark.view is None for mark in clicks):
        return list(clicks)
    cameras = seen.cameras.select([mark.view or 0 for mark in clicks])
    xy = torch.tensor([mark.xy for mark in clicks])[:, None]
    point, _ = robust_triangulate(xy, cameras)
    away = torch.linalg.vector_norm(cameras.project(point) - xy, dim=-1)[:, 0]
    near = [mark for mark, distance in zip(clicks, away.tolist(), strict=True) if distance <= MISSES / 2]
    return near if len(near) >= 2 else list(clicks)
