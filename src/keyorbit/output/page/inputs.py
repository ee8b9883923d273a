"""Inputs of a page: a finished run and its scores. They are checked and read without torch."""

import json
from pathlib import Path
from typing import Any

from keyorbit.errors import InputError


def check_run_folder(folder: Path) -> None:
    """Raise an error unless a folder may hold a finished discovery.

    Raises:
        InputError: there is no such folder, or the run in it is not finished.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not the folder of a run; make one with 'keyorbit discover'")
    if not (folder / "tokens.safetensors").is_file() and (folder / "checkpoint.safetensors").is_file():
        raise InputError(f"the run in {folder} is not finished; go on with 'keyorbit discover … --resume'")


def read_scores(path: Path) -> dict[str, Any]:
    """Read the output of ``keyorbit evaluate --json``.

    Raises:
        InputError: it is another file.
    """
    scores = read_json(path)
    if not isinstance(scores.get("discovered"), dict) or "objects" not in scores["discovered"]:
        raise InputError(f"{path} is not what 'keyorbit evaluate --json' writes")
    return scores


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} cannot be read: it holds no JSON object")
    return found
