"""What the files of one object in a shard are called, and what kind of object they make. No library is loaded here."""

import re
from collections.abc import Iterable
from pathlib import Path

from keyorbit.objects.paths import IMAGE_SUFFIXES, MESH_ARCHIVES, MESH_SUFFIXES

TAR, PARQUET = ".tar", ".parquet"
SHARD_SUFFIXES = (TAR, PARQUET)
# Of an object folder, the two files that make it one.
PICTURE, META = "cond.png", "meta.json"
# The name of a mesh before its suffix, and that of its landmarks.
MESH, LANDMARKS = "mesh", "keypoints.json"
# As WebDataset splits a name: folders and all up to the first dot are the key, what is behind it the file's name.
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)
# What ends a key in a tar shard, divides words in an index, or would be a folder.
_NOT_IN_KEYS = re.compile(r"[\s./\\]")
# What WebDataset leaves out: names such as __meta__.json.
_ABOUT = re.compile(r"__[^/]*__($|/|\.)")
# Pictures of something else than the object as it looks.
_BESIDE = ("mask", "depth", "normal", "seg", "alpha", "target", "label")


def is_shard(path: Path) -> bool:
    """Whether a path names a shard, by its suffix."""
    return path.suffix.lower() in SHARD_SUFFIXES


def split_name(name: str) -> tuple[str, str] | None:
    """The key of a file in a tar shard, and its own name; None for files that belong to no object, or are hidden."""
    found = _NAME.fullmatch(name)
    if found is None or _ABOUT.match(name):
        return None
    return found[1], found[2]


def key_of(name: str) -> str:
    """A name as a key; one such as ``__x__`` is that of no object in a tar shard, and begins with one stroke."""
    key = _NOT_IN_KEYS.sub("_", name)
    return f"_{key.lstrip('_')}" if split_name(f"{key}.{PICTURE}") is None else key


def is_object(files: Iterable[str]) -> bool:
    """Whether files make an object folder."""
    return {PICTURE, META} <= {name.lower() for name in files}


def mesh_in(files: Iterable[str]) -> str | None:
    """The file that is a mesh; None where there is none."""
    return next((name for name in files if _is_mesh(name.lower())), None)


def _is_mesh(name: str) -> bool:
    return f".{name}".endswith(MESH_SUFFIXES) or name in {MESH + suffix for suffix in MESH_ARCHIVES}


def mesh_suffix(name: str) -> str:
    """The suffix of a mesh, such as ``.glb``, of its name in a shard: ``mesh.glb``, or ``glb`` alone."""
    low = name.lower()
    archive = next((suffix for suffix in MESH_ARCHIVES if low == MESH + suffix), None)
    return archive or f".{low.rpartition('.')[2]}"


def picture_in(files: Iterable[str]) -> str | None:
    """The file that is a picture of the object: ``jpg`` alone before names such as ``input.jpg``; None for none."""
    names = list(files)
    bare = [name for name in names if f".{name.lower()}" in IMAGE_SUFFIXES]
    longer = (name for name in names if name.lower().endswith(IMAGE_SUFFIXES))
    return next(iter(bare), None) or next((n for n in longer if not any(w in n.lower() for w in _BESIDE)), None)


def is_wanted(name: str) -> bool:
    """Whether a file may be read at all. Others, such as pickles, are never looked into."""
    low = name.lower()
    return low in (META, LANDMARKS) or mesh_in([low]) is not None or f".{low}".endswith(IMAGE_SUFFIXES)


def holds_object(files: Iterable[str]) -> bool:
    """Whether files make an object, a picture or a mesh."""
    names = list(files)
    return is_object(names) or mesh_in(names) is not None or picture_in(names) is not None
