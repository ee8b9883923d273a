"""Which objects go into which shard, under which names; what is there already is not written again."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keyorbit.errors import InputError
from keyorbit.objects.paths import named_as_mesh
from keyorbit.objects.shards.names import (
    LANDMARKS,
    MESH,
    META,
    PICTURE,
    holds_object,
    is_object,
    key_of,
    mesh_in,
    mesh_suffix,
    picture_in,
)
from keyorbit.objects.sources import ObjectSource
from keyorbit.storage.folder_names import folder_names, readable

Files = Mapping[str, bytes]
# What divides an index, of the name of a file.
_NOT_IN_WORDS = re.compile(r"\s")
_LANDMARKS = f".{LANDMARKS}"


@dataclass(frozen=True)
class Planned:
    """A shard that is to be.

    Attributes:
        path: where.
        keys: of its objects.
        sources: where they are read from.
    """

    path: Path
    keys: Sequence[str]
    sources: Sequence[ObjectSource] = field(repr=False)


def planned_shards(sources: Sequence[ObjectSource], out: Path, name: str, suffix: str, count: int) -> list[Planned]:
    """Divide objects into shards of ``count`` each, ``NAME-000000`` and so on, in their order.

    Keys are the objects' names with ``_`` for dots, spaces and slashes; where two would be the same, the later one gets
    a number.
    """
    keys = folder_names([key_of(folder) for folder in folder_names([one.name for one in sources])])
    some = [slice(first, first + count) for first in range(0, len(sources), count)]
    paths = [Path(f"{out.as_posix()}/{name}-{number:06d}{suffix}") for number in range(len(some))]
    return [Planned(path, keys[part], sources[part]) for path, part in zip(paths, some, strict=True)]


def packed_files(source: ObjectSource, mesh: Callable[[Path], tuple[str, bytes]]) -> Files:
    """What goes into a shard of one object, under the names that it has there; bytes are those of its files.

    Args:
        source: the object: a folder, all of whose files are taken but hidden ones; a picture; a mesh, with its
            landmarks; or what lies in a shard or at an address.
        mesh: of a mesh file, its suffix and bytes: with what it names, if that is several files.

    Raises:
        InputError: a file cannot be read, or there are none that make an object, a picture or a mesh.
    """
    files = _files_of(source, mesh)
    if not holds_object(files) or (META in files and not is_object(files)):
        missing = f"{META}, and no {PICTURE}" if META in files else "no picture and no mesh"
        raise InputError(f"{source.where} holds {missing}: mend it, or leave it out")
    return _with_words(files)


def _files_of(source: ObjectSource, mesh: Callable[[Path], tuple[str, bytes]]) -> Files:
    if source.elsewhere:
        return _named(source.files())
    path = source.path
    try:
        if path.is_dir():
            inside = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
            return {one.name: one.read_bytes() for one in inside}
        if not named_as_mesh(path):
            return {path.suffix[1:]: path.read_bytes()}
        suffix, data = mesh(path)
        beside = path.with_name(path.stem + _LANDMARKS)
        return {MESH + suffix: data} | ({LANDMARKS: beside.read_bytes()} if beside.is_file() else {})
    except OSError as error:
        raise InputError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error


def _with_words(files: Files) -> Files:
    """Files under names that an index can hold: what is no text, or would divide a line, is ``-`` there."""
    found = {name: data for name, data in files.items() if _as_word(name) == name}
    for name in [name for name in files if name not in found]:
        word = _as_word(name)
        while word in found:
            word = f"-{word}"
        found[word] = files[name]
    return found


def _as_word(name: str) -> str:
    return _NOT_IN_WORDS.sub("-", readable(name))


def _named(files: Files) -> Files:
    """Files of another shard under the names that they have in ours."""
    if is_object(files):
        ours = {name: name.lower() for name in files if name.lower() in (PICTURE, META)}
        return {ours.get(name, name): data for name, data in files.items()}
    if found := mesh_in(files):
        beside = {LANDMARKS: files[LANDMARKS]} if LANDMARKS in files else {}
        return {MESH + mesh_suffix(found): files[found]} | beside
    picture = picture_in(files)
    return {} if picture is None else {picture.rpartition(".")[2]: files[picture]}


def plan_digest(plan: Planned) -> str:
    """A digest of which objects are in a shard: of their keys, and the names and lengths of their files.

    Of what lies elsewhere it is where that is: the files themselves are not read for it.
    """
    digest = hashlib.sha256()
    for key, source in zip(plan.keys, plan.sources, strict=True):
        digest.update(f"{key}\0{_facts(source)}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _facts(source: ObjectSource) -> str:
    if source.elsewhere:
        return source.where
    files = sorted(source.path.iterdir()) if source.path.is_dir() else [source.path]
    return "\0".join(f"{one.name}\0{one.stat().st_size}" for one in files if not one.name.startswith("."))
