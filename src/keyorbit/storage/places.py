"""Files wherever they lie: on the disk, or at an address such as ``s3://bucket/x.tar`` that fsspec reaches."""

import io
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

from keyorbit.errors import InputError, first_line
from keyorbit.storage.addresses import address_of, is_remote, shown, without_secrets
from keyorbit.storage.files import make_folder, whole_file

INSTALL = "pip install 'keyorbit[data]'"
# What fsspec reaches a place with, where that is no part of the extra.
_NEEDS = {
    **dict.fromkeys(("s3", "s3a"), "pip install s3fs"),
    **dict.fromkeys(("gs", "gcs"), "pip install gcsfs"),
    **dict.fromkeys(("az", "abfs", "adl"), "pip install adlfs"),
    **dict.fromkeys(("sftp", "ssh"), "pip install paramiko"),
}
_NUMBERS = re.compile(r"(\d+)\.\.(\d+)")
_BRACES = re.compile(r"\{([^{}]*)\}")
PATTERN = "*?["
# What one brace may stand for, and what all of a name: more would be a mistake.
_MOST = 1_000_000
# Bytes that are read ahead where a remote file is read from its beginning to its end.
_AHEAD = 2**20


def without_braces(path: Path) -> list[Path]:
    """What ``x-{000..012}.tar`` and ``{a,b}.tar`` stand for, in order; a path without braces is itself.

    Raises:
        InputError: they stand for more than a million files.
    """
    pieces = _BRACES.split(path.as_posix() if is_remote(path) else str(path))
    # A brace with neither dots nor a comma is a part of the name.
    choices = [[piece] if i % 2 == 0 else _choices(piece) for i, piece in enumerate(pieces)]
    count = 1
    for some in choices:
        count *= len(some)
    if count > _MOST:
        raise InputError(f"{path} stands for {count:,} files; a pattern stands for {_MOST:,} at most")
    return [Path("".join(parts)) for parts in product(*choices)]


def _choices(inside: str) -> list[str]:
    if found := _NUMBERS.fullmatch(inside):
        first, last = int(found[1][:18]), int(found[2][:18])
        if abs(last - first) >= _MOST:
            raise InputError(f"{{{inside}}} stands for more than {_MOST:,} files")
        step = 1 if last >= first else -1
        return [f"{number:0{len(found[1])}d}" for number in range(first, last + step, step)]
    return inside.split(",") if "," in inside else [f"{{{inside}}}"]


@contextmanager
def reaching(path: Path) -> Iterator[None]:
    """Where a place is reached: what its library raises, which is of any kind, becomes one sentence.

    Raises:
        InputError: a library is missing, there is no such file, access is refused, or the network is gone.
    """
    where, scheme = shown(path), address_of(path).partition(":")[0]
    try:
        yield
    except (InputError, MemoryError):
        raise
    except ImportError as error:
        raise InputError(
            f"{where} cannot be reached without a library: {_NEEDS.get(scheme, INSTALL)} ({first_line(error)})"
        ) from error
    except FileNotFoundError as error:
        web = ", or you may not read it" if scheme.startswith("http") else ""
        raise InputError(f"there is no file or folder at {where}{web}") from error
    except PermissionError as error:
        raise InputError(f"access to {where} is refused: check its name and your credentials") from error
    except Exception as error:
        said = without_secrets(first_line(error))[:300]
        if not is_remote(path):
            raise InputError(f"{where} cannot be read: {getattr(error, 'strerror', None) or said}") from error
        raise InputError(
            f"{where} cannot be reached: {type(error).__name__}: {said}; check its name, the network and your "
            "credentials"
        ) from error


def file_system(path: Path) -> tuple[Any, str]:
    """fsspec's file system of an address, and the place in it. To be called within :func:`reaching`."""
    from fsspec.core import url_to_fs

    system, inside = url_to_fs(address_of(path))
    return system, str(inside)


def is_there(path: Path) -> bool:
    """Whether there is a file at a place. Raises InputError as :func:`reaching`."""
    with reaching(path):
        if not is_remote(path):
            return path.is_file()
        system, inside = file_system(path)
        return bool(system.isfile(inside))


