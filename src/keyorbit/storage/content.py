"""What a file from outside holds, as text or as plain values: one error for everything that can be wrong with it."""

import json
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from reprlib import repr as short
from typing import Any

from keyorbit.errors import InputError

# Far above what any file of settings, cameras or descriptions needs.
LARGEST = 256 * 2**20
DEEPEST = 64
# What versions of safetensors say of a file that is not as long as its header says.
_CUT = ("file not fully covered", "InvalidOffset", "MetadataIncompleteBuffer")


def text_of(path: Path, largest: int = LARGEST) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        largest: number of bytes above which it is refused. Default 256 MiB.

    Raises:
        InputError: it is missing, no file, too large, no UTF-8, or cannot be read.
    """
    try:
        if not path.exists():
            raise InputError(f"there is no file {path}")
        if not path.is_file():
            raise InputError(f"{path} is {'a folder' if path.is_dir() else 'no regular file'}; give a file")
        if (size := path.stat().st_size) > largest:
            raise InputError(f"{path} has {size:,} bytes; such a file has at most {largest:,}")
        return path.read_text(encoding="utf-8-sig")
    except InputError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8: byte {error.start} cannot be read") from error
    except (OSError, ValueError) as error:  # the latter: a name that no file can have
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def stand_in(path: Path) -> str:
    """What a file is, where it was not really fetched, and what helps; empty for any other file."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return words_of_stand_in(file.read(64).decode(errors="replace"))


def why_no_tensors(path: Path, error: BaseException) -> str:
    """Why a file cannot be read as tensors, in words; ``error`` is what the library said."""
    said = str(error)
    if words := stand_in(path):
        return words
    if path.is_file() and not path.stat().st_size:
        return "it is empty"
    if any(words in said for words in _CUT):
        return "its length is not what its header says, as after a copy or a download that was stopped"
    return "it is no safetensors file" if "deserializing header" in said else said


def words_of_stand_in(start: str) -> str:
    """The same of what begins so."""
    start = start.lstrip("\ufeff\r\n\t ").lower()
    if start.startswith("version https://git-lfs"):
        return "it is a pointer of Git LFS, not the file itself: run 'git lfs install' and 'git lfs pull' in its clone"
    if start.startswith(("<!doctype html", "<html")):
        return "it is a web page, not the file itself: download it anew, from the page's link for downloads"
    return ""


def json_of(path: Path, infinite: bool = False) -> Any:
    """The plain values in a JSON file.

    Args:
        path: the file.
        infinite: whether numbers may be infinite or NaN, as in configurations of other programs; types refuse them
            where they are read. Default False.

    Raises:
        InputError: as :func:`text_of` and :func:`json_in`, or the file was not really fetched.
    """
    text = text_of(path)
    if words := words_of_stand_in(text[:64]):
        raise InputError(f"{path} cannot be read: {words}")
    return json_in(text, str(path), infinite)


def json_in(text: str, where: str, infinite: bool = False) -> Any:
    """The plain values in a JSON text, such as the header of a file; ``where`` names it in error messages.

    Raises:
        InputError: it is not JSON, is nested more than 64 deep, or holds a number that is not finite (unless
            ``infinite``).
    """
    return _values(json.loads, text, where, "JSON", infinite)


def toml_of(path: Path) -> dict[str, Any]:
    """The tables in a TOML file.

    Raises:
        InputError: as :func:`text_of`, or it is not TOML, is nested more than 64 deep, or holds a number that is not
            finite.
    """
    tables: dict[str, Any] = _values(tomllib.loads, text_of(path), str(path), "TOML")
    return tables


def _values(parse: Callable[[str], Any], text: str, where: str, kind: str, infinite: bool = False) -> Any:
    try:
        values = parse(text)
    except RecursionError as error:
        raise InputError(f"{where} cannot be read as {kind}: it is nested more than {DEEPEST} deep") from error
    except ValueError as error:  # also: a whole number of thousands of digits
        reason = str(error).partition("; use sys.")[0]
        raise InputError(f"{where} cannot be read as {kind}: {reason}") from error
    _check_plain(values, where, kind, infinite)
    return values


def _check_plain(values: Any, where: str, kind: str, infinite: bool) -> None:
    """Raise InputError for what no converter can take: values too deep, and numbers that are not finite."""
    left = [("", 0, values)]
    while left:
        path, depth, value = left.pop()
        if not infinite and isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{where}: {path.lstrip('.')} cannot be {value}; it must be a finite number")
        if isinstance(value, Mapping | list) and depth == DEEPEST:
            raise InputError(f"{where} cannot be read as {kind}: {short(path)} is nested more than {DEEPEST} deep")
        if isinstance(value, Mapping):
            left += [(f"{path}.{short(k)[1:-1]}", depth + 1, v) for k, v in _to_check(value.items())]
        elif isinstance(value, list):
            left += [(f"{path}[{i}]", depth + 1, item) for i, item in _to_check(enumerate(value))]


def _to_check(items: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Those in which something may be wrong: few of what is in large files. One call for each container, not value."""
    plain = (int, str, bool)
    return [
        (key, value)
        for key, value in items
        if not (math.isfinite(value) if type(value) is float else type(value) in plain)
    ]
