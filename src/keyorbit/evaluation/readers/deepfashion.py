"""DeepFashion, the subset of Lorenz et al. 2019 (github theRealSuperMario/unsupervised-disentangling).

FOLDER/data_train.csv, data_test.csv       a header, then rows whose second column is the picture's file name
FOLDER/data_train.json, data_test.json     for each row in order {"keypoints": [[x, y], …]} in a 256-pixel square
FOLDER/img/….jpg
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keyorbit.errors import InputError
from keyorbit.evaluation.readers.base import Annotation, annotated_objects, check_split, need_folder
from keyorbit.evaluation.readers.tables import Array, Coordinate, below, csv_rows_of, json_rows_of
from keyorbit.objects.dataset import ObjectDataset

SPLITS = ("train", "test")
SIDE = 256.0


@dataclass(frozen=True)
class _Row:
    index: str
    filename: str


@dataclass(frozen=True)
class _Person:
    keypoints: tuple[tuple[Coordinate, Coordinate], ...]


def read_deepfashion(folder: Path, split: str) -> ObjectDataset:
    """Read people in clothes, cropped and squeezed. The landmarks have numbers as names, and all are known.

    Raises:
        InputError: a file is missing, or the two lists differ in length.
    """
    check_split(split, SPLITS, "DeepFashion")
    table, places = folder / f"data_{split}.csv", folder / f"data_{split}.json"
    rows = csv_rows_of(table, _Row, "DeepFashion")
    people = json_rows_of(places, _Person, "DeepFashion")
    pictures = [below(folder / "img", row.filename.strip(), f"{table}, row {i}") for i, row in enumerate(rows, 1)]
    if len(pictures) != len(people):
        raise InputError(f"{table} names {len(pictures)} pictures, and {places.name} has keypoints of {len(people)}")
    if not people:
        raise InputError(f"{places} lists no person")
    count = len(people[0].keypoints)
    xy = [Array((count, 2)).checked(p.keypoints, f"{places}, item {i}: keypoints") for i, p in enumerate(people)]
    need_folder(folder / "img", "DeepFashion")
    names = tuple(f"landmark {i}" for i in range(count))
    seen = np.ones(len(names), bool)
    found = [Annotation(picture.stem, picture, x, seen, side=SIDE) for picture, x in zip(pictures, xy, strict=True)]
    return annotated_objects(found, names, (), "DeepFashion", table)
