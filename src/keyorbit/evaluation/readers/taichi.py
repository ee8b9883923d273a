"""Taichi-HD with the landmarks of Siarohin et al. 2021 (github AliaksandrSiarohin/motion-cosegmentation).

    FOLDER/eval_images/taichi-256/train/….png, test/….png
    FOLDER/landmark/taichi_train_gt.json, taichi_test_gt.json

Published are taichi_train_gt.pkl and taichi_test_gt.pkl, tables with the columns file_name and value. A pickle can run
any program, so none is read here; convert it once where you trust it:

    python -c "import pandas; pandas.read_pickle('taichi_test_gt.pkl').to_json('taichi_test_gt.json', orient='records')"
"""

from pathlib import Path

import numpy as np

from keyorbit.errors import InputError
from keyorbit.evaluation.readers.base import Annotation, annotated_objects, check_split, need_folder, read_json
from keyorbit.objects.dataset import ObjectDataset

SPLITS = ("train", "test")
SIDE = 256.0


def read_taichi(folder: Path, split: str) -> ObjectDataset:
    """Read people who practise Taichi. Landmarks with a coordinate ≤ 0 are unknown, as in StableKeypoints.

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
    rows = read_json(path, "Taichi-HD")
    pictures = need_folder(folder / "eval_images" / "taichi-256" / split, "Taichi-HD")
    annotations = []
    try:
        for row in rows:
            xy = np.array(row["value"], float).reshape(-1, 2)
            picture = pictures / row["file_name"]
            annotations.append(Annotation(picture.stem, picture, xy, np.asarray(np.all(xy > 0, axis=1)), side=SIDE))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no list of rows with file_name and value: {error}") from error
    names = tuple(f"landmark {i}" for i in range(len(annotations[0].xy))) if annotations else ()
    return annotated_objects(annotations, names, (), "Taichi-HD")
