"""CelebA with the MAFL lists (Liu et al. 2015; Zhang et al. 2014), aligned or as the pictures were found.

FOLDER/Anno/list_landmarks_align_celeba.txt            aligned
FOLDER/Anno/list_landmarks_celeba.txt, list_bbox_celeba.txt    wild
FOLDER/MAFL/training.txt, testing.txt
FOLDER/Img/img_align_celeba_png/000001.png … (or img_align_celeba/000001.jpg …), Img/img_celeba/000001.jpg …
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from keyorbit.errors import InputError
from keyorbit.evaluation.readers.base import Annotation, annotated_objects, check_split, need_folder, picture_size
from keyorbit.evaluation.readers.tables import Coordinate, below, rows_of
from keyorbit.objects.dataset import ObjectDataset

NAMES = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
PAIRS = ((0, 1), (3, 4))
LISTS = {"train": "training.txt", "test": "testing.txt"}
# StableKeypoints (datasets/celeba.py) leaves out wild pictures of which the face's box covers less than this.
LEAST_FACE = 0.3


@dataclass(frozen=True)
class _Listed:
    """A row of MAFL's lists."""

    image_id: str


@dataclass(frozen=True)
class _Face(_Listed):
    """Positions in pixels."""

    lefteye_x: Coordinate
    lefteye_y: Coordinate
    righteye_x: Coordinate
    righteye_y: Coordinate
    nose_x: Coordinate
    nose_y: Coordinate
    leftmouth_x: Coordinate
    leftmouth_y: Coordinate
    rightmouth_x: Coordinate
    rightmouth_y: Coordinate


@dataclass(frozen=True)
class _Box(_Listed):
    """A face's box, in pixels. Some published ones are empty."""

    x_1: Coordinate
    y_1: Coordinate
    width: Coordinate
    height: Coordinate


Row = TypeVar("Row", bound=_Listed)


def read_celeba_aligned(folder: Path, split: str) -> ObjectDataset:
    """Read MAFL's pictures, aligned and cropped. The landmarks are eyes, nose and corners of the mouth.

    Raises:
        InputError: a file is missing.
    """
    return _read(folder, split, aligned=True)


def read_celeba_wild(folder: Path, split: str) -> ObjectDataset:
    """Read MAFL's original pictures in which the face covers at least 30 % of the picture, as in StableKeypoints.

    Raises:
        InputError: a file is missing.
    """
    return _read(folder, split, aligned=False)


def _read(folder: Path, split: str, aligned: bool) -> ObjectDataset:
    check_split(split, LISTS, "CelebA")
    faces_file = folder / "Anno" / f"list_landmarks_{'align_' if aligned else ''}celeba.txt"
    boxes_file = folder / "Anno" / "list_bbox_celeba.txt"
    faces, boxes = _table(faces_file, _Face), {} if aligned else _table(boxes_file, _Box)
    listed = folder / "MAFL" / LISTS[split]
    numbers = [_number(row) for row in rows_of(listed, _Listed, "CelebA")]
    pictures, suffix = _pictures(folder / "Img", aligned)
    annotations = []
    for number in numbers:
        if number not in faces or not (aligned or number in boxes):
            path = boxes_file if number in faces else faces_file
            raise InputError(f"{path} lacks the picture {number}, which MAFL's {LISTS[split]} names")
        picture = below(pictures, f"{number}{suffix}", str(listed))
        if aligned or _face_is_large(picture, boxes[number]):
            xy = np.array([value for name, value in vars(faces[number]).items() if name != "image_id"]).reshape(5, 2)
            annotations.append(Annotation(number, picture, xy, np.ones(5, bool)))
    return annotated_objects(annotations, NAMES, PAIRS, "CelebA", listed)


def _table(path: Path, kind: type[Row]) -> dict[str, Row]:
    """Read rows by picture number; the first two lines are their count and the column names."""
    return {_number(row): row for row in rows_of(path, kind, "CelebA", skip=2)}


def _number(row: _Listed) -> str:
    return row.image_id.split()[0].split(".")[0]


def _pictures(folder: Path, aligned: bool) -> tuple[Path, str]:
    if not aligned:
        return need_folder(folder / "img_celeba", "CelebA"), ".jpg"
    if not (folder / "img_align_celeba_png").is_dir() and (folder / "img_align_celeba").is_dir():
        return folder / "img_align_celeba", ".jpg"
    return need_folder(folder / "img_align_celeba_png", "CelebA"), ".png"


def _face_is_large(picture: Path, box: _Box) -> bool:
    if not picture.is_file():
        return True  # a missing picture is named with the others
    width, height = picture_size(picture)
    return box.width * box.height >= LEAST_FACE * width * height
