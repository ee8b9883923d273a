"""Output folders: new or empty ones, or replaced ones whose marker proves that all files in them are keyorbit's.

Every such folder holds the marker ``.keyorbit.json``, which names the kind of output and its files. Any other file
belongs to somebody else: a folder that holds one is refused, and nothing in it is changed. Hidden files and those of
the operating system (``.gitignore``, ``lost+found``) are ignored: they do not count and are not removed.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any

from keyorbit.errors import InputError
from keyorbit.storage.addresses import is_remote, shown
from keyorbit.storage.files import as_new, make_folder, write_text
from keyorbit.storage.folder_names import beside
from keyorbit.storage.lock import in_use

log = logging.getLogger(__name__)

MARKER = ".keyorbit.json"
FORMAT = "keyorbit-output-1"
_BEGINNING = 4096
_MANY_FILES = 50_000
_NAMED = 3
# Among the files of an output: every folder in it that has a marker of its own, of the kind for one of several.
PARTS = "*/"
_ONE = ", one of several"
_SYSTEM = ("lost+found", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information")


@dataclass(frozen=True)
class OutputKind:
    """One kind of output folder.

    Attributes:
        name: such as "detection"; markers keep it.
        files: only for runs, whose files are written over time: names below the folder, patterns such as
            ``samples_*.png``, and, with a slash at the end (``model/``), folders with a marker of their own; ``*/`` are
            all that are one of several. Empty for outputs that are written at once.
        checkpoint: the file from which such a run resumes. Empty if it cannot.
        words: for sentences, where they are others than the name.
    """

    name: str
    files: tuple[str, ...] = ()
    checkpoint: str = ""
    words: str = ""

    @property
    def told(self) -> str:
        """What sentences call it."""
        return self.words or self.name

    @property
    def one_of_several(self) -> "OutputKind":
        """The kind of a folder within such an output that is written whole, apart from the others there."""
        return OutputKind(f"{self.name}{_ONE}")


# One object of a data set; here, for it is checked before there is torch, and written where there is.
OBJECT = OutputKind("rendered object")
# The same where a model makes the views.
VIEWS = OutputKind(OBJECT.name, words="set of views")
# The same of a model without pickles.
CONVERTED = OutputKind("converted model")


@dataclass(frozen=True)
class _Marker:
    """The content of a folder's marker.

    Attributes:
        kind: name of the kind of output.
        files: size in bytes by name; None where any size is accepted.
        settings: what an output was begun with that goes on where it was stopped; None for others.
    """

    kind: str
    files: Mapping[str, int | None]
    settings: Mapping[str, Any] | None = None


def check_output(folder: Path, kind: OutputKind, overwrite: bool = False) -> None:
    """Raise an error unless ``folder`` can take an output of that kind. Nothing is changed; commands call it first.

    Raises:
        InputError: it is a file, an address or cannot be written; it holds files that keyorbit did not write, or an
            output of another kind; or it holds an output and ``overwrite`` is False.
    """
    _check_on_disk(folder, "folder")
    try:
        place = folder.resolve()  # where a link leads
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            raise InputError(f"{place} is a file; give a folder for the {kind.told}")
        if not os.access(place, os.W_OK | os.X_OK):
            raise InputError(f"{folder} cannot be written: you may not write in {place}; give another folder")
        if not folder.exists():
            return
        marker = _checked_marker(folder, kind)
        there = _walk(folder, marker.files if marker else {})
        first = next(there, None)
        others = (name for _, name, ours in chain([first] if first else [], there) if not ours)
        strangers = list(islice(others, _NAMED + 1))  # not all: it may be a whole disk
    except (OSError, RuntimeError) as error:  # the latter where links lead round in a circle
        raise InputError(f"{folder} cannot be read: {error}") from error
    if strangers:
        names = ", ".join(strangers[:_NAMED]) + (" and more" if len(strangers) > _NAMED else "")
        raise InputError(
            f"{folder} holds files that keyorbit did not mark as its own, or that were changed since ({names}); "
            f"nothing there was touched: give a new or an empty folder for the {kind.told}"
        )
    if marker is not None and first and not overwrite:
        ways = "go on with it (--resume), replace it (--overwrite)" if kind.checkpoint else "replace it (--overwrite)"
        raise InputError(f"{folder} holds a {kind.told} already: {ways}, or give another folder")


def check_file(path: Path, mark: str) -> None:
    """Raise an error unless a command may write one file: there is none yet, or one that this command wrote.

    Args:
        path: the file.
        mark: text within the first few thousand characters of every file that this command writes.

    Raises:
        InputError: it is a folder, an address, or another file.
    """
    _check_on_disk(path, "file")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file")
    if not path.is_file():
        return
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            start = file.read(_BEGINNING)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if start and mark not in start:
        raise InputError(f"{path} is not what this command writes, so it was not touched: give another name")


def _check_on_disk(path: Path, what: str) -> None:
    """Raise InputError for an address: as a path it would be a folder here that is called ``s3:``."""
    if is_remote(path):
        raise InputError(
            f"{shown(path)} is an address, and this is written on the disk: give a {what} there, and copy it when it "
            "is done"
        )


def check_run(folder: Path, kind: OutputKind, resume: bool = False, overwrite: bool = False) -> None:
    """Raise an error unless ``folder`` can take a run, or with ``resume`` holds one that can be resumed.

    A run can be resumed where a marker or its checkpoint identifies it. Other files in the folder are not changed.

    Raises:
        InputError: ``resume`` and ``overwrite`` are both given, or as :func:`check_output`. With ``resume`` the latter
            only where there are files, and neither marker nor checkpoint; or the checkpoint is missing, but not those
            before it.
    """
    if resume and overwrite:
        raise InputError("a run goes on (--resume) or is replaced (--overwrite): choose one of them")
    for name in kind.files:
        _check_regular(folder / name)
    checkpoint = folder / kind.checkpoint
    goes_on = resume and folder.is_dir() and (_checked_marker(folder, kind) or checkpoint.is_file())
    if not goes_on:
        check_output(folder, kind, overwrite)
    elif not checkpoint.exists() and (earlier := sorted(checkpoint.with_suffix("").glob(f"*{checkpoint.suffix}"))):
        raise InputError(f"{checkpoint} is missing: copy an earlier one there, such as {earlier[-1]}, or begin anew")


def _check_regular(path: Path) -> None:
    """Raise InputError where something is there that is no file: it could not be written, or would never end."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InputError(f"{path} is no regular file: move it away")
    except (OSError, RuntimeError) as error:  # also: links that lead round in a circle
        raise InputError(f"{path} cannot be used: {error}") from error


