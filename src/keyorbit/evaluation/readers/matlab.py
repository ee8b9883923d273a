"""Variables of MATLAB files. Their structure is checked before scipy reads them, since it believes what they declare.

A file of a few bytes may declare an array of billions of cells, which are allocated, or cells in cells so deep that the
process crashes. Sizes of numbers need no check: they are compared with the data. Format: "MAT-File Format", MathWorks.
"""

import math
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from keyorbit.errors import InputError
from keyorbit.storage.content import DEEPEST

_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHARACTERS, _SPARSE, _NUMBERS = 1, 2, 4, 5, range(6, 16)
_HEADER, _TAG = 128, 8
_CHUNK = 2**20


def mat_variable(path: Path, name: str, largest: int) -> Any:
    """Read a variable (no pickle inside), with structures as objects with attributes, and without axes of length 1.

    Args:
        path: a file, of any version but 7.3.
        name: of the variable.
        largest: number of bytes that it may have, unpacked.

    Raises:
        InputError: the file is damaged or of version 7.3, has no such variable, or the variable is larger or nested
            more than 64 deep.
    """
    import scipy.io

    try:
        with path.open("rb") as file:
            _check(file, name.encode(), largest)
        return scipy.io.loadmat(path, struct_as_record=False, squeeze_me=True, variable_names=[name])[name]
    except NotImplementedError as error:
        raise InputError(f"{path} is of MATLAB's version 7.3, which is not read; save it with -v7") from error
    except KeyError as error:
        raise InputError(f"{path} holds no variable {name!r}") from error
    except Exception as error:  # scipy raises nearly anything, also MemoryError for sizes that are not there
        raise InputError(f"{path} cannot be read as a MATLAB file: {error or type(error).__name__}") from error


def _check(file: BinaryIO, name: bytes, largest: int) -> None:
    """Raise ValueError where the variable is nested too deep, or declares more than follows."""
    head = file.read(_HEADER)
    if len(head) < _HEADER or 0 in head[:4] or head[126:] not in (b"IM", b"MI"):
        return  # version 4, which has no structures, or no such file
    order = "<" if head[126:] == b"IM" else ">"
    if struct.unpack(f"{order}H", head[124:126])[0] != 0x100:
        return
    while len(tag := file.read(_TAG)) == _TAG:
        kind, size = struct.unpack(f"{order}II", tag)
        after = file.tell() + size
        packed = zlib.decompressobj() if kind == _COMPRESSED else None
        if not packed:
            file.seek(-_TAG, 1)
        _Elements(file, order, largest, packed).variable(name)
        file.seek(after)


@dataclass
class _Elements:
    """What follows in a file, read in the order in which scipy reads it.

    Attributes:
        file: the file.
        order: of bytes, as in :mod:`struct`.
        left: number of bytes that may still be read.
        packed: unpacks them. None where they are not packed.
    """

    file: BinaryIO
    order: str
    left: int
    packed: Any
    ready: bytearray = field(default_factory=bytearray)

    def variable(self, name: bytes) -> None:
        """Pass a variable of that name; leave others alone."""
        self.matrix(0, name)

    def matrix(self, depth: int, only: bytes | None = None) -> None:
        """Pass an array, with what is in it."""
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
        kind, size = self.numbers(2)
        if kind != _MATRIX:
            raise ValueError(f"an element is of type {kind}, not an array")
        if not size:
            return
        _, _, flags, _ = self.numbers(4)
        sizes = self.element()
        dims = struct.unpack(f"{self.order}{len(sizes) // 4}i", sizes[: len(sizes) // 4 * 4])
        if self.element() != only and only is not None:
            return
        count, kind, parts = math.prod(dims), flags & 0xFF, 1 + (flags >> 11 & 1)
        if kind in _NUMBERS or kind == _CHARACTERS:
            self.skip(parts)
        elif kind == _SPARSE:
            self.skip(2 + parts)
        elif kind in (_CELL, _STRUCT):
            fields = 1
            if kind == _STRUCT:
                (width,) = struct.unpack(f"{self.order}i", self.element())
                fields = len(self.element()) // max(width, 1)
            if min(dims, default=0) < 0 or count * max(fields, 1) * _TAG > self.left:
                raise ValueError(f"it declares an array of {' x '.join(map(str, dims))} cells, which it does not hold")
            for _ in range(count * fields):
                self.matrix(depth + 1)
        else:
            raise ValueError(f"it holds an array of class {kind}; there may be numbers, texts, cells and structures")

    def numbers(self, count: int) -> tuple[int, ...]:
        """The next unsigned 32-bit numbers."""
        return struct.unpack(f"{self.order}{count}I", self.take(4 * count))

    def element(self) -> bytes:
        """The next element's data."""
        size, padding = self._size()
        return self.take(size + padding)[:size]

    def skip(self, count: int) -> None:
        """Pass some elements."""
        for _ in range(count):
            left = sum(self._size())
            while left:
                left -= len(self.take(min(left, _CHUNK)))

    def _size(self) -> tuple[int, int]:
        """The next element's size, and what fills it up to 8 bytes; small ones share 8 bytes with their tag."""
        (first,) = self.numbers(1)
        if first >> 16:
            return (first >> 16, max(4 - (first >> 16), 0))
        (size,) = self.numbers(1)
        return size, -size % 8

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count > self.left:
            raise ValueError("it is larger than such a variable may be, or damaged")
        self.left -= count
        if self.packed is None:
            found = self.file.read(count)
        else:
            while len(self.ready) < count and (more := self._unpacked()):
                self.ready += more
            found = bytes(self.ready[:count])
            del self.ready[:count]
        if len(found) < count:
            raise ValueError("it ends too early")
        return found

    def _unpacked(self) -> bytes:
        while not self.packed.eof:
            raw = self.packed.unconsumed_tail or self.file.read(_CHUNK)
            if not raw:
                break
            if found := self.packed.decompress(raw, _CHUNK):
                return bytes(found)
        return b""
