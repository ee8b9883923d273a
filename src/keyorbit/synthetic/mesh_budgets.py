"""What a mesh file declares before it is read: the arrays and nodes of a glTF, and what an archive unpacks to."""

import tarfile
import zipfile
from bz2 import BZ2File
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from itertools import chain
from pathlib import Path
from typing import cast

from keyorbit.errors import InputError
from keyorbit.storage.content import json_in
from keyorbit.values import Amount, from_values

# Bytes that an archive unpacks to, or that a glTF's arrays have.
LARGEST = 4 * 2**30
# Of all copies of all parts; the ray caster needs about 300 bytes for each.
MOST_TRIANGLES = 50_000_000
# From the root of a glTF to all its nodes; trimesh takes some microseconds for each.
MOST_STEPS = 2_000_000
_GLB, _JSON = b"glTF", b"JSON"
_CHUNK = 2**24
# Numbers in an element of an array, of at most four bytes each.
_NUMBERS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}


def check_budgets(path: Path) -> None:
    """Check what a file declares, where it is a glTF or an archive.

    Raises:
        InputError: it declares more than the budgets above, or nodes that go round in a circle or are very deep.
    """
    for name, header in _gltf_headers(path):
        _check_gltf(header, name)


@dataclass(frozen=True)
class _Accessor:
    count: Amount
    type: str
    bufferView: Amount | None = None


@dataclass(frozen=True)
class _View:
    byteLength: int = 0


@dataclass(frozen=True)
class _Primitive:
    attributes: dict[str, Amount]
    indices: Amount | None = None


@dataclass(frozen=True)
class _Part:
    primitives: tuple[_Primitive, ...] = ()


@dataclass(frozen=True)
class _Node:
    mesh: Amount | None = None
    children: tuple[Amount, ...] = ()


@dataclass(frozen=True)
class _Gltf:
    """What a glTF declares (the format's version 2.0, chapter 5)."""

    accessors: tuple[_Accessor, ...] = ()
    bufferViews: tuple[_View, ...] = ()
    meshes: tuple[_Part, ...] = ()
    nodes: tuple[_Node, ...] = ()


def _check_gltf(header: bytes, where: str) -> None:
    """Raise InputError where a glTF declares more than the budgets, or nodes that are no tree."""
    values = json_in(header.decode("utf-8", "replace"), where)
    told = from_values(_Gltf, values, where, others=True)
    size = sum(view.byteLength for view in told.bufferViews)
    size += sum(4 * a.count * _NUMBERS.get(a.type, 1) for a in told.accessors)
    if size > LARGEST:
        raise InputError(f"{where} declares {size:,} bytes of arrays; it may have {LARGEST:,}")
    depths = _depths(told.nodes)
    if len(depths) < len(told.nodes):
        raise InputError(f"{where}: nodes are children of each other in a circle; they must form a tree")
    if sum(depths.values()) > MOST_STEPS:
        raise InputError(f"{where} has nodes up to {max(depths.values()):,} deep; it must be flatter")
    shown = [told.meshes[node.mesh] for node in told.nodes if node.mesh is not None and node.mesh < len(told.meshes)]
    triangles = sum(_triangles(p, told.accessors) for part in shown for p in part.primitives)
    if triangles > MOST_TRIANGLES:
        raise InputError(f"{where} declares {triangles:,} triangles; it may have {MOST_TRIANGLES:,}: simplify it")


def _triangles(primitive: _Primitive, accessors: Sequence[_Accessor]) -> int:
    which = primitive.attributes.get("POSITION", len(accessors)) if primitive.indices is None else primitive.indices
    return accessors[which].count // 3 if which < len(accessors) else 0


def _depths(nodes: Sequence[_Node]) -> dict[int, int]:
    """How many nodes are above each; without those that are below themselves, or that are below such ones."""
    parents = Counter(chain.from_iterable(node.children for node in nodes))
    depths = {i: 0 for i in range(len(nodes)) if not parents[i]}
    left = list(depths)
    for i in left:  # which grows on the way
        for child in nodes[i].children:
            parents[child] -= 1
            if not parents[child] and child < len(nodes):
                depths[child] = depths[i] + 1
                left.append(child)
    return depths


def _gltf_headers(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the JSON of a glTF file, or of those in an archive, whose size is checked on the way."""
    name = path.name.lower()
    if name.endswith((".zip", ".tar.gz", ".bz2")):
        for inside, file in _unpacked(path, name):
            if inside.lower().endswith((".glb", ".gltf")):
                yield f"{path}: {inside}", _header(file)
    elif name.endswith((".glb", ".gltf")):
        with path.open("rb") as file:
            yield str(path), _header(file)


def _header(file: BufferedIOBase) -> bytes:
    start = file.read(20)
    if start[:4] != _GLB:
        return start + file.read()
    if len(start) < 20 or start[16:20] != _JSON:
        raise ValueError("it is no GLB of version 2")
    return file.read(int.from_bytes(start[12:16], "little"))


def _unpacked(path: Path, name: str) -> Iterator[tuple[str, BufferedIOBase]]:
    """Yield the files in an archive.

    Raises:
        InputError: all of them together are larger than the budget.
    """
    if name.endswith(".bz2"):
        with BZ2File(path) as packed:
            _check_size(sum(map(len, iter(lambda: packed.read(_CHUNK), b""))), path)
            packed.seek(0)
            yield path.name[:-4], packed
    elif name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            # No more is ever unpacked than these sizes.
            _check_size(sum(info.file_size for info in archive.infolist()), path)
            for info in archive.infolist():
                with archive.open(info) as file:
                    yield info.filename, cast(BufferedIOBase, file)
    else:
        size = 0
        with tarfile.open(path) as tape:
            for member in tape:
                _check_size(size := size + member.size, path)
                if member.isfile() and (inside := tape.extractfile(member)):
                    yield member.name, cast(BufferedIOBase, inside)


def _check_size(size: int, path: Path) -> None:
    if size > LARGEST:
        raise InputError(f"{path} unpacks to more than {LARGEST:,} bytes; unpack it, and give the mesh in it")
