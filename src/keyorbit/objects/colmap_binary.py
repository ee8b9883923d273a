"""Read the rows of COLMAP's binary files, each only if the file is long enough for it.

Source: the order of fields of COLMAP's reconstruction writer. Points are skipped.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from keyorbit.errors import InputError
from keyorbit.geometry.lenses import MODELS

LONGEST_NAME = 4096
# Little-endian, without padding.
_COUNT, _BYTE = struct.Struct("<Q"), struct.Struct("<c")
_CAMERA, _IMAGE = struct.Struct("<IiQQ"), struct.Struct("<I7dI")
_POINT_BYTES = 24
# After those with a lens, in the order of their numbers.
_NAMES = (*MODELS, "EQUIRECTANGULAR")
_SIZES = {name: focal + 2 + more for name, (focal, more) in MODELS.items()} | {"EQUIRECTANGULAR": 2}


def binary_cameras(path: Path) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the place of each camera in words, and its number, model, width, height and parameters.

    Raises:
        InputError: the file is damaged or cut, or has a model of which nobody knows how long it is.
    """
    with _Records(path) as records:
        for _ in range(records.count(_CAMERA.size)):
            number, model, width, height = records.take(_CAMERA)
            if not 0 <= model < len(_NAMES):
                raise InputError(f"{records.where}: camera {number} has the model number {model}, which is not known")
            name = _NAMES[model]
            parameters = records.take(struct.Struct(f"<{_SIZES[name]}d"))
            yield records.where, (number, name, width, height, parameters)


def binary_images(path: Path) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the place of each image in words, and its row as in the text: IMAGE_ID … CAMERA_ID, NAME.

    Raises:
        InputError: the file is damaged or cut.
    """
    with _Records(path) as records:
        for _ in range(records.count(_IMAGE.size)):
            row = (*records.take(_IMAGE), records.text())
            records.skip(_POINT_BYTES * records.take(_COUNT)[0])
            yield records.where, row


class _Records:
    """The records of a binary file, each read only if the file is long enough for it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> "_Records":
        if not self.path.is_file():
            raise InputError(f"{self.path} is no regular file")
        try:
            self.file: BinaryIO = self.path.open("rb")
            self.left = os.fstat(self.file.fileno()).st_size
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror}") from error
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.file.close()
        if kind is None and self.left:
            raise InputError(f"{self.path} is damaged: {self.left} bytes follow its last record")

    @property
    def where(self) -> str:
        """The place that is read, in words."""
        return f"{self.path}, byte {self.file.tell()}"

    def count(self, smallest: int) -> int:
        """Read the number of records that follow, of so many bytes at least."""
        number: int = self.take(_COUNT)[0]
        if number * smallest > self.left:
            raise InputError(f"{self.path} is cut or damaged: it is too short for the {number:,} records it counts")
        return number

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Read one record."""
        self._use(layout.size)
        return layout.unpack(self.file.read(layout.size))

    def text(self) -> str:
        """Read a name up to its zero byte."""
        name = bytearray()
        while (byte := self.take(_BYTE)[0]) != b"\0":
            name += byte
            if len(name) > LONGEST_NAME:
                raise InputError(f"{self.where} is damaged: a name is longer than {LONGEST_NAME} bytes")
        return os.fsdecode(bytes(name))

    def skip(self, size: int) -> None:
        """Pass over so many bytes."""
        self._use(size)
        self.file.seek(size, os.SEEK_CUR)

    def _use(self, size: int) -> None:
        if size > self.left:
            raise InputError(f"{self.where} is cut or damaged: {size:,} bytes should follow, and {self.left:,} do")
        self.left -= size
