"""COCO keypoints, as CVAT, Label Studio and others export them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from keyorbit.errors import InputError
from keyorbit.objects.points.point import PicturePoint, Text, on_edge
from keyorbit.values import Finite, from_values, short

_Id = int | float | str
# 0 stands for one that is not known.
_Length = Annotated[float, Meta(ge=0, le=1e9)]


@dataclass(frozen=True)
class _Image:
    id: _Id
    file_name: Text
    width: _Length | None = None
    height: _Length | None = None


@dataclass(frozen=True)
class _Category:
    id: _Id
    name: str = ""
    keypoints: tuple[Text, ...] | None = None


@dataclass(frozen=True)
class _Marked:
    image_id: _Id
    category_id: _Id | None = None
    keypoints: tuple[Finite, ...] | None = None
    iscrowd: int | bool | None = None


@dataclass(frozen=True)
class _Coco:
    images: tuple[_Image, ...]
    categories: tuple[_Category, ...]
    annotations: tuple[_Marked, ...]


def read_coco(values: Any, path: Path) -> tuple[PicturePoint, ...]:
    """Read the keypoints in a COCO file's plain values.

    Keypoints of visibility 0 are not marked, 1 hidden, 2 visible. Pixels count from the picture's corner. Groups
    (``iscrowd``) and annotations without keypoints are left out. Keypoints of a category that lists none, as CVAT
    writes points without a skeleton, have the category's name, with a number where there are several. Without a width
    or a height of their picture points are in pixels.

    Raises:
        InputError: it is no COCO, has no keypoints, or has two annotations of a category on one picture.
    """
    told = from_values(_Coco, values, str(path), others=True)
    images = {_key(image.id): image for image in told.images}
    kinds = {_key(kind.id): kind for kind in told.categories}
    seen = set[tuple[str, str]]()
    found = list[PicturePoint]()
    for i, marked in enumerate(told.annotations):
        where = f"{path}: annotations[{i}]"
        if marked.iscrowd or not any((marked.keypoints or ())[2::3]):
            continue
        if (image := images.get(_key(marked.image_id))) is None:
            raise InputError(f"{where} is of image {short(marked.image_id)}, which is not among the images")
        kind = _kind(marked, kinds, where)
        if (pair := (_key(image.id), _key(kind.id))) in seen:
            raise InputError(f"{where}: {image.file_name} has two objects {short(kind.name)}; it must show one")
        seen.add(pair)
        found += _points(marked, image, kind, where)
    if not found:
        raise InputError(f"{path} has no keypoints that are marked")
    return tuple(found)


def _kind(marked: _Marked, kinds: Mapping[str, _Category], where: str) -> _Category:
    """The annotation's category; the only one with keypoints where it has none, as some programs write it.

    So does CVAT of a skeleton that is grouped with a box: its category is the box's.
    """
    kind = kinds.get(_key(marked.category_id))
    listed = [kind for kind in kinds.values() if kind.keypoints]
    if len(listed) == 1 and (kind is None or not kind.keypoints):
        count = len(marked.keypoints or ())
        if kind is None or (count > 3 and count == 3 * len(listed[0].keypoints or ())):
            return listed[0]
    if kind is None:
        raise InputError(f"{where}.category_id cannot be {short(marked.category_id)}; it must be that of a category")
    return kind


def _points(marked: _Marked, image: _Image, kind: _Category, where: str) -> Iterator[PicturePoint]:
    numbers = marked.keypoints or ()
    count = len(numbers) // 3
    names = kind.keypoints or tuple(kind.name if count == 1 else f"{kind.name} {i}" for i in range(1, count + 1))
    if len(numbers) != 3 * len(names):
        raise InputError(
            f"{where}.keypoints has {len(numbers)} numbers; it must have 3 for each of the {len(names)} keypoints of "
            f"{short(kind.name)}"
        )
    for name, x, y, visibility in zip(names, numbers[::3], numbers[1::3], numbers[2::3], strict=True):
        if not visibility:
            continue
        values: dict[str, Any] = {"picture": image.file_name, "name": name, "hidden": visibility == 1}
        if image.width and image.height:
            xy = [on_edge(x / image.width), on_edge(y / image.height)]
            if not all(0 <= share <= 1 for share in xy):
                raise InputError(f"{where}: {short(name)} is outside the picture, at ({x:g}, {y:g}) pixels")
            values |= {"xy": xy, "size": [image.width, image.height]}
        else:
            values |= {"xy": [x, y], "in_pixels": True}
        yield from_values(PicturePoint, values, where)


def _key(number: _Id | None) -> str:
    return str(int(number) if isinstance(number, float) and number.is_integer() else number)
