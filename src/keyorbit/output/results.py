"""The results of any number of objects in one folder: several processes write it, and what is stopped goes on.

Each process appends a JSON line per finished object to a file of its own. In the end they become ``results.jsonl``, in
the order of the objects, and ``left_out.jsonl``, of the objects of which nothing was found.
"""

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import islice, zip_longest
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec
from msgspec import Meta

from keyorbit.errors import InputError
from keyorbit.output.choices import DETECTION
from keyorbit.storage.files import whole_file
from keyorbit.storage.going_on import check_goes_on, go_on_with
from keyorbit.storage.outputs import MARKER, PARTS, OutputKind, close_output

RESULTS, LEFT_OUT = "results.jsonl", "left_out.jsonl"
_PART = "results.part-*.jsonl"
SEVERAL = OutputKind(DETECTION.name, (RESULTS, LEFT_OUT, _PART, PARTS))
# The folder of one of the objects.
ONE = SEVERAL.one_of_several


@dataclass(frozen=True)
class _Line:
    """What tells whether an object is finished.

    Attributes:
        number: of the object.
        problem: why nothing was found on it; None where something was.
    """

    number: Annotated[int, Meta(ge=0, le=2**62)]
    problem: str | None = None


@dataclass(frozen=True)
class Finished:
    """How many objects are in a folder of results.

    Attributes:
        found: with keypoints.
        left_out: without.
    """

    found: int
    left_out: int


def check_several(folder: Path, overwrite: bool = False) -> None:
    """Raise an error unless a folder can take results, or has some that may go on; nothing is changed.

    Raises:
        InputError: as :func:`keyorbit.storage.outputs.check_output`.
    """
    check_goes_on(folder, SEVERAL, overwrite)


def begin_results(folder: Path, settings: Mapping[str, Any], overwrite: bool = False) -> None:
    """Begin a folder of results, or go on with what was stopped there.

    Args:
        folder: the folder.
        settings: all that the results depend on, as JSON keeps it.
        overwrite: begin anew. Default False.

    Raises:
        InputError: there are results of other settings, or as :func:`keyorbit.storage.outputs.check_output`.
    """
    go_on_with(folder, SEVERAL, settings, overwrite)
    parts = sorted(folder.glob(_PART))
    if parts:
        _merge(folder, parts)
    _remove([*parts, folder / LEFT_OUT])


def finished(folder: Path) -> bytearray:
    """Return a byte for each object up to the last one in ``results.jsonl``: 1 where it is there."""
    done = bytearray()
    for line, _, _ in _lines(folder / RESULTS):
        if line.number >= len(done):
            done.extend(bytes(line.number + 1 - len(done)))
        done[line.number] = 1
    return done


def first_result(folder: Path) -> Mapping[str, Any] | None:
    """Return the first object in ``results.jsonl``; None where there is none."""
    first = next(_lines(folder / RESULTS), None)
    return None if first is None else dict(json.loads(first[2]))


class Part:
    """What one process writes: see :func:`open_part`."""

    def __init__(self, file: BinaryIO | BytesIO, path: Path) -> None:
        self._file, self._path = file, path

    def add(self, number: int, values: Mapping[str, Any]) -> None:
        """Write the line of an object that is finished; with a ``problem`` it is one that was left out.

        Raises:
            InputError: a number is not finite, or the disk refuses.
        """
        try:
            line = json.dumps({"number": number, **values}, allow_nan=False)
        except ValueError as error:
            raise InputError(f"{self._path} would hold numbers that are not finite") from error
        self.append(f"{line}\n".encode())

    def append(self, lines: bytes) -> None:
        """Write whole lines of objects that are finished, which another process made.

        Raises:
            InputError: the disk refuses.
        """
        try:
            self._file.write(lines)
            self._file.flush()
        except OSError as error:
            raise InputError(f"cannot write {self._path}: {error}") from error


def part_path(folder: Path, index: int = 0) -> Path:
    """Return the file to which process ``index`` appends its lines."""
    return folder / _PART.replace("*", f"{index:05d}")


@contextmanager
def open_part(folder: Path, index: int = 0) -> Iterator[Part]:
    """Open the file to which process ``index`` appends its lines.

    Raises:
        InputError: it cannot be written.
    """
    path = part_path(folder, index)
    try:
        file = path.open("wb")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}") from error
    with file:
        yield Part(file, path)


def finish_results(folder: Path) -> Finished:
    """Make one file of what all processes wrote.

    Raises:
        InputError: a file cannot be written.
    """
    parts = sorted(folder.glob(_PART))
    done = _merge(folder, parts)
    _remove(parts)
    close_output(folder, SEVERAL)
    return done


def is_empty(folder: Path) -> bool:
    """Return whether no process has written a line."""
    files = [path for path in (folder / RESULTS, *folder.glob(_PART)) if path.exists()]
    return not any(path.stat().st_size for path in files)


def forget_results(folder: Path, remove: bool = False) -> None:
    """Remove the files of results in which nothing was found, and with ``remove`` the folder that holds nothing else.

    Raises:
        InputError: the disk refuses.
    """
    try:
        _remove([folder / LEFT_OUT, *folder.glob(_PART), folder / RESULTS, folder / MARKER])
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error}") from error
    if remove:
        with suppress(OSError):  # somebody else's are in it
            folder.rmdir()


def problems(folder: Path, count: int) -> list[str]:
    """Return why the first ``count`` of the objects that were left out were."""
    return [line.problem or "" for line, _, _ in islice(_lines(folder / LEFT_OUT), count)]


def _merge(folder: Path, parts: Sequence[Path]) -> Finished:
    """Write both files of the parts and of what was there. Of an object that is in several, the last result counts."""
    paths = [folder / RESULTS, *parts]
    # Where each line is, 25 bytes each: of a million objects the lines themselves are gigabytes.
    numbers, files, starts, good = array("q"), array("q"), array("q"), bytearray()
    for file, path in enumerate(paths):
        for line, start, _ in _lines(path):
            numbers.append(line.number)
            files.append(file)
            starts.append(start)
            good.append(line.problem is None)
    order = sorted(range(len(numbers)), key=lambda i: (numbers[i], good[i]))
    last = [i for i, after in zip_longest(order, order[1:]) if after is None or numbers[i] != numbers[after]]
    kept = {RESULTS: [i for i in last if good[i]], LEFT_OUT: [i for i in last if not good[i]]}
    if parts:
        with ExitStack() as stack:
            opened = [stack.enter_context(path.open("rb")) if path.is_file() else BytesIO() for path in paths]
            for name, chosen in kept.items():
                if chosen or name == RESULTS:
                    partial = stack.enter_context(whole_file(folder / name))
                    with partial.open("wb") as out:
                        for i in chosen:
                            opened[files[i]].seek(starts[i])
                            out.write(opened[files[i]].readline())
    return Finished(len(kept[RESULTS]), len(kept[LEFT_OUT]))


def _lines(path: Path) -> Iterator[tuple[_Line, int, bytes]]:
    """Yield each whole line: what it tells, where it begins, and itself. An object of a damaged one is done again."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        start = 0
        for raw in file:
            if raw.endswith(b"\n"):
                with suppress(msgspec.DecodeError):
                    yield msgspec.json.decode(raw, type=_Line), start, raw
            start += len(raw)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
