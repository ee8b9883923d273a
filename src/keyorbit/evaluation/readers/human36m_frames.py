"""Human3.6M (Ionescu et al. 2014) as whole frames, of which people are cut out: StableKeypoints' "unaligned" one.

    FOLDER/S1/Directions/imageSequence/54138969/img_000001.jpg
    FOLDER/S1/Directions/annot.h5       camera [n], frame [n], pose/2d [n 32 2] in pixels (with h5py installed)

and so the other actions that begin with the six names, S5, S6, S7, S8, S9, for training, and S11 for testing. It is
what process_all.py of github anibali/h36m-fetch writes.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from keyorbit.errors import InputError
from keyorbit.evaluation.metrics import HUMAN36M_SWAPS
from keyorbit.evaluation.readers.base import Annotation, Box, annotated_object, check_split, need_folder, picture_size
from keyorbit.evaluation.readers.hdf5 import h5_arrays
from keyorbit.evaluation.readers.human36m import ACTIONS, JOINTS, SUBJECTS
from keyorbit.evaluation.readers.tables import Array, need_file
from keyorbit.objects.dataset import ObjectDataset, ObjectViews

# Pixels around the joints' box.
_MARGIN = 100
_JITTER = 100
_NAMES = tuple(f"joint {i}" for i in range(JOINTS))
_WHAT = "Human3.6M's frames"
# Cameras are known by their serial numbers.
_SERIAL = Array((None,), 0.0, 2.0**53)
_Frame = tuple[Path, Float[ndarray, "32 2"]]
_ARRAYS = {"camera": _SERIAL, "frame": _SERIAL, "pose/2d": Array((None, JOINTS, 2))}


def read_human36m_frames(folder: Path, split: str) -> ObjectDataset:
    """Read people with all 32 joints: the square about the joints, 100 pixels wider on each side, from the frame.

    Where people are drawn, in training and in testing, the square is moved by up to 100 pixels along each axis.

    Raises:
        InputError: a file is missing, or a picture has no joints or several.
    """
    check_split(split, SUBJECTS, _WHAT)
    frames = []
    for subject in SUBJECTS[split]:
        root = need_folder(folder / f"S{subject}", _WHAT)
        for action in sorted(child for child in root.iterdir() if child.name.startswith(ACTIONS)):
            frames += _frames(action)
    if not frames:
        raise InputError(f"no picture of {_WHAT} is left to read: {folder} has none of {', '.join(ACTIONS)}")
    return ObjectDataset(len(frames), partial(_person, frames), partial(_drawn_person, frames))


def _person(frames: Sequence[_Frame], i: int, shift: Sequence[int] = (0, 0)) -> ObjectViews:
    picture, xy = frames[i]
    camera, action = picture.parent, picture.parents[2]
    name = f"{action.parent.name}_{action.name}_{camera.name}_{picture.stem[4:]}".replace(" ", "_")
    crop = person_square(xy, picture_size(picture), shift)
    annotation = Annotation(name, picture, xy, np.ones(JOINTS, bool), crop=crop)
    return annotated_object(annotation, _NAMES, HUMAN36M_SWAPS)


def _drawn_person(frames: Sequence[_Frame], i: int, generator: torch.Generator) -> ObjectViews:
    return _person(frames, i, torch.randint(-_JITTER, _JITTER, (2,), generator=generator).tolist())


def _frames(action: Path) -> list[_Frame]:
    """Pictures of one action, with their joints in pixels."""
    file = need_file(action / "annot.h5", _WHAT)
    found = h5_arrays(file, _ARRAYS)
    camera, frame, pose = (array.checked(found[name], f"{file}: {name}") for name, array in _ARRAYS.items())
    if not len(camera) == len(frame) == len(pose):
        raise InputError(f"{file}: camera, frame and pose/2d differ in length; there must be one of each for a picture")
    rows = {key: row for row, key in enumerate(zip(camera, frame, strict=True))}
    if len(rows) < len(pose):
        raise InputError(f"{file} has a frame of one camera twice; there must be one for each picture")
    pictures = sorted(need_folder(action / "imageSequence", f"{_WHAT}: {action.name}").glob("*/img_*.jpg"))
    each = []
    for picture in pictures:
        where = picture.parent.name, picture.stem[4:]
        row = rows.get((float(where[0]), float(where[1]))) if all(part.isdecimal() for part in where) else None
        if row is None:
            raise InputError(f"{file} lacks frame {where[1]} of camera {where[0]}, though there is {picture}")
        each.append((picture, pose[row]))
    return each


def person_square(xy: Float[ndarray, "32 2"], size: tuple[int, int], shift: Sequence[int] = (0, 0)) -> Box:
    """The square about the joints with the margin, moved by the shift, as far as the picture of that size reaches."""
    low, high = xy.min(0), xy.max(0)
    side = (high - low).max()
    margin = np.minimum(_MARGIN, size - side)
    start = np.maximum(0, low - (side - (high - low)) / 2 - margin + np.array(shift))
    end = np.minimum(size, start + side + 2 * margin)
    left, top = np.trunc(start)
    across, down = np.trunc(end - start)
    return float(left), float(top), float(left + across), float(top + down)
