"""Marks from COCO's keypoints: which object and which view an annotated picture is, and where a point is in it.

A picture is known by its name: a picture that is an object itself; or ``view_0.png``, ``input.png``, ``cond.png`` or
``grid.png`` in an object's folder (``chair_00000/view_0.png``), also with the folder's name in front
(``chair_00000_view_0.png``), and without it where there is only one object. Label Studio's and CVAT's exports keep
these names, with a prefix or below folders of their own.
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from keyorbit.errors import InputError
from keyorbit.evaluation.readers.coco import CocoPoint, read_coco_points
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.marks import Mark, check_marks
from keyorbit.storage.folder_names import folder_names
from keyorbit.values import short

# What Label Studio puts before the name of an uploaded file.
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
_KIND = re.compile(r"view_(\d{1,4})|input|cond|grid")


def read_coco_marks(path: Path, objects: Sequence[ObjectViews]) -> tuple[Mark, ...]:
    """Read the marks in a COCO file of keypoints.

    Args:
        path: the JSON file.
        objects: whose pictures were annotated; each has a name of its own.

    Raises:
        InputError: the file cannot be read, a picture is none of the objects', a place is outside it, or as
            :func:`keyorbit.objects.marks.check_marks`.
    """
    # An export's pictures have the names of the objects' folders, which any system allows.
    folders = folder_names([thing.name for thing in objects])
    by_name = dict(zip(folders, objects, strict=True)) | {thing.name: thing for thing in objects}
    marks = tuple(_mark(point, by_name, path) for point in read_coco_points(path))
    check_marks(marks, str(path))
    return marks


def _mark(point: CocoPoint, objects: dict[str, ObjectViews], path: Path) -> Mark:
    thing, kind = _picture(point, objects)
    width, height = point.size or _size(thing, kind)
    x, y = point.xy[0] / width, point.xy[1] / height
    view: int | None = None
    if kind == "grid":
        view, x, y = _tile(x, y, thing, width / height)
    elif kind.startswith("view_"):
        view = int(kind.removeprefix("view_"))
    elif kind != "input":
        x, y = _in_square(x, y, thing)
    try:
        return Mark(point.name, thing.name, view, (x, y), hidden=point.hidden)
    except InputError as error:
        raise InputError(f"{point.where}: {error}") from error


def _picture(point: CocoPoint, objects: dict[str, ObjectViews]) -> tuple[ObjectViews, str]:
    """The object that a picture shows, and which of its pictures it is: ``view_0``, ``input``, ``cond`` or ``grid``."""
    parts = PurePosixPath(point.file.replace("\\", "/"))
    last = _UPLOAD.sub("", parts.name)
    stem = PurePosixPath(last).stem
    for name in (last, stem):
        if name in objects:
            return objects[name], "cond"
    only = next(iter(objects.values())) if len({thing.name for thing in objects.values()}) == 1 else None
    if _KIND.fullmatch(stem):
        thing = objects.get(parts.parent.name, only)
        if thing is not None:
            return thing, stem
    for name, thing in sorted(objects.items(), key=lambda item: -len(item[0])):
        rest = stem.removeprefix(name)
        if rest != stem and rest[:1] in ("_", "-", ".") and _KIND.fullmatch(rest[1:]):
            return thing, rest[1:]
    known = list(dict.fromkeys(thing.name for thing in objects.values()))
    few = ", ".join(known[:3]) + (" and more" if known[3:] else "")
    raise InputError(
        f"{point.where} is of {short(point.file)}, which is no picture of the objects ({few}): keep names such as "
        "chair_00000/view_0.png"
    )


def _size(thing: ObjectViews, kind: str) -> tuple[float, float]:
    """Width and height of one of an object's pictures, pixels."""
    if kind == "cond" or thing.views is None:
        return thing.input_image.size if kind != "input" else (min(thing.input_image.size),) * 2
    height, width = thing.views.shape[-2:]
    if kind == "grid":
        rows = len(thing.views) // _columns(thing, None)
        return float(width * _columns(thing, None)), float(height * rows)
    return float(width), float(height)


def _columns(thing: ObjectViews, shape: float | None) -> int:
    """Columns of the grid of an object's views, from its width by its height; those of Zero123++ where not known."""
    count = 1 if thing.views is None else len(thing.views)
    if shape is None:
        return 2 if count % 2 == 0 else 1
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    return min(divisors, key=lambda n: abs(n * n / count - shape))


def _tile(x: float, y: float, thing: ObjectViews, shape: float) -> tuple[int, float, float]:
    """The view in whose tile of the grid a place is, and where in it."""
    columns = _columns(thing, shape)
    rows = (1 if thing.views is None else len(thing.views)) // columns
    column, row = min(int(x * columns), columns - 1), min(int(y * rows), rows - 1)
    return row * columns + column, x * columns - column, y * rows - row


def _in_square(x: float, y: float, thing: ObjectViews) -> tuple[float, float]:
    """A place in shares of the input picture, in the square that places on it are told in."""
    width, height = thing.input_image.size
    left, top, right, bottom = thing.framing.shown
    return (x * width - left) / (right - left), (y * height - top) / (bottom - top)
