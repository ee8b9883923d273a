"""Keypoints in COCO's JSON (Lin et al. 2014): one object per annotation, cut out about its box.

    FOLDER/annotations/person_keypoints_train2017.json, person_keypoints_val2017.json
    FOLDER/train2017/….jpg, val2017/….jpg

or one JSON file with its pictures beside it, as `keyorbit detect` writes coco.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keyorbit.errors import InputError
from keyorbit.evaluation.readers.base import Annotation, annotated_objects, check_split, need_folder, square_crop
from keyorbit.evaluation.readers.tables import Coordinate, Length, below, json_of
from keyorbit.objects.dataset import ObjectDataset
from keyorbit.values import from_values

YEARS = {"train": "train2017", "test": "val2017"}
PADDING = 0.1


@dataclass(frozen=True)
class _Image:
    id: int | str
    file_name: str


@dataclass(frozen=True)
class _Category:
    keypoints: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _Marked:
    """x, y and visibility of each landmark, and x, y, width and height of the box, in pixels."""

    id: int | str
    image_id: int | float | str
    keypoints: tuple[Coordinate, ...]
    bbox: tuple[Coordinate, Coordinate, Length, Length] | None = None
    iscrowd: int | bool | None = None


@dataclass(frozen=True)
class _Coco:
    images: tuple[_Image, ...]
    categories: tuple[_Category, ...]
    annotations: tuple[_Marked, ...]


def read_coco(path: Path, split: str) -> ObjectDataset:
    """Read every annotated object that has a landmark: the square about its box, 10 % wider on each side.

    Landmarks of visibility 0 are unknown; 1 and 2 (hidden, visible) are known. Groups ("iscrowd") are left out.

    Raises:
        InputError: a file is missing, or the JSON is not COCO's keypoints.
    """
    check_split(split, YEARS, "COCO")
    if path.is_dir():
        pictures = path / YEARS[split]
        path = path / "annotations" / f"person_keypoints_{YEARS[split]}.json"
        data = json_of(path, "COCO")
        need_folder(pictures, "COCO")
    else:
        pictures, data = path.parent, json_of(path, "COCO")
    told = from_values(_Coco, data, str(path), others=True)
    kinds = {category.keypoints for category in told.categories if category.keypoints}
    if len(kinds) != 1:
        raise InputError(f"{path}: categories have {len(kinds)} different lists of keypoints; there must be one")
    (names,) = kinds
    files: dict[int | float | str, Path] = {
        image.id: below(pictures, image.file_name, f"{path}: images[{i}]") for i, image in enumerate(told.images)
    }
    annotations = [
        _annotation(marked, files, len(names), f"{path}: annotations[{i}]")
        for i, marked in enumerate(told.annotations)
        if any(marked.keypoints[2::3]) and not marked.iscrowd
    ]
    return annotated_objects(annotations, names, _pairs(names), "COCO", path)


def _annotation(told: _Marked, files: Mapping[int | float | str, Path], count: int, where: str) -> Annotation:
    if told.image_id not in files:
        raise InputError(f"{where} is of image {told.image_id!r}, which is not among the images")
    if len(told.keypoints) != 3 * count:
        raise InputError(f"{where}.keypoints has {len(told.keypoints)} numbers; it must have 3 for each of {count}")
    if told.bbox is None:
        raise InputError(f"{where} lacks bbox")
    points = np.array(told.keypoints, float).reshape(count, 3)
    x, y, width, height = told.bbox
    box, picture = (x, y, x + width, y + height), files[told.image_id]
    name = f"{picture.stem}_{told.id}"
    return Annotation(name, picture, points[:, :2], points[:, 2] > 0, box, square_crop(box, PADDING))


def _pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(
        (i, names.index(other))
        for i, name in enumerate(names)
        if name.startswith("left_") and (other := "right_" + name.removeprefix("left_")) in names
    )
