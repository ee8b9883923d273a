"""The annotators' loop without its page: which object is shown, what is marked on it, and what was confirmed."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from keyorbit.app.kept import Kept
from keyorbit.app.marked import (
    State,
    all_names,
    check_objects,
    clicks_of,
    confirmed,
    free_name,
    new_name,
    renamed,
    review_of,
    shown_points,
    with_absent,
    with_clicks,
    with_review,
)
from keyorbit.app.seen import Point, Seen, points_of
from keyorbit.errors import InputError
from keyorbit.objects.marks import Annotations, Mark, Review
from keyorbit.values import short


class Annotating(Kept):
    """One file of annotations. Several windows may look at it; every step counts from the revision that it names.

    Args:
        objects: names of all objects.
        names: of the keypoints of the tokens.
        file: where the annotations are kept; None where nothing is kept on the disk.
        annotations: what it holds.
        moved: called when the annotator turns to another object.

    Raises:
        InputError: two objects have the same name, or the file has one that is not among them.
    """

    def __init__(
        self,
        objects: Sequence[str],
        names: Sequence[str],
        file: Path | None,
        annotations: Annotations,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        check_objects(objects, annotations, file)
        super().__init__(State(annotations), file)
        self.objects, self.moved = tuple(objects), moved
        self._names = tuple(names)
        self._seen = dict[str, Seen]()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all points: of the tokens, then others that were marked or added."""
        return all_names(self._names, self.state)

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

    def take(self, seen: Seen, objects: Sequence[str]) -> None:
        """Turn to an object that was read, whatever the windows show; from now on, these are the objects.

        Steps before it cannot be undone, for they may be on objects that are not here any more.
        """
        with self._lock:
            self.objects = tuple(objects)
            self._seen[seen.name] = seen
            self._before = []
            self.state, self.message, self.revision = replace(self.state, current=seen.name), "", self.revision + 1

    def points(self, name: str) -> tuple[Point, ...]:
        """Return the points of an object; none where it has not been read."""
        with self._lock:
            seen = self._seen.get(name)
            return () if seen is None else shown_points(seen, self.names, self.state.annotations)

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
            self._place(seen, point, view, xy, self.state)

    def create(self, revision: int, view: int | None, xy: tuple[float, float]) -> None:
        """Mark a new point, as :meth:`place` does; it is called ``point 0`` and so on.

        Raises:
            InputError: as :meth:`place`.
        """
        with self._lock:
            seen = self._shown(revision)
            self._place(seen, free_name(self.names), view, xy, self.state)

    def _place(self, seen: Seen, point: str, view: int | None, xy: tuple[float, float], state: State) -> None:
        new = Mark(point, seen.name, view, xy)
        clicks = clicks_of(state.annotations, seen.name, point)
        others = [mark for mark in clicks if mark.view != view and mark.xy is not None]
        said = self._said(seen, [*others, new])
        if said is None:
            (placed,) = seen.place([new])  # whose sentence says what is wrong with it alone
            said = f"{point}: the clicks before did not fit this one and were dropped; {placed.words}"
            others = []
        annotations = with_clicks(state.annotations, seen.name, point, [*others, new])
        self._step(self._corrected(state, annotations, seen), said)

    def _said(self, seen: Seen, marks: Sequence[Mark]) -> str | None:
        """How these clicks place the point, in words; None where they are not one point."""
        try:
            (placed,) = seen.place(marks)
        except InputError:
            if len(marks) == 1:
                raise
            return None
        hint = "; its depth is a guess: look at the other views, and click or drag it there if it is wrong"
        return f"{placed.name}: {placed.words}{hint if placed.how == 'lifted' else ''}"

    def drop(self, revision: int, name: str) -> None:
        """Take back all marks of a point of the object that is shown: it is again where the model found it, if it did.

        Raises:
            InputError: as :meth:`place`.
        """
        with self._lock:
            seen, point = self._shown(revision), self._known(name)
            annotations = with_clicks(self.state.annotations, seen.name, point, ())
            found = points_of(seen, [point], (), frozenset())[0].kept
            if (review := self.reviewed.get(seen.name)) is not None:
                points = (*(mark for mark in review.points if mark.name != point), *([found] if found else []))
                annotations = with_review(annotations, replace(review, points=points))
            added = tuple(one for one in self.state.added if one != point)
            said = f"{point}: as the model found it" if found else f"{point}: removed"
            self._step(replace(self.state, annotations=annotations, added=added), said)

    def absent(self, revision: int, name: str) -> None:
        """Say that the object that is shown has no such point.

        Raises:
            InputError: as :meth:`place`.
        """
        with self._lock:
            seen, point = self._shown(revision), self._known(name)
            annotations = with_absent(self.state.annotations, seen.name, point)
            self._step(self._corrected(self.state, annotations, seen), f"{point}: not on this object")

    def add(self, revision: int, name: str) -> None:
        """Add a point of one's own, to be marked next.

        Raises:
            InputError: the page is of another state, or the name is empty, too long or there already.
        """
        with self._lock:
            self._shown(revision)
            text = new_name(name, self.names)
            self._step(replace(self.state, added=(*self.state.added, text)), f"{text}: click where it is")

    def rename(self, revision: int, name: str, new: str) -> None:
        """Give a point of one's own another name, on all objects.

        Raises:
            InputError: as :meth:`add`, there is no such point, or the tokens have it.
        """
        with self._lock:
            self._shown(revision)
            point = self._known(name)
            if point in self._names:
                raise InputError(f"{short(point)} is a keypoint of the tokens, whose names 'keyorbit name' gives")
            text = new_name(new, [one for one in self.names if one != point])
            self._step(renamed(self.state, point, text), f"{text} was {point} before" if text != point else "")

    def clear(self, revision: int) -> None:
        """Remove all points of one's own from all objects.

        Raises:
            InputError: the page is of another state, or the disk refuses.
        """
        with self._lock:
            self._shown(revision)
            self._step(State(Annotations(), self.state.current), "all points are removed; Undo brings them back")

    def accept(self, revision: int) -> None:
        """Confirm the object that is shown with all its points, and turn to the next.

        Raises:
            InputError: the page is of another state, or the disk refuses.
        """
        with self._lock:
            seen = self._shown(revision)
            annotations = confirmed(seen, self.names, self.state.annotations)
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

    def _shown(self, revision: int) -> Seen:
        """The object that is shown."""
        self._check(revision)
        seen = self._seen.get(self.state.current)
        if seen is None:
            raise InputError("no object has been read yet: wait a moment")
        return seen

    def _known(self, name: str) -> str:
        for known in self.names:
            if known.casefold() == name.casefold():
                return known
        raise InputError(f"there is no point {short(name)}")

    def _corrected(self, state: State, annotations: Annotations, seen: Seen) -> State:
        """The state with these annotations; a confirmed object has its points as they are after a correction."""
        if review_of(annotations, seen.name) is not None:
            annotations = confirmed(seen, self.names, annotations)
        return replace(state, annotations=annotations)

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
