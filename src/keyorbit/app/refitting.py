"""The model's part of the annotators' loop, in a thread of its own: objects are read, and tokens are refitted."""

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from keyorbit.app.seen import Seen
from keyorbit.app.turns import ModelLock
from keyorbit.app.visits import Left
from keyorbit.detection.detector import KeypointDetector
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.recording import Recording
from keyorbit.diffusion.tokens import Tokens
from keyorbit.errors import InputError, memory_shortage
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.marks import Mark

if TYPE_CHECKING:
    from keyorbit.app.annotating import Annotating

log = logging.getLogger(__name__)

# Recordings that are kept; others are recorded again.
_KEPT = 16
# Objects without marks that take part in a fit.
_UNMARKED = 4

Report = Callable[[int, int], None]


class Refitting:
    """Reads objects with the tokens there are, and refits the tokens to the marks.

    Args:
        backend: the model.
        base: the run's tokens.
        objects: all objects.
        force: use tokens of other weights knowingly. Default False.

    Raises:
        InputError: the tokens and the model do not fit each other.
    """

    def __init__(self, backend: Backend, base: Tokens, objects: Sequence[ObjectViews], force: bool = False) -> None:
        self.backend, self.base, self.tokens = backend, base, base
        self.things = {thing.name: thing for thing in objects}
        self.detector = KeypointDetector(backend, base, force=force)
        self.version, self.words, self.trouble = 0, "", ""
        self._force, self._lock = force, ModelLock()
        self._wanted: tuple[Mark, ...] = ()
        self._fitted: tuple[Mark, ...] = ()
        self._recordings = dict[str, Recording]()
        self._wake, self._thread = threading.Event(), threading.Thread()

    def turn(self, work: "Annotating") -> None:
        """Say that the annotator is done with an object: its marks count from now on."""
        self._wanted = work.marks
        self._wake.set()

    def read_first(self, work: "Annotating", count: int, report: Report) -> None:
        """Read so many objects that are not confirmed, before anybody waits for one."""
        names = [name for name in work.objects if name not in work.reviewed][:count]
        self.read(work, names or work.objects[:1], report)
        work.begin()

    def read(self, work: "Annotating", names: Collection[str], report: Report) -> None:
        """Read these objects."""
        for i, name in enumerate(names, 1):
            self._read(work, name)
            report(i, len(names))

    def start(self, work: "Annotating") -> None:
        """Begin the thread, which ends with :meth:`close`; from then on, marks of an object that was left count."""
        work.moved = lambda: self.turn(work)
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()
        self.turn(work)

    def close(self, patience: float = 10.0) -> None:
        """End the work; wait for what is in the model for at most that many seconds."""
        self._lock.close(patience)
        self._wake.set()

    def _run(self, work: "Annotating") -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            try:
                self._catch_up(work)
            except Left:
                return
            except Exception as error:
                self.words, self.trouble = "", _told(error)
                log.warning("%s", self.trouble, exc_info=not isinstance(error, InputError))

    def _catch_up(self, work: "Annotating") -> None:
        """Refit to the newest marks, then read what was read with older tokens; newer marks go first."""
        while True:
            if self._wanted != self._fitted:
                self._refit()
                continue
            stale = self._stale(work)
            if not stale:
                self.words = ""
                return
            self.words = f"reading objects, {len(stale)} left"
            self._read(work, stale[0])

    def _stale(self, work: "Annotating") -> list[str]:
        """Objects to read: those without any reading first, confirmed ones last."""
        left = []
        for name in work.objects:
            seen, done = work.seen(name), name in work.reviewed
            if seen is None or (seen.version < self.version and not done and name != work.state.current):
                left.append((done, seen is not None, name))
        return [name for _, _, name in sorted(left, key=lambda one: one[:2])]

    def _refit(self) -> None:
        marks = self._wanted
        self.words = "refitting the tokens"
        try:
            tokens = self._fit(marks) if marks else self.base
        finally:  # what failed once is not tried again before there are other marks
            self._fitted = marks
        self.detector = KeypointDetector(self.backend, tokens, force=self._force)
        self.tokens, self.version, self.trouble = tokens, self.version + 1, ""

    def _fit(self, marks: tuple[Mark, ...]) -> Tokens:
        from keyorbit.detection.marking import fit_marks

        marked = list(dict.fromkeys(mark.object for mark in marks))
        others = [name for name in self._recordings if name not in marked][:_UNMARKED]
        recordings = [self._recorded(name) for name in (*marked, *others)]
        with self._lock.held():
            return fit_marks(
                self.backend, recordings, marks, base=self.base, keep=True, report=lambda *_: self._lock.give_way()
            ).tokens

    def _read(self, work: "Annotating", name: str) -> None:
        recording = self._recorded(name)
        with self._lock.held():
            found = self.detector.read(recording)
        work.put(Seen.of(found, self.version, generated=self.things[name].views is None))

    def _recorded(self, name: str) -> Recording:
        """The object's recording; the model's work on it is the same for all tokens."""
        if name not in self._recordings:
            with self._lock.held():
                made = self.detector.record(self.things[name])
            while len(self._recordings) >= _KEPT:
                self._recordings.pop(next(iter(self._recordings)))
            self._recordings[name] = made
        return self._recordings[name]


def _told(error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    if (where := memory_shortage(error)) is not None:
        return f"there is not enough of {where} to refit the tokens"
    return f"the tokens could not be refitted ({type(error).__name__}); the terminal says more"