def read_range(path: Path, start: int = 0, end: int | None = None) -> bytes:
    """The bytes of a file from ``start`` to ``end``, or as many of them as there are. Default: all.

    Raises:
        InputError: as :func:`reaching`.
    """
    with reaching(path):
        if is_remote(path):
            system, inside = file_system(path)
            data: bytes = system.cat_file(inside, start=start or None, end=end)
            if end is not None and len(data) > end - start:
                raise InputError(f"the server of {shown(path)} gives no parts of files, only whole ones: download it")
            return data
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(start)
            return file.read(max(0, min(size, size if end is None else end) - start))


def read_if_there(paths: Sequence[Path]) -> list[bytes | None]:
    """The bytes of small files, of which none is needed; None for those that cannot be read. Remote ones at once.

    Why one cannot is not asked: where a bucket may not be listed, access to what is not there is refused. If the
    network is gone, whatever is read next tells it.
    """
    found: list[bytes | None] = [None] * len(paths)
    away = [i for i, path in enumerate(paths) if is_remote(path)]
    for i, path in enumerate(paths):
        if not is_remote(path) and path.is_file():
            found[i] = read_range(path)
    if away:
        with suppress(Exception):  # of any kind; and of one file, raised whatever is asked for
            inside = {file_system(paths[i])[1]: i for i in away}
            data = file_system(paths[away[0]])[0].cat(list(inside), on_error="return")
            for place, value in data.items() if isinstance(data, dict) else [(next(iter(inside)), data)]:
                found[inside[place]] = value if isinstance(value, bytes) else None
    return found


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file for reading here and there in it. Raises InputError as :func:`reaching`."""
    with reaching(path):
        if not is_remote(path):
            with path.open("rb") as file:
                yield file
            return
        system, inside = file_system(path)
        with system.open(inside, "rb", block_size=_AHEAD, cache_type="readahead") as file:
            yield file


def matching(path: Path) -> list[Path]:
    """What a remote pattern matches, by name. A hidden file is none.

    Raises:
        InputError: nothing does, or as :func:`reaching`.
    """
    with reaching(path):
        system, inside = file_system(path)
        found = [_back(path, place) for place in sorted(system.glob(inside))]
    named = [one for one in found if not one.name.startswith(".")]
    if not named:
        raise InputError(f"nothing matches {shown(path)}")
    return named


def files_in(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files directly in a folder whose names match one of the patterns, by name; hidden ones are left out.

    Raises:
        InputError: as :func:`reaching`; a remote place that is not there has none.
    """
    with reaching(folder):
        if is_remote(folder):
            system, inside = file_system(folder)
            try:
                found = system.ls(inside, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
            paths = [_back(folder, str(one["name"])) for one in found if one["type"] == "file"]
        else:
            paths = [path for path in folder.iterdir() if path.is_file()]
    named = [path for path in paths if not path.name.startswith(".")]
    return sorted(path for path in named if any(fnmatchcase(path.name.lower(), pattern) for pattern in patterns))


def _back(path: Path, place: str) -> Path:
    """The address of a place that a file system names: without its scheme, or, on the web, with it."""
    scheme = address_of(path).partition(":")[0]
    return Path(place if is_remote(Path(place)) else f"{scheme}:/{place.lstrip('/')}")


def write_file(path: Path, written: Path) -> None:
    """Put a finished file at an address, all of it or nothing, as its system does it. The file stays.

    Raises:
        InputError: as :func:`reaching`.
    """
    with reaching(path):
        system, inside = file_system(path)
        parent = inside.rpartition("/")[0]
        if parent:
            system.makedirs(parent, exist_ok=True)
        system.put_file(str(written), inside)


def removed(path: Path) -> None:
    """Remove a file, if it is there. Raises InputError as :func:`reaching`."""
    with reaching(path):
        if not is_remote(path):
            path.unlink(missing_ok=True)
            return
        system, inside = file_system(path)
        if system.isfile(inside):
            system.rm_file(inside)


@contextmanager
def whole_anywhere(path: Path) -> Iterator[Path]:
    """Yield a temporary path, whose file is at the place at the end of the block. If that fails, nothing changes.

    Raises:
        InputError: it cannot be written.
    """
    if not is_remote(path):
        make_folder(path.parent)
        with whole_file(path) as partial:
            yield partial
        return
    folder = Path(tempfile.mkdtemp(prefix="keyorbit-"))
    try:
        yield folder / "partial"
        write_file(path, folder / "partial")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
