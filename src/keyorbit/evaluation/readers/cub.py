"""CUB-200-2011 (Wah et al. 2011): birds, 15 parts; one class, all of them, or the aligned crops.

    FOLDER/CUB_200_2011/images/001.Black_footed_Albatross/….jpg
    FOLDER/CUB_200_2011/images.txt, image_class_labels.txt, train_test_split.txt, bounding_boxes.txt
    FOLDER/CUB_200_2011/parts/parts.txt, part_locs.txt

or, instead of the text files, CMR's cleaned annotations, which StableKeypoints reads:

    FOLDER/CUB_200_2011/cachedir/cub/data/train_cub_cleaned.mat, test_cub_cleaned.mat

cub-aligned also reads FOLDER/cub.h5, which AutoLink's preprocessing makes (with h5py installed).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from PIL import Image

from keyorbit.errors import InputError
from keyorbit.evaluation.readers.base import (
    Annotation,
    Box,
    annotated_objects,
    check_split,
    need_folder,
    read_lines,
    read_mat,
    square_crop,
    squeezed_object,
)
from keyorbit.objects.dataset import ObjectDataset

NAMES = (
    *("back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg", "left wing", "nape"),
    *("right eye", "right leg", "right wing", "tail", "throat"),
)
PAIRS = ((6, 10), (7, 11), (8, 12))
SPLITS = ("train", "test")
# CMR's share of the box's side added all round (StableKeypoints' datasets/cub_parts.py).
PADDING = 0.05
_CLASSES = ("001", "002", "003")


@dataclass(frozen=True, eq=False)
class _Bird:
    """One bird. Pixels are counted from the picture's corner.

    Attributes:
        path: of the picture, below the folder of pictures.
        box: left, top, right, bottom, in pixels.
        parts: x and y in pixels, and visibility, of each part.
    """

    path: str
    box: Box
    parts: Float[ndarray, "15 3"]


def read_cub(folder: Path, split: str, which: str) -> ObjectDataset:
    """Read birds of a class ("001", "002", "003") or of all ("all"): the square about the box, 5 % wider on each side.

    StableKeypoints also jitters and mirrors the train crops. Here a picture is always the same.

    Raises:
        InputError: a file is missing.
    """
    check_split(split, SPLITS, "CUB")
    root = _root(folder)
    birds = [bird for bird in _birds(root, split) if which == "all" or bird.path.startswith(f"{which}.")]
    crops = [square_crop(bird.box, PADDING) for bird in birds]
    return annotated_objects(_annotations(root, birds, crops), NAMES, PAIRS, f"CUB-{which}")


def read_cub_aligned(folder: Path, split: str) -> ObjectDataset:
    """Read all birds: the square about the box, cut off at the picture's edges, and squeezed (AutoLink's crops).

    AutoLink first trims the picture to multiples of 16 pixels. Here nothing is trimmed.

    Raises:
        InputError: a file is missing, or cub.h5 is there and h5py is not installed.
    """
    check_split(split, SPLITS, "CUB")
    if (folder / "cub.h5").is_file():
        return _read_h5(folder / "cub.h5", split)
    root = _root(folder)
    birds = _birds(root, split)
    crops = []
    for bird in birds:
        left, top, right, bottom = square_crop(bird.box, 0.0)
        width, height = _size(root / "images" / bird.path)
        crops.append((max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)))
    return annotated_objects(_annotations(root, birds, crops), NAMES, PAIRS, "CUB-aligned")


def _root(folder: Path) -> Path:
    root = folder if folder.name == "CUB_200_2011" else folder / "CUB_200_2011"
    need_folder(root, "CUB")
    need_folder(root / "images", "CUB")
    return root


def _birds(root: Path, split: str) -> list[_Bird]:
    cleaned = root / "cachedir" / "cub" / "data" / f"{split}_cub_cleaned.mat"
    if not cleaned.is_file():
        return _from_text(root, split)
    found = []
    for bird in np.atleast_1d(read_mat(cleaned, "images", "CUB")):
        try:
            parts = np.array(bird.parts, float).T
            # MATLAB counts pixels from 1.
            box = tuple(float(getattr(bird.bbox, side)) - 1 for side in ("x1", "y1", "x2", "y2"))
            found.append(_Bird(str(bird.rel_path), _as_box(box), np.column_stack([parts[:, :2] - 1, parts[:, 2]])))
        except (AttributeError, IndexError) as error:
            raise InputError(f"{cleaned} is not CMR's: {error}") from error
    return found


def _from_text(root: Path, split: str) -> list[_Bird]:
    paths, training = _rows(root / "images.txt"), _rows(root / "train_test_split.txt")
    boxes, parts = _rows(root / "bounding_boxes.txt"), _parts(root / "parts" / "part_locs.txt")
    wanted = ["1" if split == "train" else "0"]
    found = []
    for number in (number for number in paths if training.get(number) == wanted):
        if number not in boxes or number not in parts:
            lacking = "bounding_boxes.txt" if number not in boxes else "parts/part_locs.txt"
            raise InputError(f"CUB's {lacking} in {root} lacks picture {number}")
        try:
            x, y, width, height = (float(value) for value in boxes[number])
        except ValueError as error:
            raise InputError(f"{root / 'bounding_boxes.txt'} has no box for picture {number}: {error}") from error
        found.append(_Bird(" ".join(paths[number]), (x, y, x + width, y + height), parts[number]))
    return found


def _parts(path: Path) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for line in read_lines(path, "CUB"):
        try:
            number, part, x, y, seen = line.split()
            parts.setdefault(number, np.zeros((len(NAMES), 3)))[int(part) - 1] = float(x), float(y), float(seen)
        except (ValueError, IndexError) as error:
            raise InputError(f"{path} holds a row that is no picture, part, x, y, visible: {line!r}") from error
    return parts


def _rows(path: Path) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in read_lines(path, "CUB")}


def _annotations(root: Path, birds: Sequence[_Bird], crops: Sequence[Box]) -> list[Annotation]:
    return [
        Annotation(
            Path(bird.path).stem, root / "images" / bird.path, bird.parts[:, :2], bird.parts[:, 2] > 0, bird.box, crop
        )
        for bird, crop in zip(birds, crops, strict=True)
    ]


def _size(picture: Path) -> tuple[float, float]:
    if not picture.is_file():
        return np.inf, np.inf  # a missing picture is named with the others
    with Image.open(picture) as image:
        return float(image.width), float(image.height)


def _as_box(values: Sequence[float]) -> Box:
    left, top, right, bottom = values
    return left, top, right, bottom


def _read_h5(path: Path, split: str) -> ObjectDataset:
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"reading {path} needs h5py: pip install 'keyorbit[readers]'") from error
    try:
        with h5py.File(path, "r") as file:
            pictures, places, visible = (np.asarray(file[f"{split}_{part}"]) for part in ("img", "kp", "vis"))
    except (OSError, KeyError) as error:
        raise InputError(f"{path} is not AutoLink's cub.h5 ({split}_img, {split}_kp, {split}_vis): {error}") from error

    def make(i: int) -> Any:
        image = Image.fromarray(pictures[i].transpose(1, 2, 0))
        # Positions are row, column in the unit square.
        xy = places[i][:, ::-1] * [image.width, image.height]
        return squeezed_object(f"{split}_{i:05d}", image, xy, visible[i] > 0, NAMES, PAIRS)

    return ObjectDataset(len(pictures), make)
