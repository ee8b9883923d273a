"""Taichi-HD with the landmarks of Siarohin et al. 2021 (github AliaksandrSiarohin/motion-cosegmentation).

    FOLDER/eval_images/taichi-256/train/….png, test/….png
    FOLDER/landmark/taichi_train_gt.json, taichi_test_gt.json

Published are taichi_train_gt.pkl and taichi_test_gt.pkl, tables with the columns file_name and value. A pickle can run
any program, so none is read here; convert it once where you trust it:

    python -c "import pandas; pandas.read_pickle('taichi_test_gt.pkl').to_json('taichi_test_gt.json', orient='records')"
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from keyorbit.errors import InputError
from keyorbit.evaluation.readers.base import (
    Annotation,
    annotated_object,
    annotated_objects,
    check_split,
    mirrored,
    need_folder,
)
from keyorbit.evaluation.readers.tables import Array, below, json_rows_of
from keyorbit.objects.dataset import ObjectDataset, ObjectViews

SPLITS = ("train", "test")
SIDE = 256.0


@dataclass(frozen=True)
class _Frame:
    """A picture and its landmarks, as pairs or one after the other."""

    file_name: str
    value: tuple[Any, ...]


def read_taichi(folder: Path, split: str) -> ObjectDataset:
    """Read people who practise Taichi. Landmarks with a coordinate ≤ 0 are unknown, as in StableKeypoints.

    Where train pictures are drawn, half of them are mirrored, and have no landmarks.

    Raises:
        InputError: a file is missing, or the landmarks are there only as a pickle.
    """
    check_split(split, SPLITS, "Taichi-HD")
    path = folder / "landmark" / f"taichi_{split}_gt.json"
    pickle = path.with_suffix(".pkl")
    if pickle.is_file() and not path.is_file():
        raise InputError(
            f"{pickle} is a pickle, which can run any program and is never read here; convert it where you trust it: "
            f"python -c \"import pandas; pandas.read_pickle('{pickle.name}').to_json('{path.name}', orient='records')\""
        )
    rows = json_rows_of(path, _Frame, "Taichi-HD")
    pictures = need_folder(folder / "eval_images" / "taichi-256" / split, "Taichi-HD")
    annotations: list[Annotation] = []
    for i, row in enumerate(rows):
        where = f"{path}, item {i}"
        flat = not isinstance(row.value[0] if row.value else [], list)
        told = Array((None,) if flat else (None, 2), unknown=True).checked(row.value, f"{where}: value")
        if told.size % 2 or (annotations and told.size != annotations[0].xy.size):
            raise InputError(f"{where}: value has {told.size} numbers; it must have two for each landmark, as item 0")
        xy, picture = told.reshape(-1, 2), below(pictures, row.file_name, where)
        annotations.append(Annotation(picture.stem, picture, xy, np.asarray(np.all(xy > 0, axis=1)), side=SIDE))
    names = tuple(f"landmark {i}" for i in range(len(annotations[0].xy))) if annotations else ()
    drawn = partial(_drawn_person, annotations, names) if split == "train" else None
    return annotated_objects(annotations, names, (), "Taichi-HD", path, drawn)


def _drawn_person(
    annotations: Sequence[Annotation], names: tuple[str, ...], i: int, generator: torch.Generator
) -> ObjectViews:
    thing = annotated_object(annotations[i], names, ())
    flip = torch.rand((), generator=generator) < 0.5
    return mirrored(replace(thing, truth=None)) if flip else thing
