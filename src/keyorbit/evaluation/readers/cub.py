"""CUB-200-2011 (Wah et al. 2011): birds, 15 parts; one class, all of them, or the aligned crops.

    FOLDER/CUB_200_2011/images/001.Black_footed_Albatross/….jpg
    FOLDER/CUB_200_2011/images.txt, image_class_labels.txt, train_test_split.txt, bounding_boxes.txt
    FOLDER/CUB_200_2011/parts/parts.txt, part_locs.txt

or, instead of the text files, CMR's cleaned annotations, which StableKeypoints reads:

    FOLDER/CUB_200_2011/cachedir/cub/data/train_cub_cleaned.mat, test_cub_cleaned.mat

cub-aligned also reads FOLDER/cub.h5, which AutoLink's preprocessing makes (with h5py installed).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float
from msgspec import Meta
from numpy import ndarray
from PIL import Image

from keyorbit.errors import InputError
from keyorbit.evaluation.readers.base import (
    Annotation,
    Box,
    annotated_object,
    annotated_objects,
    check_known,
    check_split,
    mirrored,
    need_folder,
    picture_size,
    square_crop,
    squeezed_object,
)
from keyorbit.evaluation.readers.hdf5 import h5_arrays
from keyorbit.evaluation.readers.tables import Array, Coordinate, Length, below, read_mat, rows_of
from keyorbit.objects.dataset import ObjectDataset, ObjectViews

NAMES = (
    *("back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg", "left wing", "nape"),
    *("right eye", "right leg", "right wing", "tail", "throat"),
)
PAIRS = ((6, 10), (7, 11), (8, 12))
SPLITS = ("train", "test")
# CMR's share of the box's side added all round (StableKeypoints' datasets/cub_parts.py).
PADDING = 0.05
JITTER = 0.05
_SIDES = ("x1", "y1", "x2", "y2")
_PARTS = "parts/part_locs.txt"


@dataclass(frozen=True)
class _Picture:
    number: str
    path: str


@dataclass(frozen=True)
class _Split:
    number: str
    training: Annotated[int, Meta(ge=0, le=1)]


@dataclass(frozen=True)
class _Boxed:
    """In pixels."""

    number: str
    x: Coordinate
    y: Coordinate
    width: Length
    height: Length


@dataclass(frozen=True)
class _Part:
    """In pixels."""

    number: str
    part: Annotated[int, Meta(ge=1, le=len(NAMES))]
    x: Coordinate
    y: Coordinate
    visible: Coordinate


@dataclass(frozen=True, eq=False)
class _Bird:
    """One bird. Pixels are counted from the picture's corner.

    Attributes:
        path: of the picture.
        kind: the picture's name, which begins with the number of its class.
        box: left, top, right, bottom, in pixels.
        parts: x and y in pixels, and visibility, of each part.
    """

    path: Path
    kind: str
    box: Box
    parts: Float[ndarray, "15 3"]


def read_cub(folder: Path, split: str, which: str) -> ObjectDataset:
    """Read birds of a class ("001", "002", "003") or of all ("all"): the square about the box, 5 % wider on each side.

    Where train birds are drawn, each side of the box is also moved by up to 5 %, and half of the crops are mirrored.

    Raises:
        InputError: a file is missing.
    """
    check_split(split, SPLITS, "CUB")
    root = _root(folder)
    birds = [bird for bird in _birds(root, split) if which == "all" or bird.kind.startswith(f"{which}.")]
    annotations = _annotations(birds, [cmr_square(bird.box) for bird in birds])
    drawn = partial(_drawn_bird, annotations, birds) if split == "train" else None
    return annotated_objects(annotations, NAMES, PAIRS, f"CUB-{which}", root, drawn)


def _drawn_bird(
    annotations: Sequence[Annotation], birds: Sequence[_Bird], i: int, generator: torch.Generator
) -> ObjectViews:
    numbers = torch.rand(5, generator=generator).tolist()
    thing = annotated_object(replace(annotations[i], crop=cmr_square(birds[i].box, numbers[:4])), NAMES, PAIRS)
    return mirrored(thing) if numbers[4] > 0.5 else thing


def cmr_square(box: Box, numbers: Sequence[float] = (0.5, 0.5, 0.5, 0.5)) -> Box:
    """The square crop about a box in whole pixels, the last ones included, as StableKeypoints' datasets/cub_parts.py.

    ``numbers`` of 0…1 move the left, top, right and bottom side, which are 5 % further out, by up to 5 % more or less.
    """
    size = (box[2] - box[0] + 1, box[3] - box[1] + 1) * 2
    sides = []
    for i, (side, length, number) in enumerate(zip(box, size, numbers, strict=True)):
        out = PADDING * length + (1 - 2 * number) * JITTER * length
        sides.append(round(side - out if i < 2 else side + out))
    left, top, right, bottom = sides
    across, down = right - left + 1, bottom - top + 1
    longest = max(across, down)
    left, top = left - round((longest - across) / 2), top - round((longest - down) / 2)
    return float(left), float(top), float(left + longest), float(top + longest)


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
        width, height = picture_size(bird.path) if bird.path.is_file() else (np.inf, np.inf)  # it is named with others
        crops.append((max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)))
    return annotated_objects(_annotations(birds, crops), NAMES, PAIRS, "CUB-aligned", root)


def _root(folder: Path) -> Path:
    root = folder if folder.name == "CUB_200_2011" else folder / "CUB_200_2011"
    need_folder(root, "CUB")
    need_folder(root / "images", "CUB")
    return root


def _birds(root: Path, split: str) -> list[_Bird]:
    cleaned = root / "cachedir" / "cub" / "data" / f"{split}_cub_cleaned.mat"
    if not cleaned.is_file():
        return _from_text(root, split)
    return [
        _cleaned(bird, root, f"{cleaned}: images[{i}]")
        for i, bird in enumerate(np.atleast_1d(read_mat(cleaned, "images", "CUB")).ravel())
    ]


def _cleaned(bird: Any, root: Path, where: str) -> _Bird:
    """A bird of CMR's file, which counts pixels from 1."""
    told, box = vars(bird) if hasattr(bird, "_fieldnames") else {}, None
    lacking = [name for name in ("rel_path", "bbox", "parts") if name not in told]
    if not lacking:
        box = told["bbox"]
        lacking = [f"bbox.{side}" for side in _SIDES if not hasattr(box, side)]
    if lacking:
        raise InputError(f"{where} lacks {lacking[0]}; it must be a structure with rel_path, bbox and parts")
    sides = Array((4,)).checked([getattr(box, side) for side in _SIDES], f"{where}.bbox") - 1
    parts = Array((3, len(NAMES)), unknown=True).checked(told["parts"], f"{where}.parts").T
    xy, seen = parts[:, :2] - 1, parts[:, 2]
    check_known(xy, seen > 0, f"{where}.parts")
    name = str(told["rel_path"])
    return _Bird(below(root / "images", name, where), name, _as_box(sides.tolist()), np.column_stack([xy, seen]))


