"""Where the model of tokens or of a cache is: files name its folder as seen from their own, so both can be moved."""

import os
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

from keyorbit.diffusion.paths import exists
from keyorbit.errors import InputError


def seen_from(file: Path, model: str) -> str:
    """How a file that is to be written names its model, if that is a folder; empty for the shipped one and a Hub id.

    Relative to the file's own folder, with ``/`` between names; absolute where the two have no folder in common but
    the whole disk.
    """
    if model in ("", "tiny") or "\0" in model or not (exists(Path(model)) or _is_path(model)):
        return ""
    place, own = _place(Path(model)), Path(os.path.realpath(file.parent))
    try:
        together = Path(os.path.commonpath([place, own]))
    except ValueError:  # two drives
        return place.as_posix()
    near = together != Path(together.anchor)
    return Path(os.path.relpath(place, own)).as_posix() if near else place.as_posix()


def found_from(file: Path, model: str, recorded: str, mark: str) -> str:
    """Where a model is now, of which a file tells.

    Looked for are the place as seen from the file's folder, then the model's name from the working directory, then a
    folder of that name beside the file; where there are several, the first whose fingerprint is the model's.

    Args:
        file: that tells.
        model: name, as it was given when the file was written.
        recorded: what :func:`seen_from` gave; empty in files of earlier versions, and where the model is no folder.
        mark: fingerprint of the model.

    Returns:
        A path, or the name itself where it is that of the same folder, the shipped model's or a Hub id. Where nothing
        is there, it is an absolute path, which is never taken for a Hub id.
    """
    if model in ("", "tiny") or "\0" in model + recorded:  # no file has such a name
        return model
    places: dict[str, Path] = {}
    for path in _candidates(file, model, recorded):
        places.setdefault(os.path.realpath(path), path)
    there = [path for path in places.values() if exists(path)]
    if not there:
        own = Path(os.path.realpath(file.parent))
        return os.path.normpath(own / recorded) if recorded else model
    found = there[0] if len(there) == 1 else next((path for path in there if _has_weights(path, mark)), there[0])
    return model if _same(found, Path(model)) else str(found)


def check_there(model: str, mark: str) -> None:
    """Whether the model that tokens name is where they say, if that is a path.

    Raises:
        InputError: nothing is there.
    """
    if (_is_path(model) or _of_windows(model)) and not exists(Path(model)):
        told = f" (fingerprint {mark})" if mark else ""
        raise InputError(
            f"the model of these tokens{told} is not at {model}: give the folder where it is now, --model FOLDER"
        )


def _candidates(file: Path, model: str, recorded: str) -> Iterator[Path]:
    own = Path(os.path.realpath(file.parent))
    if recorded:
        yield Path(os.path.normpath(own / recorded))
    elif not os.path.isabs(model):
        yield own / model
    yield Path(model)
    if recorded or os.path.isabs(model):
        yield own / Path(model).name
    if _of_windows(model):
        yield own / PureWindowsPath(model).name


def _has_weights(path: Path, mark: str) -> bool:
    # Not above: it loads libraries, and is rarely needed.
    from keyorbit.diffusion.backends.fingerprint import fingerprint, older_fingerprint

    try:
        return mark in (fingerprint(path), older_fingerprint(path))
    except InputError:
        return False


def _is_path(model: str) -> bool:
    return os.path.isabs(model) or model.startswith(".")


def _of_windows(model: str) -> bool:
    """Whether it is a path as Windows writes them, which no Hub id looks like."""
    return "\\" in model or bool(PureWindowsPath(model).drive)


def _place(model: Path) -> Path:
    """The absolute path; links in it are followed, but not the last name: a model may be a link to where it is kept."""
    path = Path(os.path.abspath(model))
    return Path(os.path.realpath(path.parent)) / path.name


def _same(first: Path, second: Path) -> bool:
    return os.path.realpath(first) == os.path.realpath(second)
