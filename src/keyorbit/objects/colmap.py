"""Read the cameras and images of a COLMAP model, in its text or its binary format, and find models in a project.

Source: COLMAP's documentation, "Output Format". Points, rigs and frames are skipped: images have their poses.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Annotated, Any, TypeVar

from msgspec import Meta

from keyorbit.errors import InputError
from keyorbit.geometry.lenses import MODELS, Intrinsics, intrinsics_of
from keyorbit.geometry.matrices import COLMAP, Coordinate, Row4
from keyorbit.objects.colmap_binary import LONGEST_NAME, binary_cameras, binary_images
from keyorbit.objects.shots import Shot, Shots
from keyorbit.storage.content import text_of
from keyorbit.values import from_values

_CAMERA = ("number", "model", "width", "height", "parameters")
_IMAGE = ("number", "qw", "qx", "qy", "qz", "tx", "ty", "tz", "camera", "name")
# Where a project keeps its models, each of them directly or in folders 0, 1, …; the undistorted ones first.
_PLACES = (".", "sparse", "colmap/sparse", "dense/sparse", "dense/0/sparse", "dense", "distorted/sparse", "colmap")
# How deep elsewhere a model is looked for, to be named.
_LEVELS = ("*", "*/*", "*/*/*")

Identifier = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Pixels = Annotated[float, Meta(ge=1, le=2**31 - 1)]


@dataclass(frozen=True)
class ColmapCamera:
    """A camera.

    Attributes:
        number: CAMERA_ID.
        model: one of :data:`keyorbit.geometry.lenses.MODELS`, or another, which no photograph in use may have.
        width: pixels.
        height: pixels.
        parameters: of the model, in its order; what follows them is not used.

    Raises:
        InputError: parameters are missing.
    """

    number: Identifier
    model: str
    width: Pixels
    height: Pixels
    parameters: tuple[Coordinate, ...]

    def __post_init__(self) -> None:
        if self.model in MODELS and len(self.parameters) < self.needed:
            raise InputError(f"a {self.model} camera has {self.needed} parameters, not {len(self.parameters)}")

    @property
    def needed(self) -> int:
        """Number of the model's parameters."""
        return sum(MODELS[self.model]) + 2

    @property
    def lens(self) -> Intrinsics | str:
        """The lens, or why there is none."""
        if self.model not in MODELS:
            return f"it is a {short(self.model)[1:-1]} camera; there are: {', '.join(MODELS)}"
        return intrinsics_of(self.model, self.width, self.height, self.parameters[: self.needed])


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
    name: Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME)]

    def __post_init__(self) -> None:
        if math.hypot(self.qw, self.qx, self.qy, self.qz) < 1e-6:
            raise InputError("qw, qx, qy, qz are all 0, which is no rotation")

    @property
    def world_to_camera(self) -> tuple[Row4, Row4, Row4, Row4]:
        """Rows of the rigid transform."""
        length = math.hypot(self.qw, self.qx, self.qy, self.qz)
        w, x, y, z = (part / length for part in (self.qw, self.qx, self.qy, self.qz))
        return (
            (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), self.tx),
            (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x), self.ty),
            (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y), self.tz),
            (0.0, 0.0, 0.0, 1.0),
        )


Item = TypeVar("Item", ColmapCamera, ColmapImage)
# Yields the place of each row in words, and its values.
Rows = Callable[[Path], Iterator[tuple[str, Sequence[Any]]]]


def colmap_models(folder: Path) -> list[Path]:
    """Return the folders of the models in a project, the likeliest first; of a model's own folder, that one.

    Raises:
        InputError: there are none.
    """
    if _files(folder):
        return [folder]
    found = list[Path]()
    for base in (folder / place for place in _PLACES):
        if base.is_dir():
            numbered = sorted(
                (path for path in base.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name)
            )
            found += [path for path in (base, *numbered) if path not in found and _files(path)]
    if found:
        return found
    deeper = (path for level in _LEVELS for path in sorted(folder.glob(level)) if path.is_dir())
    if model := next((path for path in deeper if _files(path)), None):
        raise InputError(f"{folder} has a COLMAP model in {model}, where none is looked for: give that folder")
    if data := next((path for path in (*folder.glob("*.db"), *folder.glob("*/*.db"))), None):
        raise InputError(f"{folder} holds a database of COLMAP's, {data.name}, but no model: its mapper makes one")
    raise InputError(
        f"{folder} holds no COLMAP model, which is cameras.txt and images.txt, or cameras.bin and images.bin, there or "
        "in sparse/0; and no transforms.json"
    )


