"""Mesh files as other programs write them, in the form in which trimesh reads them: OBJ, PLY and STL."""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

_BOM = b"\xef\xbb\xbf"
_LIBRARY = re.compile(rb"^[ \t]*mtllib[ \t]+(.+?)[ \t]*\r?$", re.MULTILINE)
_OBJ_COMMENT = re.compile(rb"^([ \t]*(?:vt|vn|v|f)[ \t][^#\r\n]*)#[^\r\n]*", re.MULTILINE)
_STL_HEAD, _STL_FACET = 84, 50
# What programs write as the number of facets before they know it.
_UNCOUNTED = (0, 2**32 - 1)
# Names of numbers in a PLY, in the form of `struct`.
_PLY_KINDS = {
    "char": "b",
    "uchar": "B",
    "short": "h",
    "ushort": "H",
    "int": "i",
    "uint": "I",
    "float": "f",
    "double": "d",
}
_PLY_KINDS |= {"int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I"}
_PLY_KINDS |= {"float32": "f", "float64": "d"}
_DIFFUSE = re.compile(rb"^([ \t]*property[ \t]+\w+[ \t]+)diffuse_(?=(?:red|green|blue)\s)", re.MULTILINE)
_CORNERS = ("vertex_indices", "vertex_index")


def repaired(data: bytes, suffix: str) -> bytes:
    """Return a file's content for trimesh; as it is where nothing is to be done, or where it is damaged.

    An OBJ loses its byte order mark and comments behind numbers, and its libraries of materials come on one line.
    Facets of an STL are counted. A PLY's ``diffuse_red`` becomes ``red``; if it is binary, polygons of different
    numbers of corners become triangles.
    """
    try:
        if suffix == ".obj":
            return _with_one_library(_OBJ_COMMENT.sub(rb"\1", data.removeprefix(_BOM)))
        if suffix == ".stl":
            return _counted(data)
        return _even(_with_red(data)) if suffix == ".ply" else data
    except (struct.error, ValueError, KeyError, IndexError):  # whoever reads it says what is wrong
        return data


def stl_colours(data: bytes) -> Float[ndarray, "facet 4"] | None:
    """Return the colours of a binary STL's facets, by VisCAM or by Magics (``COLOR=``); None where it has none."""
    if _is_text(data) or (len(data) - _STL_HEAD) % _STL_FACET or len(data) <= _STL_HEAD:
        return None
    facets = np.frombuffer(data, np.dtype([("place", "<f4", 12), ("word", "<u2")]), offset=_STL_HEAD)
    word = facets["word"].astype(int)
    at = data.find(b"COLOR=", 0, _STL_HEAD - 8)
    marked = word >= 2**15
    if at >= 0:
        base, shifts, own = np.frombuffer(data, np.uint8, 3, at + 6) / 255, (0, 5, 10), ~marked & bool(word.any())
    else:
        base, shifts, own = np.full(3, 0.4), (10, 5, 0), marked
        if not marked.any() or word[~marked].any():  # other programs keep other things there
            return None
    colours = np.stack([(word >> shift) % 32 / 31 for shift in shifts], axis=1)
    found: ndarray = np.concatenate([np.where(own[:, None], colours, base), np.ones((len(word), 1))], axis=1)
    return found


def _with_one_library(data: bytes) -> bytes:
    names = list(dict.fromkeys(_LIBRARY.findall(data)))
    if len(names) < 2:
        return data
    return b"mtllib " + b" ".join(names) + b"\n" + _LIBRARY.sub(b"", data)


def _is_text(data: bytes) -> bool:
    return data.lstrip()[:5].lower() == b"solid" and b"facet" in data[:4096].lower()


def _counted(data: bytes) -> bytes:
    """Return a binary STL with as many facets as it has, and nothing after them."""
    if len(data) <= _STL_HEAD or _is_text(data):
        return data
    told, there = int.from_bytes(data[80:_STL_HEAD], "little"), (len(data) - _STL_HEAD) // _STL_FACET
    count = there if told in _UNCOUNTED else told
    if count > there:
        return data
    return data[:80] + struct.pack("<I", count) + data[_STL_HEAD : _STL_HEAD + count * _STL_FACET]


def _with_red(data: bytes) -> bytes:
    head, end, rest = data.partition(b"end_header")
    return data if re.search(rb"\sred\s", head) else _DIFFUSE.sub(rb"\1", head) + end + rest


@dataclass(frozen=True)
class _Property:
    """A number of a PLY's element, or a list of such; ``counted`` is the kind of a list's length, empty for none."""

    name: str
    kind: str
    counted: str = ""


@dataclass(frozen=True)
class _Element:
    name: str
    count: int
    properties: list[_Property]


def _even(data: bytes) -> bytes:
    """Return a binary PLY whose faces all have three corners, if some have more than others."""
    head, end, rest = data.partition(b"end_header")
    if not end or b"format binary" not in head:
        return data
    order = ">" if b"binary_big_endian" in head else "<"
    start = len(head) + len(end) + rest.index(b"\n") + 1
    at = start
    for element in _elements(head.decode("latin-1")):
        if not any(one.counted for one in element.properties):
            at += element.count * struct.calcsize(order + "".join(one.kind for one in element.properties))
        elif element.name != "face":
            return data
        else:
            rows, after = _rows(data, at, element, order)
            if len({tuple(len(item) for item in row) for row in rows}) < 2:
                return data
            faces = [part for row in rows for part in _fan(row, element, order)]
            told = re.sub(rb"(element\s+face\s+)\d+", rb"\g<1>%d" % len(faces), data[:start], count=1)
            return told + data[start:at] + b"".join(faces) + data[after:]
    return data


def _elements(head: str) -> list[_Element]:
    found: list[_Element] = []
    for words in map(str.split, head.splitlines()):
        if words[:1] == ["element"]:
            found.append(_Element(words[1], int(words[2]), []))
        elif words[:2] == ["property", "list"]:
            found[-1].properties.append(_Property(words[4], _PLY_KINDS[words[3]], _PLY_KINDS[words[2]]))
        elif words[:1] == ["property"]:
            found[-1].properties.append(_Property(words[2], _PLY_KINDS[words[1]]))
    return found


def _rows(data: bytes, at: int, element: _Element, order: str) -> tuple[list[list[bytes]], int]:
    """Return the bytes of each property of each row, lists without their lengths; and where the rows end."""
    plan = [
        (struct.calcsize(one.kind), struct.Struct(order + one.counted) if one.counted else None)
        for one in element.properties
    ]
    found = []
    for _ in range(element.count):
        row = []
        for size, counted in plan:
            length = size
            if counted is not None:
                length *= counted.unpack_from(data, at)[0]
                at += counted.size
            row.append(data[at : at + length])
            at += length
        found.append(row)
    if at > len(data):
        raise ValueError("cut")
    return found, at


def _fan(row: list[bytes], element: _Element, order: str) -> Iterator[bytes]:
    """Yield a polygon's triangles, each with all that the polygon has; what its corners have goes with them."""
    sizes = [struct.calcsize(one.kind) for one in element.properties]
    which = next(i for i, one in enumerate(element.properties) if one.name in _CORNERS)
    corners = len(row[which]) // sizes[which]
    for i in range(1, corners - 1):
        parts = []
        for item, size, told in zip(row, sizes, element.properties, strict=True):
            if told.counted:
                each = len(item) // size // corners
                own = b"".join(item[corner * each * size : (corner + 1) * each * size] for corner in (0, i, i + 1))
                parts += [struct.pack(order + told.counted, 3 * each), own]
            else:
                parts.append(item)
        yield b"".join(parts)
