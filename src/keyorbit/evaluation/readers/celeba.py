"""CelebA with the MAFL lists (Liu et al. 2015; Zhang et al. 2014), aligned or as the pictures were found.

FOLDER/Anno/list_landmarks_align_celeba.txt            aligned
FOLDER/Anno/list_landmarks_celeba.txt, list_bbox_celeba.txt    wild
FOLDER/MAFL/training.txt, testing.txt
FOLDER/Img/img_align_celeba_png/000001.png … (or img_align_celeba/000001.jpg …), Img/img_celeba/000001.jpg …
"""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from keyorbit.errors import InputError
from keyorbit.evaluation.readers.base import Annotation, annotated_objects, check_split, need_folder, read_lines
from keyorbit.objects.dataset import ObjectDataset

NAMES = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
PAIRS = ((0, 1), (3, 4))
LISTS = {"train": "training.txt", "test": "testing.txt"}
# StableKeypoints (datasets/celeba.py) leaves out wild pictures of which the face's box covers less than this.
LEAST_FACE = 0.3


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
    tables = [(folder / "Anno" / f"list_landmarks_{'align_' if aligned else ''}celeba.txt", 10)]
    if not aligned:
        tables.append((folder / "Anno" / "list_bbox_celeba.txt", 4))
    found = [_table(path, columns) for path, columns in tables]
    landmarks, boxes = found[0], found[-1]
    numbers = [line.split()[0].split(".")[0] for line in read_lines(folder / "MAFL" / LISTS[split], "CelebA")]
    pictures, suffix = _pictures(folder / "Img", aligned)
    annotations = []
    for number in numbers:
        for (path, _), rows in zip(tables, found, strict=True):
            if number not in rows:
                raise InputError(f"{path} lacks the picture {number}, which MAFL's {LISTS[split]} names")
        picture = pictures / f"{number}{suffix}"
        if aligned or _face_is_large(picture, boxes[number]):
            xy = landmarks[number].reshape(5, 2)
            annotations.append(Annotation(number, picture, xy, np.ones(5, bool)))
    return annotated_objects(annotations, NAMES, PAIRS, "CelebA")


def _table(path: Path, columns: int) -> dict[str, np.ndarray]:
    """Read rows by picture number; the first two lines are their count and the column names."""
    rows = {}
    for line in read_lines(path, "CelebA")[2:]:
        name, *values = line.split()
        try:
            rows[name.split(".")[0]] = np.array([float(value) for value in values[:columns]])
        except ValueError as error:
            raise InputError(f"{path} holds a row that is no picture with numbers: {line.strip()!r}") from error
        if len(values) != columns:
            raise InputError(f"{path} holds a row without {columns} numbers: {line.strip()!r}")
    return rows


def _pictures(folder: Path, aligned: bool) -> tuple[Path, str]:
    if not aligned:
        return need_folder(folder / "img_celeba", "CelebA"), ".jpg"
    if not (folder / "img_align_celeba_png").is_dir() and (folder / "img_align_celeba").is_dir():
        return folder / "img_align_celeba", ".jpg"
    return need_folder(folder / "img_align_celeba_png", "CelebA"), ".png"


def _face_is_large(picture: Path, box: np.ndarray) -> bool:
    try:
        with Image.open(picture) as image:
            return bool(box[2] * box[3] >= LEAST_FACE * image.width * image.height)
    except FileNotFoundError:
        return True  # a missing picture is named with the others
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{picture} cannot be read as a picture: {error}") from error
