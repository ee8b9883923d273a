"""Read the cameras and images of a COLMAP model, in its text or its binary format.

Source: COLMAP's documentation, "Output Format", and for the binary files the order of fields of its reconstruction
writer. Points are skipped.
"""

import math
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Annotated, Any, BinaryIO, TypeVar

from msgspec import Meta

from keyorbit.errors import InputError
from keyorbit.geometry.matrices import Coordinate
from keyorbit.storage.content import text_of
from keyorbit.values import from_values

# The models without distortion: where fx, fy, cx and cy are among the parameters.
PINHOLES = {"SIMPLE_PINHOLE": (0, 0, 1, 2), "PINHOLE": (0, 1, 2, 3)}
# By the number that binary files give them.
_MODELS = (
    *("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV", "FOV"),
    *("SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE"),
)
_LONGEST_NAME = 4096
_ROW = ("number", "qw", "qx", "qy", "qz", "tx", "ty", "tz", "camera", "name")
# Little-endian, without padding.
_COUNT, _BYTE = struct.Struct("<Q"), struct.Struct("<c")
_CAMERA, _IMAGE = struct.Struct("<IiQQ"), struct.Struct("<I7dI")
_POINT_BYTES = 24

Identifier = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Pixels = Annotated[float, Meta(ge=1, le=2**31 - 1)]


@dataclass(frozen=True)
class ColmapCamera:
    """A camera without distortion.

    Attributes:
        number: CAMERA_ID.
        model: SIMPLE_PINHOLE or PINHOLE.
        width: pixels.
        height: pixels.
        parameters: f, cx, cy or fx, fy, cx, cy, in pixels.

    Raises:
        InputError: the model is another one, or parameters are missing.
    """

    number: Identifier
    model: str
    width: Pixels
    height: Pixels
    parameters: tuple[Coordinate, ...]

    def __post_init__(self) -> None:
        if self.model not in PINHOLES:
            raise InputError(f"it is a {short(self.model)[1:-1]} camera; undistort to PINHOLE first")
        needed = max(PINHOLES[self.model]) + 1
        if len(self.parameters) < needed:
            raise InputError(f"a {self.model} camera has {needed} parameters, not {len(self.parameters)}")


@dataclass(frozen=True)
class ColmapImage:
    """A photograph's pose and its camera.

    Attributes:
        number: IMAGE_ID.
        qw: of the quaternion of the rotation from the world to the camera, of any length but 0; so are qx, qy, qz.
        tx: of the translation; so are ty and tz.
        camera: CAMERA_ID.
        name: of the photograph.

    Raises:
        InputError: the quaternion is no rotation.
    """

    number: Identifier
    qw: Coordinate
    qx: Coordinate
    qy: Coordinate
    qz: Coordinate
    tx: Coordinate
    ty: Coordinate
    tz: Coordinate
    camera: Identifier
    name: Annotated[str, Meta(min_length=1, max_length=_LONGEST_NAME)]

    def __post_init__(self) -> None:
        if math.hypot(self.qw, self.qx, self.qy, self.qz) < 1e-6:
            raise InputError("qw, qx, qy, qz are all 0, which is no rotation")


Item = TypeVar("Item", ColmapCamera, ColmapImage)
Model = dict[str, tuple[ColmapImage, ColmapCamera]]


def read_colmap(folder: Path) -> Model:
    """Read a model's images with their cameras, by the name of the photograph; from text where both formats are there.

    Raises:
        InputError: files are missing, damaged or cut, a camera has distortion, or two have the same number or name.
    """
    files = {suffix: (folder / f"cameras.{suffix}", folder / f"images.{suffix}") for suffix in ("txt", "bin")}
    whole = [suffix for suffix, both in files.items() if all(path.exists() for path in both)]
    if not whole:
        raise InputError(
            f"{folder} holds no COLMAP model: it needs cameras.txt and images.txt, or cameras.bin and images.bin"
        )
    inner, outer = files[whole[0]]
    text = whole[0] == "txt"
    cameras = _by_number(inner, _text_cameras(inner) if text else _binary_cameras(inner))
    images = _by_number(outer, _text_images(outer) if text else _binary_images(outer))
    found: Model = {}
    for image in images.values():
        if image.camera not in cameras:
            raise InputError(f"{outer}: camera {image.camera} of image {image.number} is not in {inner.name}")
        if image.name in found:
            raise InputError(f"{outer} has two images with the name {short(image.name)}")
        found[image.name] = image, cameras[image.camera]
    return found


def _by_number(path: Path, items: Iterable[Item]) -> dict[int, Item]:
    found: dict[int, Item] = {}
    for item in items:
        if item.number in found:
            raise InputError(f"{path} has the number {item.number} twice")
        found[item.number] = item
    return found


def _text_cameras(path: Path) -> Iterator[ColmapCamera]:
    for number, line in _lines(path):
        if line:
            names = ("number", "model", "width", "height")
            words = line.split()
            values = dict(zip(names, map(_value, words), strict=False)) | {"parameters": [*map(_value, words[4:])]}
            if words[1:]:
                values["model"] = words[1]  # a name, even where it looks like a number
            yield from_values(ColmapCamera, values, f"{path}, line {number}")


def _text_images(path: Path) -> Iterator[ColmapImage]:
    lines = _lines(path)
    for number, line in lines:
        if line:
            words = line.split(maxsplit=len(_ROW) - 1)
            values = dict(zip(_ROW, [*map(_value, words[:9]), *words[9:]], strict=False))
            yield from_values(ColmapImage, values, f"{path}, line {number}")
            next(lines, None)  # its points; the row may be empty


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file that are no comments, without spaces at their ends, with their numbers from 1."""
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if not line.startswith("#"):
            yield number, line.strip()


def _value(word: str) -> int | float | str:
    """Return the number that a word stands for, or else the word, which no number's field takes."""
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def _binary_cameras(path: Path) -> Iterator[ColmapCamera]:
    with _Records(path) as records:
        for _ in range(records.count(_CAMERA.size)):
            number, model, width, height = records.take(_CAMERA)
            name = _MODELS[model] if 0 <= model < len(_MODELS) else f"number {model}"
            needed = max(PINHOLES.get(name, (-1,))) + 1
            parameters = list(records.take(struct.Struct(f"<{needed}d")))
            values = {"number": number, "model": name, "width": width, "height": height, "parameters": parameters}
            yield from_values(ColmapCamera, values, records.where)


def _binary_images(path: Path) -> Iterator[ColmapImage]:
    with _Records(path) as records:
        for _ in range(records.count(_IMAGE.size)):
            row = (*records.take(_IMAGE), records.text())
            records.skip(_POINT_BYTES * records.take(_COUNT)[0])
            yield from_values(ColmapImage, dict(zip(_ROW, row, strict=True)), records.where)


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
            if len(name) > _LONGEST_NAME:
                raise InputError(f"{self.where} is damaged: a name is longer than {_LONGEST_NAME} bytes")
        return os.fsdecode(bytes(name))

    def skip(self, size: int) -> None:
        """Pass over so many bytes."""
        self._use(size)
        self.file.seek(size, os.SEEK_CUR)

    def _use(self, size: int) -> None:
        if size > self.left:
            raise InputError(f"{self.where} is cut or damaged: {size:,} bytes should follow, and {self.left:,} do")
        self.left -= size