def _from_text(root: Path, split: str) -> list[_Bird]:
    files = {name: root / name for name in ("images.txt", "train_test_split.txt", "bounding_boxes.txt", _PARTS)}
    training = {row.number: row.training for row in rows_of(files["train_test_split.txt"], _Split, "CUB")}
    boxes = {row.number: row for row in rows_of(files["bounding_boxes.txt"], _Boxed, "CUB")}
    parts: dict[str, ndarray] = {}
    for row in rows_of(files[_PARTS], _Part, "CUB"):
        parts.setdefault(row.number, np.zeros((len(NAMES), 3)))[row.part - 1] = row.x, row.y, row.visible
    found = []
    for told in rows_of(files["images.txt"], _Picture, "CUB"):
        if training.get(told.number) != (split == "train"):
            continue
        if told.number not in boxes or told.number not in parts:
            lacking = "bounding_boxes.txt" if told.number not in boxes else _PARTS
            raise InputError(f"{files[lacking]} lacks picture {told.number}")
        box = boxes[told.number]
        corners = (box.x, box.y, box.x + box.width, box.y + box.height)
        path = below(root / "images", told.path, f"{files['images.txt']}: picture {told.number}")
        found.append(_Bird(path, told.path, corners, parts[told.number]))
    return found


def _annotations(birds: Sequence[_Bird], crops: Sequence[Box]) -> list[Annotation]:
    return [
        Annotation(bird.path.stem, bird.path, bird.parts[:, :2], bird.parts[:, 2] > 0, bird.box, crop)
        for bird, crop in zip(birds, crops, strict=True)
    ]


def _as_box(values: Sequence[float]) -> Box:
    left, top, right, bottom = values
    return float(left), float(top), float(right), float(bottom)


def _read_h5(path: Path, split: str) -> ObjectDataset:
    image, place, seen = (f"{split}_{part}" for part in ("img", "kp", "vis"))
    wanted = {image: Array((None, 3, None, None)), place: Array((None, len(NAMES), 2)), seen: Array((None, len(NAMES)))}
    found = h5_arrays(path, wanted)
    pictures, visible = found[image], found[seen] > 0
    places = Array(wanted[place].shape, unknown=True).checked(found[place], f"{path}: {place}")
    if pictures.dtype != np.uint8:
        raise InputError(f"{path}: {image} holds values of type {pictures.dtype}; it must hold bytes (uint8)")
    if not len(pictures) == len(places) == len(visible):
        raise InputError(
            f"{path}: {image}, {place} and {seen} differ in length; there must be one of each for a picture"
        )
    check_known(places, visible, f"{path}: {place}")
    return ObjectDataset(len(pictures), partial(_stored_bird, split, pictures, places, visible))


def _stored_bird(split: str, pictures: ndarray, places: ndarray, visible: ndarray, i: int) -> ObjectViews:
    picture = Image.fromarray(pictures[i].transpose(1, 2, 0))
    # Positions are row, column in the unit square.
    xy = places[i][:, ::-1] * [picture.width, picture.height]
    return squeezed_object(f"{split}_{i:05d}", picture, xy, visible[i], NAMES, PAIRS)
