"""DeepFashion, the subset of Lorenz et al. 2019 (github theRealSuperMario/unsupervised-disentangling).

FOLDER/data_train.csv, data_test.csv       a header, then rows whose second column is the picture's file name
FOLDER/data_train.json, data_test.json     for each row in order {"keypoints": [[x, y], …]} in a 256-pixel square
FOLDER/img/….jpg
"""

import csv
from pathlib import Path

import numpy as np

from keyorbit.errors import InputError
from keyorbit.evaluation.readers.base import (
    Annotation,
    annotated_objects,
    check_split,
    need_file,
    need_folder,
    read_json,
)
from keyorbit.objects.dataset import ObjectDataset

SPLITS = ("train", "test")
SIDE = 256.0


def read_deepfashion(folder: Path, split: str) -> ObjectDataset:
    """Read people in clothes, cropped and squeezed. The landmarks have numbers as names, and all are known.

    Raises:
        InputError: a file is missing, or the two lists differ in length.
    """
    check_split(split, SPLITS, "DeepFashion")
    table, places = folder / f"data_{split}.csv", folder / f"data_{split}.json"
    with need_file(table, "DeepFashion").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    try:
        pictures = [folder / "img" / row[1].strip() for row in rows if row]
        xy = np.array([entry["keypoints"] for entry in read_json(places, "DeepFashion")], float)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{table} and {places.name} are not DeepFashion's lists: {error}") from error
    if len(pictures) != len(xy) or xy.ndim != 3 or xy.shape[2] != 2:
        raise InputError(f"{table} names {len(pictures)} pictures, and {places.name} has keypoints of {len(xy)}")
    need_folder(folder / "img", "DeepFashion")
    names = tuple(f"landmark {i}" for i in range(xy.shape[1]))
    seen = np.ones(len(names), bool)
    found = [Annotation(picture.stem, picture, x, seen, side=SIDE) for picture, x in zip(pictures, xy, strict=True)]
    return annotated_objects(found, names, (), "DeepFashion")