def settings_of(folder: Path, kind: OutputKind) -> Mapping[str, Any] | None:
    """What an output was begun with, as JSON keeps it; None where there is none, or none that could go on.

    Raises:
        InputError: there is an output of another kind.
    """
    marker = _checked_marker(folder, kind)
    return None if marker is None else marker.settings


def begin_output(
    folder: Path,
    kind: OutputKind,
    overwrite: bool = False,
    resume: bool = False,
    checked: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write the marker of a run whose files are written over time. ``overwrite`` removes the files of an earlier run.

    With ``resume`` nothing is removed, unless a run of this kind has no checkpoint: it begins anew then. ``checked``:
    it was checked before the work of which this is the first result; what others put there meanwhile stays.
    ``settings`` are kept for :func:`settings_of`.

    Raises:
        InputError: as :func:`check_output` (not with ``resume`` or ``checked``), or the folder cannot be written.
    """
    if not (resume or checked):
        check_output(folder, kind, overwrite)
    make_folder(folder.resolve())
    try:
        marker = _read_marker(folder)
        if marker is not None and not (resume and _goes_on(folder, kind)):
            # The checkpoint first, but after those before it: what is killed here can be resumed or repeated.
            first = {kind.checkpoint: 1}
            ours = [(path, name) for path, name, own in _walk(folder, marker.files) if own]
            earlier = f"{PurePosixPath(kind.checkpoint).stem}/"
            ours.sort(key=lambda one: 0 if one[1].startswith(earlier) else first.get(one[1], 2))
            _remove([path for path, _ in ours], folder, _folders(folder, marker))
    except OSError as error:
        raise InputError(f"cannot replace what is in {folder}: {error}") from error
    _write_marker(folder, kind, dict.fromkeys(kind.files), settings)


def close_output(folder: Path, kind: OutputKind) -> None:
    """Let the marker of an output tell of all files, in place of markers in the folders that are one of several.

    Where there are more than 50,000 files, nothing changes.

    Raises:
        InputError: the disk refuses, or there is an output of another kind.
    """
    marker = _checked_marker(folder, kind)
    if marker is None:
        return
    try:
        parts = [(path, inner.files) for path in folder.iterdir() if _is_part(path) and (inner := _read_marker(path))]
        files = {f"{path.name}/{name}": size for path, inside in parts for name, size in inside.items()}
        if parts and len(files) + len(marker.files) <= _MANY_FILES:
            _write_marker(folder, kind, {**marker.files, **files}, marker.settings)
            for path, _ in parts:
                (path / MARKER).unlink()
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error}") from error


def _goes_on(folder: Path, kind: OutputKind) -> bool:
    """Whether there is something to go on with. What has no checkpoint always goes on: it is written file by file."""
    return not kind.checkpoint or (folder / kind.checkpoint).exists()


@contextmanager
def replaced_folder(folder: Path, kind: OutputKind, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder, whose files become those of ``folder`` at the end of the block, or not at all.

    If the block fails, nothing changes. The temporary folder is in the same parent folder and is renamed. If ``folder``
    exists already, it is inside of it: the folder may be a disk of its own, such as a container's volume.

    Raises:
        InputError: as :func:`check_output`, before the block and again at its end, another process writes the folder,
            or the folder cannot be written.
    """
    check_output(folder, kind, overwrite)
    with in_use(folder):
        target = folder.resolve()  # a link stays a link
        try:
            partial = _stage(target, kind)
            try:
                yield partial
                check_output(folder, kind, overwrite)
                written = {name: path for path, name, _ in _walk(partial, {})}
                for path in written.values():
                    as_new(path, (partial / MARKER).stat().st_mode)
                files = {name: path.stat().st_size for name, path in written.items()}
                if target.is_dir():
                    _move_in(partial, target, kind, files)
                else:
                    _write_marker(partial, kind, files)
                    partial.rename(target)
                log.info("wrote %s: %s", folder, ", ".join(sorted({name.partition("/")[0] for name in files})))
            finally:
                _discard(partial)
        except OSError as error:
            raise InputError(f"cannot write {folder}: {error}") from error


def _stage(target: Path, kind: OutputKind) -> Path:
    """Make a new folder on the target's own disk, in place of one that a killed command left for this target."""
    place = target if target.is_dir() else target.parent
    place.mkdir(parents=True, exist_ok=True)
    partial = beside(place / target.name)
    if _read_marker(partial) is not None:
        _discard(partial)
    partial.mkdir(exist_ok=True)
    if next(_walk(partial, {}), None):
        raise FileExistsError(f"{partial} is in the way, with files of somebody else's")
    try:
        _write_marker(partial, kind, {})
    except InputError:
        _discard(partial)
        raise
    return partial


def _discard(partial: Path) -> None:
    """Remove an unfinished folder, its marker last: what is killed here can be repeated."""
    with suppress(OSError):
        for path in partial.iterdir():
            if path.name == MARKER:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    shutil.rmtree(partial, ignore_errors=True)


def _move_in(partial: Path, target: Path, kind: OutputKind, files: Mapping[str, int]) -> None:
    if in_the_way := [name for name in files if (target / name).is_dir()]:
        raise IsADirectoryError(f"{in_the_way[0]} is a folder there")  # before anything has moved
    before = _read_marker(target)
    both = {**(before.files if before else {}), **files}
    # Until all have moved, old and new ones are ours, whatever their size: what is killed here can be repeated.
    _write_marker(target, kind, dict.fromkeys(both))
    for name in files:
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        (partial / name).replace(place)
    old = [path for path, name, ours in _walk(target, both) if ours and name not in files]
    _remove(old, target, _folders(target, _Marker(kind.name, both)))
    _write_marker(target, kind, files)


def _walk(folder: Path, files: Mapping[str, int | None], above: str = "") -> Iterator[tuple[Path, str, bool]]:
    """Yield everything in a folder: path, name below the outermost folder, and whether it is among ``files``."""
    for path in sorted(folder.iterdir()):
        name = above + path.name
        if path.name.startswith(".") or path.name in _SYSTEM:
            continue
        if path.is_symlink() or not path.is_dir():
            yield path, name, not path.is_symlink() and _listed(name, path.stat().st_size, files)
        elif name + "/" in files or (PARTS in files and _is_part(path)):
            marker = _read_marker(path)
            inner = _walk(path, marker.files if marker else {})
            yield from ((below, f"{name}/{rest}", ours) for below, rest, ours in inner)
        else:
            yield from _walk(path, files, name + "/")


def _is_part(folder: Path) -> bool:
    marker = _read_marker(folder)
    return marker is not None and marker.kind.endswith(_ONE)


def _listed(name: str, size: int, files: Mapping[str, int | None]) -> bool:
    if name in files:
        return files[name] in (None, size)
    return any(known is None and fnmatchcase(name, pattern) for pattern, known in files.items())


def _folders(folder: Path, marker: _Marker) -> set[Path]:
    """Folders below one that hold our files, or held them before a removal was stopped."""
    found = {folder / parent for name in marker.files for parent in PurePosixPath(name.rstrip("/")).parents}
    if PARTS in marker.files:
        for path in folder.iterdir():
            if (inner := _read_marker(path)) is not None and inner.kind.endswith(_ONE):
                found |= {path, *_folders(path, inner)}
    return found - {folder}


def _remove(paths: list[Path], within: Path, folders: set[Path]) -> None:
    """Remove our own files, and of these folders and theirs those that then hold nothing, or nothing but a marker."""
    for path in paths:
        path.unlink()
    emptied = folders | {
        parent for path in paths for parent in path.parents if parent.is_relative_to(within) and parent != within
    }
    for parent in sorted(emptied, key=lambda path: len(path.parts), reverse=True):
        with suppress(OSError):  # it still holds something
            if [path.name for path in parent.iterdir()] == [MARKER]:
                (parent / MARKER).unlink()
            parent.rmdir()


def _checked_marker(folder: Path, kind: OutputKind) -> _Marker | None:
    """Return the folder's marker, or None. Raises InputError for a marker of another kind."""
    marker = _read_marker(folder)
    if marker is not None and marker.kind != kind.name:
        raise InputError(f"{folder} holds a {marker.kind}; give another folder for the {kind.told}")
    return marker


def _read_marker(folder: Path) -> _Marker | None:
    """Return None where there is no marker, or none that can be trusted: the files are then somebody else's."""
    try:
        content = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        files = {str(name): None if size is None else int(size) for name, size in content["files"].items()}
        if content["format"] == FORMAT and not any(_leaves(name) for name in files):
            settings = content.get("settings")
            return _Marker(str(content["kind"]), files, settings if isinstance(settings, Mapping) else None)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    return None


def _leaves(name: str) -> bool:
    """Whether a name leads out of its folder."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def _write_marker(
    folder: Path, kind: OutputKind, files: Mapping[str, int | None], settings: Mapping[str, Any] | None = None
) -> None:
    content = {"format": FORMAT, "kind": kind.name, "files": dict(files)}
    content |= {} if settings is None else {"settings": dict(settings)}
    write_text(folder / MARKER, json.dumps(content, indent=1) + "\n")
