"""Files that are written whole or not at all."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from keyorbit.errors import InputError

log = logging.getLogger(__name__)

# Of a name's characters, so many go into that of its unfinished file: file systems allow 255 bytes.
_LONGEST = 48


def write_json(path: Path, data: Any) -> None:
    """Write JSON.

    Raises:
        InputError: the data holds a number that is not finite, or the disk refuses.
    """
    try:
        text = json.dumps(data, indent=1, allow_nan=False) + "\n"
    except ValueError as error:
        raise InputError(f"{path} would hold numbers that are not finite") from error
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        InputError: the disk refuses.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file of these parts, whole or not at all: beside its place, then moved in.

    Raises:
        InputError: the disk refuses.
    """
    with whole_file(path) as partial, partial.open("wb") as file:
        file.writelines(parts)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write a file to, which becomes ``path`` at the end of the block; if it fails all is as it was.

    A link stays a link: the file that it points to is replaced. What is no file, such as ``/dev/null``, is written to.

    Raises:
        InputError: the disk refuses.
    """
    try:
        special = path.exists() and not path.is_file()
        target = Path(tempfile.mkdtemp()) / path.name if special else path.resolve()
    except (OSError, RuntimeError) as error:  # the latter where links lead round in a circle
        raise InputError(f"cannot write {path}: {error}") from error
    partial = beside(target)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
            size = partial.stat().st_size
            if special:
                with path.open("wb") as device:
                    shutil.copyfileobj(file, device)
        if not special:
            partial.replace(target)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if special:
            shutil.rmtree(target.parent, ignore_errors=True)
    # `replaced_folder` tells where those in its folder end; markers are nobody's news.
    if not path.name.startswith(".") and not any(parent.suffix == ".partial" for parent in path.parents):
        log.info("wrote %s (%s bytes)", path, f"{size:,}")


def beside(path: Path) -> Path:
    """Where a file or folder is written before it is put in its place: a hidden name beside it, which says whose it is.

    It is always the same name, so that what a killed process left is found, and written over, by the next one.
    """
    name = path.name
    if len(name) > _LONGEST:  # others may begin alike
        name = f"{name[: _LONGEST - 9]}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"
    return path.with_name(f".{name}.keyorbit.partial")


def make_folder(folder: Path) -> Path:
    """The folder, made if it is not there.

    Raises:
        InputError: the disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error}") from error
    return folder
