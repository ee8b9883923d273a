"""The losses of a discovery as JSON lines, one for each step, written while it runs."""

import json
from pathlib import Path

from keyorbit.errors import InputError
from keyorbit.storage.files import make_folder, write_text

FILE = "losses.jsonl"


class LossLog:
    """Appends to ``RUN/losses.jsonl``. A run that resumes from a checkpoint replaces the steps that it repeats."""

    def __init__(self, run: Path) -> None:
        self.path = run / FILE
        self.begun = False

    def add(self, step: int, values: dict[str, float]) -> None:
        """Write the terms of a step.

        Raises:
            InputError: the file cannot be written.
        """
        entry = json.dumps({"step": step, **values}) + "\n"
        if not self.begun:
            self.begun = True
            make_folder(self.path.parent)
            kept = [line for line in _lines(self.path) if json.loads(line)["step"] < step]
            write_text(self.path, "".join(f"{line}\n" for line in kept) + entry)
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(entry)
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error}") from error


def read_losses(run: Path) -> list[dict[str, float]]:
    """Read the log of a run, oldest step first; empty if there is none. ``losses.json`` of old versions is read too.

    Raises:
        InputError: the file is damaged.
    """
    try:
        if (run / FILE).is_file():
            history = [json.loads(line) for line in _lines(run / FILE)]
        elif (run / "losses.json").is_file():
            history = json.loads((run / "losses.json").read_text(encoding="utf-8"))
        else:
            return []
        return [{str(name): float(value) for name, value in entry.items()} for entry in history]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"the losses in {run} cannot be read: {error}") from error


def _lines(path: Path) -> list[str]:
    """Return the complete lines: a run that was killed may have left half of one."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()
