"""Read the losses of a discovery, JSON lines, one for each step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyorbit.discovery.choices import LOSSES
from keyorbit.errors import InputError
from keyorbit.storage.content import json_in, json_of, text_of
from keyorbit.values import Finite, check_value, from_values


def read_losses(run: Path) -> list[dict[str, float]]:
    """Read the log of a run, oldest step first; empty if there is none. ``losses.json`` of old versions is read too.

    Raises:
        InputError: the file is damaged.
    """
    if (run / LOSSES).exists():
        entries = _entries(run / LOSSES)
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


def _entries(path: Path) -> list[dict[str, float]]:
    """Return what the complete lines hold: a run that was killed may have left half of one."""
    text = text_of(path)
    lines = text[: text.rfind("\n") + 1].splitlines()
    named = [(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    return [_entry(json_in(line, where), where) for line, where in named]
