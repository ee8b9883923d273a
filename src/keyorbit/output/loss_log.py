"""The losses of a discovery as JSON lines, one for each step, written while it runs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyorbit.errors import InputError
from keyorbit.storage.content import json_in, json_of, text_of
from keyorbit.storage.files import make_folder, write_text
from keyorbit.values import Finite, check_value, from_values

FILE = "losses.jsonl"


class LossLog:
    """Appends to ``RUN/losses.jsonl``. A run that resumes from a checkpoint replaces the steps that it repeats."""

    def __init__(self, run: Path) -> None:
        self.path = run / FILE
        self.begun = False

    def add(self, step: int, values: dict[str, float]) -> None:
        """Write the terms of a step.

        Raises:
            InputError: the file cannot be written, or holds no losses.
        """
        entry = json.dumps({"step": step, **values}) + "\n"
        if not self.begun:
            self.begun = True
            make_folder(self.path.parent)
            kept = [line for line, entry in _entries(self.path) if entry["step"] < step]
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
    if (run / FILE).exists():
        entries = [entry for _, entry in _entries(run / FILE)]
    elif (old := run / "losses.json").exists():
        values = from_values(_Old, {"losses": json_of(old)}, str(old)).losses
        entries = [_entry(value, f"{old}, item {i}") for i, value in enumerate(values)]
    else:
        return []
    for i, entry in enumerate(entries):
        if lacking := entries[0].keys() - entry.keys():
            raise InputError(f"the losses in {run} lack {', '.join(sorted(lacking))} in entry {i}, which the first has")
    return entries


@dataclass(frozen=True)
class _Old:
    losses: tuple[Any, ...]


def _entry(value: Any, where: str) -> dict[str, float]:
    check_value(where, value, dict[str, Finite])
    if "step" not in value:
        raise InputError(f"{where} lacks step; it must be a table of numbers with a step")
    return {name: float(number) for name, number in value.items()}


def _entries(path: Path) -> list[tuple[str, dict[str, float]]]:
    """Return the complete lines, with what they hold: a run that was killed may have left half of one."""
    if not path.exists():
        return []
    text = text_of(path)
    found = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), 1):
        where = f"{path}, line {number}"
        found.append((line, _entry(json_in(line, where), where)))
    return found
