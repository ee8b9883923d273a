"""A state that every step replaces, that several windows look at, and that is on the disk before a step counts."""

import threading
from pathlib import Path

from keyorbit.app.marked import State
from keyorbit.errors import InputError
from keyorbit.objects.marks import Annotations, write_annotations

# Steps that can be undone.
_STEPS = 1000


class Kept:
    """An annotator's state with its steps. Every step counts from the revision that a window names.

    Attributes:
        state: as it is now.
        file: where the annotations are kept; None where nothing is kept on the disk.
        revision: number of the state.
        message: what the last step did, in words.
    """

    def __init__(self, state: State, file: Path | None) -> None:
        self.state, self.file = state, file
        self.revision, self.message = 0, ""
        self._before = list[State]()
        self._lock = threading.RLock()

    @property
    def undoable(self) -> bool:
        """Whether there is a step to take back."""
        return bool(self._before)

    def undo(self, revision: int) -> None:
        """Take the last step back.

        Raises:
            InputError: the page is of another state, there is no step, or the disk refuses.
        """
        with self._lock:
            self._check(revision)
            if not self._before:
                raise InputError("there is nothing to undo since the app was started")
            before = self._before[-1]
            self._write(before.annotations)
            self._before.pop()
            self.state, self.message, self.revision = before, "undone", self.revision + 1

    def _check(self, revision: int) -> None:
        if revision != self.revision:
            raise InputError("something was changed in another window meanwhile: look again, the page shows it now")

    def _step(self, state: State, message: str) -> None:
        self._write(state.annotations)
        self._before = [*self._before[-_STEPS:], self.state]
        self.state, self.message, self.revision = state, message, self.revision + 1

    def _write(self, annotations: Annotations) -> None:
        if self.file is not None and (annotations != self.state.annotations or not self.file.exists()):
            write_annotations(self.file, annotations)
