"""Files and folders that are written whole or not at all."""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from keyorbit.errors import InputError

log = logging.getLogger(__name__)


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

    Raises:
        InputError: the disk refuses.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        size = partial.stat().st_size
        partial.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    if not any(parent.suffix == ".partial" for parent in path.parents):  # `whole_folder` tells where those end
        log.info("wrote %s (%s bytes)", path, f"{size:,}")


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


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write in, which becomes ``folder`` at the end of the block, or is removed if the block fails.

    Where ``folder`` is there already, the new files are moved into it and others stay.

    Raises:
        InputError: the disk refuses.
    """
    target = folder.resolve()
    partial = target.with_name(target.name + ".partial")
    missing = [parent for parent in partial.parents if not parent.exists()]
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        names = sorted(path.name for path in partial.iterdir())
        _move(partial, target)
        log.info("wrote %s: %s", folder, ", ".join(names))
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in missing:
            with suppress(OSError):  # it holds what was written
                parent.rmdir()


def _move(source: Path, target: Path) -> None:
    if source.is_dir() and target.is_dir():
        for path in sorted(source.iterdir()):
            _move(path, target / path.name)
    else:
        source.replace(target)