def read_colmap(folder: Path) -> Shots:
    """Read a model's photographs; from text where both formats are there.

    Raises:
        InputError: files are missing, damaged or cut, or two have the same number or name.
    """
    files = _files(folder)
    if files is None:
        raise InputError(
            f"{folder} holds no COLMAP model: it needs cameras.txt and images.txt, or cameras.bin and images.bin"
        )
    inner, outer = files
    cameras = _by_number(inner, _made(ColmapCamera, _CAMERA, inner, _text_cameras, binary_cameras))
    images = _by_number(outer, _made(ColmapImage, _IMAGE, outer, _text_images, binary_images))
    found = dict[str, Shot]()
    for image in images.values():
        if image.camera not in cameras:
            raise InputError(f"{outer}: camera {image.camera} of image {image.number} is not in {inner.name}")
        if image.name in found:
            raise InputError(f"{outer} has two images with the name {short(image.name)}")
        found[image.name] = Shot(image.name, image.world_to_camera, cameras[image.camera].lens)
    return Shots(f"the COLMAP model in {folder}", tuple(found.values()), COLMAP)


def _files(folder: Path) -> tuple[Path, Path] | None:
    """The files of cameras and images: both of one kind if there are, else one of each."""
    for inner, outer in (("txt", "txt"), ("bin", "bin"), ("txt", "bin"), ("bin", "txt")):
        both = folder / f"cameras.{inner}", folder / f"images.{outer}"
        if all(path.exists() for path in both):
            return both
    return None


def _made(kind: type[Item], names: Sequence[str], path: Path, text: Rows, binary: Rows) -> Iterator[Item]:
    for where, values in (text if path.suffix == ".txt" else binary)(path):
        yield from_values(kind, dict(zip(names, values, strict=False)), where)


def _by_number(path: Path, items: Iterable[Item]) -> dict[int, Item]:
    found: dict[int, Item] = {}
    for item in items:
        if item.number in found:
            raise InputError(f"{path} has the number {item.number} twice")
        found[item.number] = item
    return found


def _text_cameras(path: Path) -> Iterator[tuple[str, Sequence[Any]]]:
    for where, line in _lines(path):
        if line:
            words = line.split()
            # The model is a name, even where it looks like a number.
            head = [*map(_value, words[:1]), *words[1:2], *map(_value, words[2:4])]
            yield where, [*head, [*map(_value, words[4:])]] if len(head) == 4 else head


def _text_images(path: Path) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield the rows of images, each of which may be followed by a row of points, an empty one, or none."""
    points = False  # whether they may come next
    for where, line in _lines(path):
        if points and _is_points(line):
            points = False
        elif line:
            words = line.split(maxsplit=len(_IMAGE) - 1)
            yield where, [*map(_value, words[:9]), *words[9:]]
            points = True


def _is_points(line: str) -> bool:
    """Whether a row that may be one of points is one: x, y, POINT3D_ID, …. A row of an image ends with a name.

    Some programs write no rows of points. An image's row has ten words, if not more, and ten are no points.
    """
    words = line.split()
    return len(words) != len(_IMAGE) and all(isinstance(_value(word), int | float) for word in words)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of a file that are no comments, without spaces at their ends, with their places in words."""
    for number, line in enumerate(text_of(path).split("\n"), 1):
        line = line.strip()
        if not line.startswith("#"):
            yield f"{path}, line {number}", line


def _value(word: str) -> int | float | str:
    """Return the number that a word stands for, or else the word, which no number's field takes."""
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word
