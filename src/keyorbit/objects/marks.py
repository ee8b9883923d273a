"""Marks: points that somebody marked on objects, by name, and the file that keeps them. No library is loaded for these.

A file of marks is JSON, an entry a click::

    {"format": "keyorbit-marks-1",
     "marks": [{"object": "chair_00000", "name": "left front foot", "view": 0, "xy": [0.31, 0.72]},
               {"object": "chair_00000", "name": "left front foot", "view": 3, "xy": [0.55, 0.70]},
               {"object": "chair_00000", "name": "middle of the seat", "xyz": [0.0, 0.02, -0.05]}]}
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from keyorbit.errors import InputError
from keyorbit.storage.content import json_of
from keyorbit.storage.files import write_json
from keyorbit.values import Amount, Finite, as_path, check_fields, from_values, is_text, short

FORMAT: Literal["keyorbit-marks-1"] = "keyorbit-marks-1"
MARKS_MARK = f'"{FORMAT}"'
_NAMED = 3


@dataclass(frozen=True)
class Mark:
    """One point that somebody marked: a click in a view or on the input picture, or a place in space.

    Attributes:
        name: of the point; the same name is the same point in all views and on all objects.
        object: name of the object; empty where there is only one.
        view: number of the view, from 0; None for the input picture.
        xy: place in the view, in its unit square: x right, y down. On the input picture, in the square that its places
            are told in (:class:`keyorbit.objects.framing.Framing`).
        xyz: place in space instead, world units.
        hidden: whether the view does not show the point, whose place in it is known all the same. Default False.

    Raises:
        InputError: the name is empty or has control characters, there is neither ``xy`` nor ``xyz`` or both, or the
            place is outside the picture.
    """

    name: Annotated[str, Meta(max_length=200)]
    object: Annotated[str, Meta(max_length=1000)] = ""
    view: Amount | None = None
    xy: tuple[Finite, Finite] | None = None
    xyz: tuple[Finite, Finite, Finite] | None = None
    hidden: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "name", " ".join(self.name.split()))
        if not self.name:
            raise InputError("name is empty; give the point a name, such as 'left front foot'")
        if not is_text(self.name):
            raise InputError(f"the name {short(self.name)} has characters that are no text: leave them out")
        if (self.xy is None) == (self.xyz is None):
            raise InputError(f"{short(self.name)} needs either xy, a place in a view, or xyz, a place in space")
        if self.xyz is not None and self.view is not None:
            raise InputError(f"{short(self.name)} has a view and xyz, which is a place in space: leave one out")
        if self.xy is not None and not all(0 <= value <= 1 for value in self.xy):
            raise InputError(
                f"{short(self.name)} is outside the picture, at ({self.xy[0]:g}, {self.xy[1]:g}): places are shares of "
                "its width and height, 0 to 1, not pixels"
            )

    @property
    def words(self) -> str:
        """Where it is, for sentences."""
        if self.xyz is not None:
            return "in space"
        return "on the input picture" if self.view is None else f"in view {self.view}"


@dataclass(frozen=True)
class Review:
    """An object that somebody looked at and confirmed.

    Attributes:
        object: its name.
        points: all its points, as they were then: in space, or in view 0 of a model without 3D.
    """

    object: Annotated[str, Meta(max_length=1000)]
    points: tuple[Mark, ...]


@dataclass(frozen=True)
class Absent:
    """A point that an object has not, as somebody said."""

    object: Annotated[str, Meta(max_length=1000)]
    name: Annotated[str, Meta(max_length=200)]


@dataclass(frozen=True)
class Annotations:
    """What ``keyorbit annotate`` keeps: a file of marks, with the objects that were confirmed.

    Attributes:
        marks: the points that somebody marked.
        reviewed: the objects that somebody confirmed, none twice.
        absent: points that objects have not.
    """

    marks: tuple[Mark, ...] = ()
    reviewed: tuple[Review, ...] = ()
    absent: tuple[Absent, ...] = ()
    format: Literal["keyorbit-marks-1"] = FORMAT

    def __post_init__(self) -> None:
        for name, count in Counter(review.object for review in self.reviewed).items():
            if count > 1:
                raise InputError(f"reviewed has {short(name)} {count} times; an object is there once")


def read_annotations(path: Path) -> Annotations:
    """Read a file of marks with the objects that were confirmed; it may hold no mark yet.

    Raises:
        InputError: it cannot be read, holds something else, or as :func:`check_marks`.
    """
    found = from_values(Annotations, json_of(path), str(path))
    if found.marks:
        check_marks(found.marks, str(path))
    return found


def write_annotations(path: Path, annotations: Annotations) -> None:
    """Write a file of marks with the objects that were confirmed; whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    content: dict[str, object] = {"format": FORMAT, "marks": [_entry(mark) for mark in annotations.marks]}
    if annotations.reviewed:
        content["reviewed"] = [
            {"object": review.object, "points": [_entry(point) for point in review.points]}
            for review in annotations.reviewed
        ]
    if annotations.absent:
        content["absent"] = [asdict(one) for one in annotations.absent]
    write_json(path, content)


