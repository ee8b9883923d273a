"""The annotators' loop without its page: what was marked, confirmed and skipped, kept on the disk at every step."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from keyorbit.app.seen import Point, Seen, points_of
from keyorbit.errors import InputError
from keyorbit.objects.marks import Absent, Annotations, Mark, Review, write_annotations
from keyorbit.values import short

# Steps that can be undone.
_STEPS = 1000
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


class Annotating:
    """One file of annotations. Several windows may look at it; every step counts from the revision that it names.

    Args:
        objects: names of all objects.
        names: of the keypoints of the tokens.
        file: where the annotations are kept.
        annotations: what it holds.
        moved: called when the annotator turns to another object.

    Raises:
        InputError: two objects have the same name, or the file has one that is not among them.
    """

    def __init__(
        self,
        objects: Sequence[str],
        names: Sequence[str],
        file: Path,
        annotations: Annotations,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        check_objects(objects, annotations, file)
        self.objects, self.file = tuple(objects), file
        self.state, self.revision, self.message = State(annotations), 0, ""
        self.moved = moved
        self._names = tuple(names)
        self._before = list[State]()
        self._seen = dict[str, Seen]()
        self._lock = threading.RLock()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all points: of the tokens, then others that were marked or added."""
        known = {name.casefold(): name for name in self._names}
        for name in (*(mark.name for mark in self.state.annotations.marks), *self.state.added):
            known.setdefault(name.casefold(), name)
        return tuple(known.values())

    @property
    def undoable(self) -> bool:
        """Whether there is a step to take back."""
        return bool(self._before)

    @property
    def marks(self) -> tuple[Mark, ...]:
        """All marks."""
        return self.state.annotations.marks

    @property
    def reviewed(self) -> dict[str, Review]:
        """What was confirmed, by the objects' names."""
        return {review.object: review for review in self.state.annotations.reviewed}

    def queue(self) -> list[str]:
        """Objects that are not confirmed and have been read: the least certain first, skipped ones at the end."""
        with self._lock:
            left = [name for name in self.objects if name in self._seen and name not in self.reviewed]
            skipped = {name: i for i, name in enumerate(self.state.skipped)}
            return sorted(left, key=lambda name: (skipped.get(name, -1), self._seen[name].certainty))

    def seen(self, name: str) -> Seen | None:
        """What is known of an object; None where it has not been read."""
        return self._seen.get(name)

    def put(self, seen: Seen) -> None:
        """Take what was read of an object. The one that is shown does not change under the annotator's hands."""
        with self._lock:
            if seen.name == self.state.current and seen.name in self._seen:
                return
            self._seen[seen.name] = seen

    def begin(self) -> None:
        """Turn to the first object of the queue; to one that is confirmed, if all are."""
        with self._lock:
            queue = self.queue() or [name for name in self.objects if name in self._seen]
            if not self.state.current and queue:
                self.state = replace(self.state, current=queue[0])

    def points(self, name: str) -> tuple[Point, ...]:
        """Return the points of an object; none where it has not been read."""
        with self._lock:
            seen = self._seen.get(name)
            return () if seen is None else self._points(seen, self.state.annotations)

    def _points(self, seen: Seen, annotations: Annotations) -> tuple[Point, ...]:
        marks = [mark for mark in annotations.marks if mark.object == seen.name]
        absent = {one.name for one in annotations.absent if one.object == seen.name}
        kept = next((review.points for review in annotations.reviewed if review.object == seen.name), None)
        return points_of(seen, self.names, marks, absent, kept)

    def place(self, revision: int, name: str, view: int | None, xy: tuple[float, float]) -> None:
        """Mark a point of the object that is shown, in a view or, with None, on the input picture.

        Other clicks of this point stay if they are the same point as this one; else they are dropped, and the message
        says so.

        Raises:
            InputError: the page is of another state, there is no such point, the place is beside the object, or the
                disk refuses.
        """
        with self._lock:
            seen = self._shown(revision)
            point = self._known(name)
            clicks = [
                mark for mark in self.marks if mark.object == seen.name and mark.name.casefold() == name.casefold()
            ]
            new = Mark(point, seen.name, view, xy)
            others = [mark for mark in clicks if mark.view != view and mark.xy is not None]
            said = self._said(seen, [*others, new])
            if said is None:
                (placed,) = seen.place([new])  # whose sentence says what is wrong with it alone
                said = f"{point}: the clicks before did not fit this one and were dropped; {placed.words}"
                others = []
            rest = [mark for mark in self.marks if mark not in clicks]
            annotations = replace(
                self.state.annotations,
                marks=(*rest, *others, new),
                absent=self._without_absent(seen.name, point),
            )
            self._step(replace(self.state, annotations=self._with_review(annotations, seen)), said)

    def _said(self, seen: Seen, marks: Sequence[Mark]) -> str | None:
        """How these clicks place the point, in words; None where they are not one point."""
        try:
            (placed,) = seen.place(marks)
        except InputError:
            if len(marks) == 1:
                raise
            return None
        hint = "; look at the other views, and drag it there if it is wrong" if placed.how == "lifted" else ""
        return f"{placed.name}: {placed.words}{hint}"

    def drop(self, revision: int, name: str) -> None:
        """Take back all marks of a point of the object that is shown: it is again where the model found it.

        Raises:
            InputError: as :meth:`place`.
        """
        with self._lock:
            seen, point = self._shown(revision), self._known(name)
            marks = tuple(mark for mark in self.marks if not _same(mark, seen.name, point))
            absent = self._without_absent(seen.name, point)
            annotations = replace(self.state.annotations, marks=marks, absent=absent)
            if (review := self.reviewed.get(seen.name)) is not None:
                found = points_of(seen, [point], (), frozenset())[0].kept
                points = (*(mark for mark in review.points if mark.name != point), *([found] if found else []))
                annotations = self._reviewed(annotations, replace(review, points=points))
            self._step(replace(self.state, annotations=annotations), f"{point}: as the model found it")

    def absent(self, revision: int, name: str) -> None:
        """Say that the object that is shown has no such point.

        Raises:
            InputError: as :meth:`place`.
        """
        with self._lock:
            seen, point = self._shown(revision), self._known(name)
            marks = tuple(mark for mark in self.marks if not _same(mark, seen.name, point))
            none = (*self._without_absent(seen.name, point), Absent(seen.name, point))
            annotations = replace(self.state.annotations, marks=marks, absent=none)
            state = replace(self.state, annotations=self._with_review(annotations, seen))
            self._step(state, f"{point}: not on this object")

    def add(self, revision: int, name: str) -> None:
        """Add a point of one's own, to be marked next.

        Raises:
            InputError: the page is of another state, or the name is empty, too long or there already.
        """
        with self._lock:
            self._shown(revision)
            text = " ".join(name.split())
            if not text or len(text) > _LONGEST_NAME:
                raise InputError("give the new point a name of 1 to 200 characters, such as 'left front foot'")
            if text.casefold() in {known.casefold() for known in self.names}:
                raise InputError(f"there is a point {short(text)} already; choose it in the row of points")
            self._step(replace(self.state, added=(*self.state.added, text)), f"{text}: click where it is")

    def accept(self, revision: int) -> None:
        """Confirm the object that is shown with all its points, and turn to the next.

        Raises:
            InputError: the page is of another state, or the disk refuses.
        """
        with self._lock:
            seen = self._shown(revision)
            annotations = self._reviewed(self.state.annotations, self._review(self.state.annotations, seen))
            skipped = tuple(name for name in self.state.skipped if name != seen.name)
            self._turn(replace(self.state, annotations=annotations, skipped=skipped), f"{seen.name}: confirmed")

    def skip(self, revision: int) -> None:
        """Put the object that is shown off, and turn to the next.

        Raises:
            InputError: the page is of another state.
        """
        with self._lock:
            seen = self._shown(revision)
            if seen.name in self.reviewed:
                self._turn(self.state, "")
                return
            skipped = (*(name for name in self.state.skipped if name != seen.name), seen.name)
            self._turn(replace(self.state, skipped=skipped), f"{seen.name}: put off")

    def show(self, revision: int, name: str) -> None:
        """Turn to an object by its name.

        Raises:
            InputError: the page is of another state, there is no such object, or it has not been read yet.
        """
        with self._lock:
            self._shown(revision)
            if name not in self.objects:
                raise InputError(f"there is no object {short(name)}")
            if name not in self._seen:
                raise InputError(f"{name} has not been read yet: wait a moment")
            self._step(replace(self.state, current=name), "")
            self.moved()

    def undo(self, revision: int) -> None:
        """Take the last step back.

        Raises:
            InputError: the page is of another state, there is no step, or the disk refuses.
        """
        with self._lock:
            self._shown(revision)
            if not self._before:
                raise InputError("there is nothing to undo since the app was started")
            before = self._before[-1]
            self._write(before.annotations)
            self._before.pop()
            self.state, self.message, self.revision = before, "undone", self.revision + 1

    def _shown(self, revision: int) -> Seen:
        """The object that is shown."""
        if revision != self.revision:
            raise InputError("something was changed in another window meanwhile: look again, the page shows it now")
        seen = self._seen.get(self.state.current)
        if seen is None:
            raise InputError("no object has been read yet: wait a moment")
        return seen

    def _known(self, name: str) -> str:
        for known in self.names:
            if known.casefold() == name.casefold():
                return known
        raise InputError(f"there is no point {short(name)}")

    def _without_absent(self, thing: str, name: str) -> tuple[Absent, ...]:
        return tuple(one for one in self.state.annotations.absent if one != Absent(thing, name))

    def _review(self, annotations: Annotations, seen: Seen) -> Review:
        return Review(seen.name, tuple(kept for point in self._points(seen, annotations) if (kept := point.kept)))

    def _with_review(self, annotations: Annotations, seen: Seen) -> Annotations:
        """The same, with the points of a confirmed object as they are after a correction."""
        if seen.name not in self.reviewed:
            return annotations
        return self._reviewed(annotations, self._review(annotations, seen))

    def _reviewed(self, annotations: Annotations, review: Review) -> Annotations:
        others = tuple(one for one in annotations.reviewed if one.object != review.object)
        return replace(annotations, reviewed=(*others, review))

    def _turn(self, state: State, message: str) -> None:
        """Take a step that ends with the next object."""
        left = [name for name in self.queue() if name != state.current]
        known = {review.object for review in state.annotations.reviewed}
        left = [name for name in left if name not in known]
        # The last one that was put off is shown again.
        if not left and state.current not in known:
            left = [state.current]
        if not left:
            message = f"{message}; all objects that were read are confirmed".lstrip("; ")
        self._step(replace(state, current=left[0] if left else state.current), message)
        self.moved()

    def _step(self, state: State, message: str) -> None:
        self._write(state.annotations)
        self._before = [*self._before[-_STEPS:], self.state]
        self.state, self.message, self.revision = state, message, self.revision + 1

    def _write(self, annotations: Annotations) -> None:
        if annotations != self.state.annotations or not self.file.exists():
            write_annotations(self.file, annotations)


def with_names(annotations: Annotations, objects: Sequence[str]) -> Annotations:
    """Return the annotations with the object's name where marks name none, as they may where there is only one."""
    if len(objects) != 1:
        return annotations
    marks = tuple(mark if mark.object else replace(mark, object=objects[0]) for mark in annotations.marks)
    return replace(annotations, marks=marks)


def _same(mark: Mark, thing: str, name: str) -> bool:
    return mark.object == thing and mark.name.casefold() == name.casefold()


def check_objects(objects: Sequence[str], annotations: Annotations, file: Path) -> None:
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
