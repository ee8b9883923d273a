"""Which paths stand for shards, or for what lies at an address; and for which ones."""

from pathlib import Path

from keyorbit.errors import InputError
from keyorbit.objects.paths import IMAGE_SUFFIXES, MESH_SUFFIXES, object_paths
from keyorbit.objects.shards.names import SHARD_SUFFIXES, is_shard
from keyorbit.storage.addresses import is_remote, plain, shown
from keyorbit.storage.places import PATTERN, files_in, matching, without_braces

_SHARDS = tuple(f"*{suffix}" for suffix in SHARD_SUFFIXES)
_PICTURES = tuple(f"*{suffix}" for suffix in IMAGE_SUFFIXES)
_MESHES = tuple(f"*{suffix}" for suffix in MESH_SUFFIXES)


def is_elsewhere(path: Path) -> bool:
    """Whether a path stands for shards or for an address; only a folder on this disk is looked into."""
    if is_remote(path):
        return True
    if path.is_dir():
        return not _holds_objects(path) and bool(files_in(path, _SHARDS))
    return is_shard(path) or (not path.exists() and any(is_shard(one) for one in without_braces(path)[:1]))


def places_elsewhere(path: Path) -> list[Path] | None:
    """The shards, and the addresses of pictures and meshes, that a path stands for; None for other paths.

    A folder stands for its shards; at an address, where it has none, for its pictures, and without these its meshes.

    Raises:
        InputError: nothing is there.
    """
    if not is_elsewhere(path):
        return None
    if path.exists():
        return files_in(path, _SHARDS) if path.is_dir() else [path]
    return [place for one in without_braces(path) for place in _places(one)]


def _places(path: Path) -> list[Path]:
    name = plain(path)
    if any(letter in str(name) for letter in PATTERN):
        return matching(path) if is_remote(path) else _local(path)
    if name.suffix.lower() in (*SHARD_SUFFIXES, *IMAGE_SUFFIXES, *MESH_SUFFIXES):
        if not is_remote(path) and not path.is_file():
            raise InputError(f"there is no file or folder at {path}")
        return [path]
    for patterns in (_SHARDS, _PICTURES, _MESHES):
        if found := files_in(path, patterns):
            return found
    raise InputError(
        f"{shown(path)} holds no shards ({', '.join(SHARD_SUFFIXES)}), pictures or meshes; give a folder or a pattern "
        "of such files"
    )


def _local(path: Path) -> list[Path]:
    root = Path(path.anchor or ".")
    found = sorted(root.glob(str(path.relative_to(path.anchor)) if path.anchor else str(path)))
    named = [one for one in found if not one.name.startswith(".")]
    if not named:
        raise InputError(f"nothing matches {path}")
    return named


def _holds_objects(folder: Path) -> bool:
    try:
        return bool(object_paths(folder))
    except (InputError, OSError):
        return False
