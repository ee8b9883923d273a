"""What a run writes beside its checkpoints, in step with them: a log of JSON lines, and whatever else a step gives."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from keyorbit.errors import InputError
from keyorbit.storage.files import write_text

log = logging.getLogger(__name__)

Action = Callable[[], None]


def _nothing() -> None:
    """Begins nothing."""


class Journal:
    """A run's log, and other files of single steps, each of which belongs to the first checkpoint after it.

    Nothing is written before the first checkpoint is due: a run that fails until then leaves its folder as it was. From
    then on a line is written at once. A run that is resumed repeats the steps after its checkpoint, so their lines are
    removed; what else they wrote is written over.

    Args:
        path: the log.
        step: of the checkpoint that the run resumes from. Default 0: none.
        begin: called once, before the first file is written.
        stages: names of which one is a line's ``stage``; others' lines stay. Default: lines that name no stage.
        again: how to go on from a checkpoint, for error messages.
        active: whether anything is written; of several processes only the first writes. Default True.

    Raises:
        InputError: the run is resumed, and its log is damaged.
    """

    def __init__(
        self,
        path: Path,
        step: int = 0,
        begin: Action = _nothing,
        stages: Sequence[str | None] = (None,),
        again: str = "--resume goes on from it, --overwrite begins anew",
        active: bool = True,
    ) -> None:
        self.path, self.step, self.active, self.begun = path, step, active, False
        self._begin, self._stages, self._again, self._held = begin, stages, again, list[Action]()
        if step and active:
            self._covered()  # damage is told before there is any work

    @property
    def kept(self) -> str:
        """What there is of the run, as the end of a sentence that says why it failed."""
        if not self.step:
            return f"no checkpoint was written yet, and what was in {self.path.parent} before was not changed"
        return f"the checkpoint of step {self.step} was kept: {self._again}"

    def add(self, values: Mapping[str, Any]) -> None:
        """Write a line, now or with the first checkpoint.

        Raises:
            InputError: the disk refuses.
        """
        self.do(partial(append_line, self.path, values))

    def do(self, action: Action) -> None:
        """Call what writes a file of this step, now or with the first checkpoint."""
        if self.active and self.begun:
            action()
        elif self.active:
            self._held.append(action)

    def begin(self) -> None:
        """Write what was held; to be called before every checkpoint is written.

        Raises:
            InputError: the disk refuses, or the log is damaged.
        """
        if self.begun or not self.active:
            return
        self._begin()
        if (whole := self._covered()) is not None:
            write_text(self.path, whole)
        self.begun, held, self._held = True, self._held, []
        for action in held:
            action()

    def _covered(self) -> str | None:
        """The log without lines of steps after the checkpoint and without half a line; None if that is all of it."""
        if not self.path.is_file():
            return None
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self.path} cannot be read ({error}): repair it, or move it away") from error
        lines = text.splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):  # of a process that was killed while it wrote
            lines.pop()
        kept = "".join(line for number, line in enumerate(lines, 1) if self._is_covered(line, number))
        return None if kept == text else kept

    def _is_covered(self, line: str, number: int) -> bool:
        try:
            values = json.loads(line)
            return values.get("stage") not in self._stages or values["step"] <= self.step
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(f"{self.path}: line {number} is damaged: repair it, or move the file away") from error


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Append one JSON object as a line.

    Raises:
        InputError: the disk refuses.
    """
    new = not path.exists()
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}") from error
    if new:
        log.info("wrote %s, a line at a time from here on", path)