def read_marks(path: Path | str) -> tuple[Mark, ...]:
    """Read the marks in a file of marks.

    Raises:
        InputError: it cannot be read, holds something else, or as :func:`check_marks`.
    """
    marks = from_values(Annotations, json_of(as_path(path)), str(path)).marks
    check_marks(marks, str(path))
    return marks


def write_marks(path: Path | str, marks: Sequence[Mark]) -> None:
    """Write a file of marks; whole or not at all.

    Raises:
        InputError: it cannot be written, or something else than marks is given.
    """
    _check_marks_alone(marks)
    write_annotations(as_path(path), Annotations(tuple(marks)))


def _entry(mark: Mark) -> dict[str, object]:
    # What is as if it were not there is left out; view 0 is there.
    return {key: one for key, one in asdict(mark).items() if _told(one)}


def _told(value: object) -> bool:
    return value is not None and value is not False and value != ""


def check_marks(marks: Sequence[Mark], where: str = "the marks") -> None:
    """Check what marks are together; ``where`` names them in error messages.

    Raises:
        InputError: there are none, something else is among them, two names differ in case only, a name is there twice
            in one view of an object, or is marked both in views and in space.
    """
    _check_marks_alone(marks)
    if not marks:
        raise InputError(f"no point is in {where}: mark at least one")
    known = dict[str, str]()
    for mark in marks:
        if known.setdefault(mark.name.casefold(), mark.name) != mark.name:
            other = known[mark.name.casefold()]
            raise InputError(f"two names in {where} are equal, {short(other)} and {short(mark.name)}: write both alike")
    for (thing, name, words), count in Counter((mark.object, mark.name, mark.words) for mark in marks).items():
        if count > 1:
            whose = f" of {short(thing)}" if thing else ""
            raise InputError(
                f"two names in {where} are equal, {short(name)}, {words}{whose}: give each point a name of its own"
            )
    for (thing, name), both in _by_point(marks).items():
        if len(both) == 2:
            whose = f" of {short(thing)}" if thing else ""
            raise InputError(f"{short(name)}{whose} is both in space and in a view in {where}: leave one out")


def _check_marks_alone(marks: object) -> None:
    """Raise InputError unless these are marks, one or several or none, in a list."""
    wrong = [one for one in marks if not isinstance(one, Mark)] if isinstance(marks, list | tuple) else [marks]
    if wrong:
        raise InputError(f"{short(wrong[0])} is no mark: make one by keyorbit.Mark; keyorbit.read_marks reads a file")


def _by_point(marks: Sequence[Mark]) -> dict[tuple[str, str], set[bool]]:
    """Whether each point of each object is marked in space, in a view, or both."""
    found = dict[tuple[str, str], set[bool]]()
    for mark in marks:
        found.setdefault((mark.object, mark.name), set()).add(mark.xyz is not None)
    return found


def names_of(marks: Sequence[Mark]) -> tuple[str, ...]:
    """The points' names, in the order in which they are first mentioned."""
    return tuple(dict.fromkeys(mark.name for mark in marks))


def marks_of(marks: Sequence[Mark], objects: Sequence[str]) -> dict[int, tuple[Mark, ...]]:
    """The marks of each marked object, by its number among the names of all objects.

    Raises:
        InputError: there is no object, a mark is of none of them, or of one of several with the same name, or names
            none where there are several.
    """
    if not objects:
        raise InputError("there is no object that could have marks: give at least one")
    places = dict[str, list[int]]()
    for number, name in enumerate(objects):
        places.setdefault(name, []).append(number)
    found = dict[int, list[Mark]]()
    for mark in marks:
        if not mark.object and len(objects) != 1:
            count = len(objects)
            raise InputError(
                f"the mark {short(mark.name)} does not say of which of {count} objects it is: give 'object'"
            )
        numbers = places.get(mark.object, []) if mark.object else [0]
        if not numbers:
            there = ", ".join(objects[:_NAMED]) + (" and more" if objects[_NAMED:] else "")
            raise InputError(f"{short(mark.object)} has marks and is not among the objects: {there}")
        if len(numbers) > 1:
            raise InputError(f"{len(numbers)} objects are called {short(mark.object)}, which has marks: rename them")
        found.setdefault(numbers[0], []).append(replace(mark, object=objects[numbers[0]]))
    whole = {number: tuple(some) for number, some in sorted(found.items())}
    for number, some in whole.items():
        check_marks(some, f"the marks of {objects[number]}")
    return whole
