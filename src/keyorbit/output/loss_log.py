"""Read the losses of a discovery, JSON lines, one for each step."""

import json
from pathlib import Path

from keyorbit.discovery.choices import LOSSES
from keyorbit.errors import InputError


def read_losses(run: Path) -> list[dict[str, float]]:
    """Read the log of a run, oldest step first; empty if there is none. ``losses.json`` of old versions is read too.

    Raises:
        InputError: the file is damaged.
    """
    try:
        if (run / LOSSES).is_file():
            history = [json.loads(line) for line in _lines(run / LOSSES)]
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
