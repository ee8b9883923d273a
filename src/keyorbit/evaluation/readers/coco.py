"""Keypoints in COCO's JSON (Lin et al. 2014): one object per annotation, cut out about its box.

    FOLDER/annotations/person_keypoints_train2017.json, person_keypoints_val2017.json
    FOLDER/train2017/….jpg, val2017/….jpg

or one JSON file with its pictures beside it, as `keyorbit detect` writes coco.json.
"""

from pathlib import Path
from typing import Any

import numpy as np

from keyorbit.errors import InputError
from keyorbit.evaluation.readers.base import (
    Annotation,
    annotated_objects,
    check_split,
    need_folder,
    read_json,
    square_crop,
)
from keyorbit.objects.dataset import ObjectDataset

YEARS = {"train": "train2017", "test": "val2017"}
PADDING = 0.1


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
        data = read_json(path, "COCO")
        need_folder(pictures, "COCO")
    else:
        pictures, data = path.parent, read_json(path, "COCO")
    try:
        files = {image["id"]: pictures / image["file_name"] for image in data["images"]}
        (names,) = {tuple(category["keypoints"]) for category in data["categories"] if category.get("keypoints")}
        marked = [a for a in data["annotations"] if any(a["keypoints"][2::3]) and not a.get("iscrowd")]
        annotations = [_annotation(a, files[a["image_id"]], len(names)) for a in marked]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not COCO's keypoints of one kind of object: {error!r}") from error
    return annotated_objects(annotations, names, _pairs(names), "COCO")


def _annotation(told: dict[str, Any], picture: Path, count: int) -> Annotation:
    points = np.array(told["keypoints"], float).reshape(count, 3)
    x, y, width, height = (float(value) for value in told["bbox"])
    box = (x, y, x + width, y + height)
    name = f"{picture.stem}_{told['id']}"
    return Annotation(name, picture, points[:, :2], points[:, 2] > 0, box, square_crop(box, PADDING))


def _pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(
        (i, names.index(other))
        for i, name in enumerate(names)
        if name.startswith("left_") and (other := "right_" + name.removeprefix("left_")) in names
    )
