"""What every file of cameras comes to: photographs by name, each with its pose and its lens; and which are meant.

Files name photographs as they lay where the cameras were computed: below another folder, with other capitals or another
suffix, or without one. All that is done here, once for all formats.
"""

import logging
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short

from keyorbit.errors import InputError
from keyorbit.geometry.lenses import Intrinsics
from keyorbit.geometry.matrices import Convention, Row4

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shot:
    """A photograph as a file of cameras has it.

    Attributes:
        name: of the photograph, as the file writes it, with or without folders.
        world_to_camera: rows of the rigid transform to OpenCV's camera axes.
        lens: intrinsics and distortion; or why there are none that can be used.
    """

    name: str
    world_to_camera: tuple[Row4, Row4, Row4, Row4]
    lens: Intrinsics | str


@dataclass(frozen=True)
class Shots:
    """The photographs of one file of cameras, or of one model of COLMAP's.

    Attributes:
        where: the file or folder, as error messages name it.
        shots: in the order of the file.
        convention: of the file's poses, which were converted.
    """

    where: str
    shots: tuple[Shot, ...]
    convention: Convention


def chosen_shots(sources: Sequence[Shots], folder: Path, photographs: Sequence[Path]) -> list[tuple[Shots, list[Shot]]]:
    """Find the photographs of a folder in files of cameras; those that have all of them, in the order given.

    A photograph is the one of the same name: with the same file name, and if several have that, with most of its
    folders. Other capitals and another suffix are accepted if only one fits (:func:`warn_of_names`).

    Args:
        sources: what was read, the best first.
        folder: of the photographs.
        photographs: paths below it.

    Raises:
        InputError: none has all photographs, or a name fits several.
    """
    if not photographs:
        return [(source, []) for source in sources]
    found = [(source, *_matched(source, folder, photographs)) for source in sources]
    whole = [(source, indices) for source, indices, missing in found if not missing]
    if not whole:
        raise InputError(_incomplete(found, folder))
    return [(source, [source.shots[i] for i in indices]) for source, indices in whole]


def _incomplete(found: Sequence[tuple[Shots, list[int], list[Path]]], folder: Path) -> str:
    """Say which photograph is in no file, or that no one file has all."""
    source, _, missing = min(found, key=lambda one: len(one[2]))
    first = missing[0]
    others = [other.where for other, _, lacks in found if first not in lacks]
    words = f"{source.where} does not have {first.relative_to(folder)}"
    if others:
        return f"{words}, and {others[0]} does not have others: give photographs that one model has all of"
    few = ", ".join(short(shot.name) for shot in source.shots[:2])
    count = len(source.shots)
    names = f"{few} and {count - 2} more" if count > 2 else few or "no photographs"
    return f"{words}; remove it, or register it (named there: {names})"


def _matched(source: Shots, folder: Path, photographs: Sequence[Path]) -> tuple[list[int], list[Path]]:
    """Return which shot each photograph is, and the photographs that are none.

    Raises:
        InputError: a name fits several, or two photographs are one shot.
    """
    parts = [_parts(shot.name) for shot in source.shots]
    tables: list[tuple[Callable[[str], str], dict[str, list[int]]]] = []
    for by_photograph, by_name in _WAYS:
        table = defaultdict(list)
        for i, part in enumerate(parts):
            if part:
                table[by_name(part[-1])].append(i)
        tables.append((by_photograph, table))
    indices, missing, taken = list[int](), list[Path](), dict[int, Path]()
    for path in photographs:
        whole, below = _parts(os.path.abspath(path)), _parts(str(path.relative_to(folder)))
        fits = next((table[key] for way, table in tables if (key := way(below[-1])) in table), [])
        fits = [i for i in fits if not _elsewhere(parts[i], below)]
        if not fits:
            missing.append(path)
            continue
        most = max(_common(parts[i], whole) for i in fits)
        best = [i for i in fits if _common(parts[i], whole) == most]
        if len(best) > 1:
            one, other = (source.shots[i].name for i in best[:2])
            if one == other:
                raise InputError(f"{source.where} has {short(one)} twice, with different cameras: remove one")
            names = f"{short(one)} and {short(other)}"
            raise InputError(
                f"{source.where} has {names}, and {path} may be either: give the folder in which they are told apart"
            )
        if best[0] in taken:
            raise InputError(
                f"{taken[best[0]]} and {path} are both {short(source.shots[best[0]].name)} of {source.where}"
            )
        taken[best[0]] = path
        indices.append(best[0])
    return indices, missing


def _parts(name: str) -> tuple[str, ...]:
    """The folders and the file of a path of any system; accents that are composed otherwise are the same."""
    composed = unicodedata.normalize("NFC", name.replace("\\", "/"))
    return tuple(part for part in composed.split("/") if part not in ("", "."))


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


# How a photograph's file name and a name in a file may be the same, the strictest first.
_WAYS: tuple[tuple[Callable[[str], str], Callable[[str], str]], ...] = (
    (str, str),
    (_stem, str),
    (str.casefold, str.casefold),
    (lambda name: _stem(name).casefold(), lambda name: _stem(name).casefold()),
)


def _common(name: Sequence[str], whole: Sequence[str]) -> int:
    """How many folders above the file are the same, from the file upwards."""
    count = 0
    for one, other in zip(reversed(name[:-1]), reversed(whole[:-1]), strict=False):
        if one.casefold() != other.casefold():
            break
        count += 1
    return count


def _elsewhere(name: Sequence[str], below: Sequence[str]) -> bool:
    """Whether a name is in another folder than a photograph that lies in a folder of the folder that was given."""
    return len(name) > 1 and len(below) > 1 and not _common(name, below)


def warn_of_names(source: Shots, shots: Sequence[Shot], photographs: Sequence[Path]) -> None:
    """Log a warning if photographs were found by other capitals or another suffix."""
    odd = [
        (path.name, shot.name)
        for path, shot in zip(photographs, shots, strict=True)
        if _parts(shot.name)[-1] not in (_parts(path.name)[-1], _stem(_parts(path.name)[-1]))
    ]
    if odd:
        more = f", and {len(odd) - 1} more like it" if len(odd) > 1 else ""
        log.warning("%s has no %s: %r is taken for it%s", source.where, *odd[0], more)
