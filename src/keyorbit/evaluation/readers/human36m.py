"""Human3.6M (Ionescu et al. 2014) as Zhang et al. 2018 cut it out: people in six actions.

    FOLDER/S1/WithBackground/Directions…/0001.jpg
    FOLDER/S1/BackgroudMask/Directions…/0001.png          (the folder's name is misspelt in the original)
    FOLDER/S1/Landmarks/Directions…/0001.mat              keypoints_2d [32 2] in the unit square

and so S5, S6, S7, S8, S9, for training, and S11 for testing.
"""

from pathlib import Path

import numpy as np

from keyorbit.evaluation.metrics import HUMAN36M_SWAPS
from keyorbit.evaluation.readers.base import Annotation, annotated_objects, check_split, need_folder
from keyorbit.evaluation.readers.tables import Array, need_file, read_mat
from keyorbit.objects.dataset import ObjectDataset

SUBJECTS = {"train": (1, 5, 6, 7, 8, 9), "test": (11,)}
ACTIONS = ("Directions", "Discussion", "Posing", "Waiting", "Greeting", "Walking")
JOINTS = 32
# Bytes of the joints of one picture: far more than 32 x 2 numbers need.
_LARGEST = 2**20


def read_human36m(folder: Path, split: str) -> ObjectDataset:
    """Read people on black, with all 32 joints.

    Raises:
        InputError: a file is missing.
    """
    check_split(split, SUBJECTS, "Human3.6M")
    annotations = []
    for subject in SUBJECTS[split]:
        root = need_folder(folder / f"S{subject}", "Human3.6M")
        pictures = need_folder(root / "WithBackground", f"Human3.6M's S{subject}")
        for action in sorted(child for child in pictures.iterdir() if child.name.startswith(ACTIONS)):
            for picture in sorted(action.glob("*.jpg")):
                annotations.append(_annotation(root, picture))
    names = tuple(f"joint {i}" for i in range(JOINTS))
    return annotated_objects(annotations, names, HUMAN36M_SWAPS, "Human3.6M", folder)


def _annotation(root: Path, picture: Path) -> Annotation:
    action = picture.parent.name
    place = need_file(root / "Landmarks" / action / f"{picture.stem}.mat", "Human3.6M")
    told = read_mat(place, "keypoints_2d", "Human3.6M", _LARGEST)
    xy = Array((JOINTS, 2)).checked(told, f"{place}: keypoints_2d")
    name = f"{root.name}_{action}_{picture.stem}".replace(" ", "_")
    mask = root / "BackgroudMask" / action / f"{picture.stem}.png"
    return Annotation(name, picture, xy, np.ones(JOINTS, bool), side=1.0, mask=mask)
