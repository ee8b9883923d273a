"""Files that are written completely or not at all."""

import json
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from keyorbit.errors import InputError
from keyorbit.storage.folder_names import beside

log = logging.getLogger(__name__)


def write_json(path: Path, data: Any) -> None:
    """Write JSON.

    Raises:
        InputError: the data holds a number that is not finite, or the file cannot be written.
    """
    write_text(path, json_text(data, str(path)))


def json_text(data: Any, where: str) -> str:
    """JSON as all files of ours have it; ``where`` it goes is for the error.

    Raises:
        InputError: the data holds a number that is not finite.
    """
    try:
        return json.dumps(data, indent=1, allow_nan=False) + "\n"
    except ValueError as error:
        raise InputError(f"{where} would hold numbers that are not finite") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, all of it or nothing.

    Raises:
        InputError: the file cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file from these parts, all of it or nothing: under a temporary name in the same folder, then renamed.

    Raises:
        InputError: the file cannot be written.
    """
    with whole_file(path) as partial, partial.open("wb") as file:
        file.writelines(parts)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path, which is renamed to ``path`` at the end of the block. If it fails, nothing changes.

    A link stays a link: the file that it points to is replaced. A path that is not a file, such as ``/dev/null``, is
    written to.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        special = path.exists() and not path.is_file()
        target = Path(tempfile.mkdtemp()) / path.name if special else path.resolve()
    except (OSError, RuntimeError) as error:  # the latter where links lead round in a circle
        raise InputError(f"cannot write {path}: {error}") from error
    partial = beside(target)
    try:
        partial.unlink(missing_ok=True)
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        as_new(partial, mode)
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
    # `replaced_folder` logs the final path of the files in its folder; markers are not logged.
    if not path.name.startswith(".") and not any(parent.suffix == ".partial" for parent in path.parents):
        log.info("wrote %s (%s bytes)", path, f"{size:,}")


def as_new(path: Path, mode: int) -> None:
    """Let those read a file who may read new files here, of which one has ``mode``: safetensors writes for its owner.

    Files that are linked from elsewhere are left alone.
    """
    facts = path.lstat()
    if stat.S_ISREG(facts.st_mode) and not stat.S_IMODE(facts.st_mode) & 0o077 and facts.st_nlink == 1:
        path.chmod(stat.S_IMODE(mode))


def make_folder(folder: Path) -> Path:
    """Make the folder if it is not there, and return it.

    Raises:
        InputError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error}") from error
    return folder


@contextmanager
def folder_for(folder: Path) -> Iterator[None]:
    """Make the folder if it is not there; one that was not, and in which nothing was written, is removed again.

    Raises:
        InputError: the folder cannot be made.
    """
    new = not folder.exists()
    make_folder(folder)
    try:
        yield
    finally:
        if new:
            with suppress(OSError):  # something is in it
                folder.rmdir()
