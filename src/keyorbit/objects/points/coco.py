"""COCO keypoints, as CVAT, Label Studio and others export them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keyorbit.errors import InputError
from keyorbit.objects.points.coco_records import Coco, CocoAnnotation, CocoCategory, CocoImage, id_text
from keyorbit.objects.points.point import PicturePoint, on_edge
from keyorbit.values import from_values, short


def read_coco(values: Any, path: Path) -> tuple[PicturePoint, ...]:
    """Read the keypoints in a COCO file's plain values.

    Keypoints of visibility 0 are not marked, 1 hidden, 2 visible. Pixels count from the picture's corner. Groups
    (``iscrowd``) and annotations without keypoints are left out. Keypoints of a category that lists none, as CVAT
    writes points without a skeleton, have the category's name, with a number where there are several. Without a width
    or a height of their picture points are in pixels.

    Raises:
        InputError: it is no COCO, has no keypoints, or has two annotations of a category on one picture.
    """
    told = from_values(Coco, values, str(path), others=True)
    images = {id_text(image.id): image for image in told.images}
    kinds = {id_text(kind.id): kind for kind in told.categories}
    seen = set[tuple[str, str]]()
    found = list[PicturePoint]()
    for i, marked in enumerate(told.annotations):
        where = f"{path}: annotations[{i}]"
        if marked.iscrowd or not marked.is_marked:
            continue
        if (image := images.get(id_text(marked.image_id))) is None:
            raise InputError(f"{where} is of image {short(marked.image_id)}, which is not among the images")
        kind = _kind(marked, kinds, where)
        if (pair := (id_text(image.id), id_text(kind.id))) in seen:
            raise InputError(f"{where}: {image.file_name} has two objects {short(kind.name)}; it must show one")
        seen.add(pair)
        found += _points(marked, image, kind, where)
    if not found:
        raise InputError(f"{path} has no keypoints that are marked")
    return tuple(found)


def _kind(marked: CocoAnnotation, kinds: Mapping[str, CocoCategory], where: str) -> CocoCategory:
    """The annotation's category; the only one with keypoints where it has none, as some programs write it.

    So does CVAT of a skeleton that is grouped with a box: its category is the box's.
    """
    kind = kinds.get(id_text(marked.category_id))
    listed = [kind for kind in kinds.values() if kind.keypoints]
    if len(listed) == 1 and (kind is None or not kind.keypoints):
        count = len(marked.keypoints or ())
        if kind is None or (count > 3 and count == 3 * len(listed[0].keypoints or ())):
            return listed[0]
    if kind is None:
        raise InputError(f"{where}.category_id cannot be {short(marked.category_id)}; it must be that of a category")
    return kind


def _points(marked: CocoAnnotation, image: CocoImage, kind: CocoCategory, where: str) -> Iterator[PicturePoint]:
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
        if image.size is not None:
            width, height = image.size
            xy = [on_edge(x / width), on_edge(y / height)]
            if not all(0 <= share <= 1 for share in xy):
                raise InputError(f"{where}: {short(name)} is outside the picture, at ({x:g}, {y:g}) pixels")
            values |= {"xy": xy, "size": [width, height]}
        else:
            values |= {"xy": [x, y], "in_pixels": True}
        yield from_values(PicturePoint, values, where)
