"""What an annotator's steps make of the annotations: pure functions, without windows, files or a model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from keyorbit.app.seen import Point, Seen, points_of
from keyorbit.errors import InputError
from keyorbit.objects.marks import Absent, Annotations, Mark, Review
from keyorbit.values import short

_LONGEST_NAME = 200


@dataclass(frozen=True)
class State:
    """Where an annotator is.

    Attributes:
        annotations: what the file holds.
        current: name of the object that is shown; empty before one is read.
        skipped: names of objects that were put off, in their order.
        added: names of points that somebody added and has not marked yet.
    """

    annotations: Annotations
    current: str = ""
    skipped: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def all_names(known: Sequence[str], state: State) -> tuple[str, ...]:
    """Return the names of all points: those that are known, then others that were marked or added."""
    found = {name.casefold(): name for name in known}
    for name in (*(mark.name for mark in state.annotations.marks), *state.added):
        found.setdefault(name.casefold(), name)
    return tuple(found.values())


def new_name(text: str, names: Sequence[str]) -> str:
    """Return a name that was typed, with single spaces.

    Raises:
        InputError: it is empty, too long or there already.
    """
    name = " ".join(text.split())
    if not name or len(name) > _LONGEST_NAME:
        raise InputError("give the point a name of 1 to 200 characters, such as 'left front foot'")
    if name.casefold() in {known.casefold() for known in names}:
        raise InputError(f"there is a point {short(name)} already; choose it in the row of points")
    return name


def free_name(names: Sequence[str]) -> str:
    """Return ``point 0`` where there is none yet, and so on: the number that the next point has on the page."""
    taken = {name.casefold() for name in names}
    return next(name for i in range(len(names), 2 * len(names) + 1) if (name := f"point {i}") not in taken)


def clicks_of(annotations: Annotations, thing: str, name: str) -> tuple[Mark, ...]:
    """Return the marks of one point of one object."""
    return tuple(mark for mark in annotations.marks if _same(mark, thing, name))


def with_clicks(annotations: Annotations, thing: str, name: str, marks: Sequence[Mark]) -> Annotations:
    """Return the annotations with these marks as the only ones of a point; with none, without it."""
    rest = (mark for mark in annotations.marks if not _same(mark, thing, name))
    absent = tuple(one for one in annotations.absent if one != Absent(thing, name))
    return replace(annotations, marks=(*rest, *marks), absent=absent)


def with_absent(annotations: Annotations, thing: str, name: str) -> Annotations:
    """Return the annotations where the object has no such point."""
    made = with_clicks(annotations, thing, name, ())
    return replace(made, absent=(*made.absent, Absent(thing, name)))


def with_review(annotations: Annotations, review: Review) -> Annotations:
    """Return the annotations with an object confirmed as this says."""
    others = tuple(one for one in annotations.reviewed if one.object != review.object)
    return replace(annotations, reviewed=(*others, review))


def review_of(annotations: Annotations, thing: str) -> Review | None:
    """Return what was confirmed of an object; None for nothing."""
    return next((review for review in annotations.reviewed if review.object == thing), None)


def renamed(state: State, old: str, new: str) -> State:
    """Return the state with another name of a point, on all objects."""

    def mark(one: Mark) -> Mark:
        return replace(one, name=new) if one.name.casefold() == old.casefold() else one

    said = state.annotations
    annotations = replace(
        said,
        marks=tuple(mark(one) for one in said.marks),
        reviewed=tuple(replace(one, points=tuple(mark(point) for point in one.points)) for one in said.reviewed),
        absent=tuple(replace(one, name=new) if one.name == old else one for one in said.absent),
    )
    return replace(state, annotations=annotations, added=tuple(new if one == old else one for one in state.added))


def shown_points(seen: Seen, names: Sequence[str], annotations: Annotations) -> tuple[Point, ...]:
    """Return the points of an object as the annotations have them."""
    marks = [mark for mark in annotations.marks if mark.object == seen.name]
    absent = {one.name for one in annotations.absent if one.object == seen.name}
    review = review_of(annotations, seen.name)
    return points_of(seen, names, marks, absent, None if review is None else review.points)


def confirmed(seen: Seen, names: Sequence[str], annotations: Annotations) -> Annotations:
    """Return the annotations with the object confirmed, with its points as they are."""
    points = tuple(kept for point in shown_points(seen, names, annotations) if (kept := point.kept))
    return with_review(annotations, Review(seen.name, points))


def with_names(annotations: Annotations, objects: Sequence[str]) -> Annotations:
    """Return the annotations with the object's name where marks name none, as they may where there is only one."""
    if len(objects) != 1:
        return annotations
    marks = tuple(mark if mark.object else replace(mark, object=objects[0]) for mark in annotations.marks)
    return replace(annotations, marks=marks)


def check_objects(objects: Sequence[str], annotations: Annotations, file: Path | None) -> None:
    """Raise an error unless every object has a name of its own, and the annotations are of these objects.

    Raises:
        InputError: they are not.
    """
    if twice := next((name for i, name in enumerate(objects) if name in objects[:i]), None):
        raise InputError(f"two objects are called {short(twice)}, whose marks could not be told apart: rename one")
    there = set(objects)
    named = (
        *(mark.object for mark in annotations.marks),
        *(review.object for review in annotations.reviewed),
        *(one.object for one in annotations.absent),
    )
    if stranger := next((name for name in named if name not in there), None):
        raise InputError(f"{file} has marks of {short(stranger)}, which is not among the objects: give another --out")


def _same(mark: Mark, thing: str, name: str) -> bool:
    return mark.object == thing and mark.name.casefold() == name.casefold()
