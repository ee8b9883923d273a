"""What the words of a command name: a run or none, and files, folders, patterns or a list on stdin."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from keyorbit.diffusion.paths import exists
from keyorbit.errors import InputError
from keyorbit.objects.paths import check_picture, named_as_mesh, named_as_picture, object_paths, without_meshes
from keyorbit.objects.shards.places import is_elsewhere
from keyorbit.objects.sources import object_sources
from keyorbit.storage.addresses import is_remote, shown

STDIN = Path("-")
# Lines of a list: more would be a mistake, such as a picture instead of its name.
_MOST_LINES = 10_000_000


def named_paths(paths: Sequence[Path]) -> str | list[str]:
    """Paths as a run's file keeps them: one alone, or a list; of addresses no passwords."""
    told = [shown(path) for path in paths]
    return told if told[1:] else told[0]


def given_paths(words: Sequence[Path]) -> list[Path]:
    """The files and folders that words of a command name, in their order.

    Args:
        words: paths; patterns such as ``photos/*.jpg``, which a shell leaves as they are in quotes; addresses such as
            ``s3://bucket/x-*.tar``, which stay as they are; and ``-`` for a list on stdin, one path a line.

    Raises:
        InputError: a pattern matches nothing, the list is empty or no text, or ``-`` is there twice.
    """
    if list(words).count(STDIN) > 1:
        raise InputError("- stands for the list on stdin, and it can be read once: leave one out")
    return [path for word in words for path in _paths_of(word)]


def _paths_of(word: Path) -> Iterator[Path]:
    if word == STDIN:
        yield from _listed()
    elif not is_remote(word) and any(letter in str(word) for letter in "*?[") and not exists(word):
        root = Path(word.anchor or ".")
        try:
            found = sorted(root.glob(str(word.relative_to(word.anchor))))
        except (ValueError, NotImplementedError, OSError) as error:
            raise InputError(f"{word} is no pattern of paths: {error}") from error
        named = [path for path in found if not path.name.startswith(".")]
        if not named:
            raise InputError(f"nothing matches {word}")
        yield from named
    else:
        yield word


def _listed() -> Iterator[Path]:
    try:
        lines = [line.rstrip("\r\n") for line, _ in zip(sys.stdin, range(_MOST_LINES), strict=False)]
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"stdin holds no list of paths, one a line: {error}") from error
    found = [Path(line) for line in lines if line.strip()]
    if not found:
        raise InputError("stdin holds no paths: give one a line, as 'ls photos/*.jpg | keyorbit …' does")
    if any("\0" in str(path) for path in found):
        raise InputError("stdin holds no list of paths, one a line: there are zeros in it")
    yield from found


def one_picture(word: Path) -> Path:
    """The picture that a word names, of which there may be one; of an object, its input picture.

    Raises:
        InputError: it names several, or as :func:`given_paths` and :func:`object_sources`.
    """
    places = [source.path for source in object_sources(given_paths([word]))]
    if len(places) > 1:
        raise InputError(f"{word} names {len(places):,} pictures: give one")
    place = places[0] / "cond.png" if places[0].is_dir() else places[0]
    check_picture(place)
    return place


def run_and_pictures(run: Path | None, pictures: Sequence[Path], named: bool) -> tuple[Path | None, list[Path]]:
    """The run, and the pictures; where the first word is a picture there is no run, and tokens that ship serve.

    Args:
        run: the first word; None for none.
        pictures: the others.
        named: whether keypoints are given by names, in place of a run.

    Raises:
        InputError: as :func:`given_paths`.
    """
    words = [*([] if run is None else [run]), *pictures]
    if run is None or named or _is_pictures(run):
        return run if named else None, given_paths(words)
    return run, given_paths(pictures)


def _is_pictures(word: Path) -> bool:
    """Whether a word names pictures, objects or meshes, and no run."""
    if word == STDIN or is_elsewhere(word) or named_as_picture(word) or (named_as_mesh(word) and not word.is_dir()):
        return True
    if word.is_file() or exists(word / "tokens.safetensors") or exists(word / "run.json"):
        return False
    try:
        given = given_paths([word])
        return given != [word] or bool(without_meshes([word])[1]) or bool(object_paths(word))
    except (InputError, OSError, ValueError):
        return False
