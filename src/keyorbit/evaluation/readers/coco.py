"""Keypoints in COCO's JSON (Lin et al. 2014): one object per annotation, cut out about its box.

    FOLDER/annotations/person_keypoints_train2017.json, person_keypoints_val2017.json
    FOLDER/train2017/….jpg, val2017/….jpg

or the folders of CVAT, Roboflow and Label Studio (see :mod:`keyorbit.evaluation.readers.coco_files`), or one JSON file
with its pictures beside it, as `keyorbit detect` writes coco.json.

Places and boxes are measured from the picture's corner, so that the middle of the first pixel is 0.5, as CVAT and Label
Studio measure them. COCO's own keypoints are numbers of pixels: they are half a pixel too far up and left.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from keyorbit.errors import InputError
from keyorbit.evaluation.readers.base import Annotation, Box, annotated_objects, check_split, square_crop
from keyorbit.evaluation.readers.coco_files import SUBSETS, annotation_file, check_format, picture_folders, picture_in
from keyorbit.evaluation.readers.tables import json_of
from keyorbit.objects.dataset import ObjectDataset
from keyorbit.objects.points.coco_records import Coco, CocoAnnotation, CocoCategory, CocoImage, id_text
from keyorbit.storage.folder_names import readable
from keyorbit.values import from_values, short

log = logging.getLogger(__name__)

PADDING = 0.1


@dataclass(frozen=True)
class _Landmarks:
    """The landmarks of all categories that are read, those of each one behind each other.

    Attributes:
        names: of all.
        pairs: left/right twins.
        places: of each category, by its id: the first of its landmarks, and their number; None where it is not read.
        only: the same for what names no category, or none that is there. None where that is not clear.
        without: ids of the categories that list no landmarks; theirs are the only ones that others list.
    """

    names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    places: Mapping[str, tuple[int, int] | None]
    only: tuple[int, int] | None
    without: frozenset[str]


def read_coco(path: Path, split: str, category: str = "") -> ObjectDataset:
    """Read every annotated object that has a landmark: the square about its box, 10 % wider on each side.

    Landmarks of visibility 0 are unknown; 1 and 2 (hidden, visible) are known. Groups ("iscrowd") and annotations
    without keypoints are left out, and counted in a warning. An object whose box is missing or empty has the box of its
    known landmarks. Pictures that were resized as a whole since they were annotated are read with scaled annotations.

    Args:
        path: a folder or a JSON file.
        split: ``train`` or ``test``.
        category: name of the category. Default: all that have keypoints; the landmarks of categories with other lists
            of keypoints are other landmarks.

    Raises:
        InputError: a file is missing, the JSON is not COCO's keypoints, or no category or no annotation is left.
    """
    check_split(split, SUBSETS, "COCO")
    path = annotation_file(path, split)
    data = json_of(path, "COCO")
    check_format(data, path)
    told = from_values(Coco, data, str(path), others=True)
    landmarks = _landmarks(_numbered(told), category, path)
    images = _images(told.images, path)
    skipped: Counter[str] = Counter()
    annotations = []
    for i, marked in enumerate(told.annotations):
        where = f"{path}: annotations[{i}]"
        place = _place(marked, landmarks, where)
        if why := _left_out(marked, place, landmarks.without):
            skipped[why] += 1
        elif place is not None:
            numbered = marked if marked.id is not None else replace(marked, id=i)
            annotations.append(_annotation(numbered, images, len(landmarks.names), place, where))
    left = ", ".join(f"{number} {why}" for why, number in skipped.items())
    if skipped and not annotations:
        raise InputError(f"{path} has no annotation that can be read: {left}")
    if skipped:
        log.warning("%s: skipped %d of %d annotations: %s", path, skipped.total(), len(told.annotations), left)
    return annotated_objects(annotations, landmarks.names, landmarks.pairs, "COCO", path)


def _place(told: CocoAnnotation, landmarks: _Landmarks, where: str) -> tuple[int, int] | None:
    """Return the first and the number of an annotation's landmarks; None where its category is not read."""
    key = id_text(told.category_id)
    if key not in landmarks.places and landmarks.only is None:
        raise InputError(f"{where}.category_id cannot be {short(told.category_id)}; it must be the id of a category")
    return landmarks.places.get(key, landmarks.only)


def _left_out(told: CocoAnnotation, place: tuple[int, int] | None, without: Set[str]) -> str:
    """Return why an annotation is no object for us; empty where it is one."""
    if place is None:
        return "of other categories"
    if told.iscrowd:
        return "of groups (iscrowd)"
    if not told.keypoints:
        return "without keypoints"
    if id_text(told.category_id) in without and len(told.keypoints) != 3 * place[1]:
        return "of categories that list no keypoints"  # CVAT's single points, beside skeletons
    return "" if told.is_marked else "whose keypoints are all unmarked"


def _numbered(told: Coco) -> tuple[CocoCategory, ...]:
    """Return the categories with numbers for names where none of them lists keypoints, but its annotations have some.

    So are the files of faces (300-W, WFLW, AFLW, COFW, LaPa) that MMPose trains on. A single point is no skeleton.
    """
    if any(kind.keypoints for kind in told.categories):
        return told.categories
    lengths = [{len(a.keypoints) for a in _of(kind, told) if a.keypoints} for kind in told.categories]
    counts = [each.pop() // 3 if len(each) == 1 else 0 for each in lengths]
    return tuple(
        replace(kind, keypoints=tuple(f"landmark {i}" for i in range(count))) if count > 1 else kind
        for kind, count in zip(told.categories, counts, strict=True)
    )


def _of(kind: CocoCategory, told: Coco) -> list[CocoAnnotation]:
    """The annotations of a category; all of them where it is the only one."""
    only = len(told.categories) == 1
    return [marked for marked in told.annotations if only or id_text(marked.category_id) == id_text(kind.id)]


def _landmarks(categories: Sequence[CocoCategory], wanted: str, path: Path) -> _Landmarks:
    marked = [kind for kind in categories if kind.keypoints]
    if not marked:
        known = ", ".join(short(kind.name)[1:-1] for kind in categories) or "none"
        raise InputError(
            f"{path}: no category has keypoints (there are: {known}); boxes and outlines alone are not read: export "
            "COCO keypoints, in CVAT of skeletons"
        )
    chosen = [kind for kind in marked if wanted in ("", kind.name)]
    if not chosen:
        there = ", ".join(f"{short(kind.name)[1:-1]} ({len(kind.keypoints or ())} keypoints)" for kind in marked)
        raise InputError(f"{path} has no category {wanted!r} with keypoints; there are: {there}")
    lists = list(dict.fromkeys(kind.keypoints or () for kind in chosen))
    firsts = {each: sum(map(len, lists[:i])) for i, each in enumerate(lists)}
    owners = {kind.keypoints or (): kind.name for kind in reversed(chosen)}
    names = tuple(name if len(lists) == 1 else f"{owners[each]}: {name}" for each in lists for name in each)
    only = (0, len(names)) if len(marked) == 1 or (len(lists) == 1 and not wanted) else None
    # What CVAT exports of a box and a skeleton in a group has the box's category, and keypoints all the same.
    places = {id_text(kind.id): None if kind.keypoints else only for kind in categories}
    without = frozenset(id_text(kind.id) for kind in categories if not kind.keypoints)
    places |= {id_text(kind.id): (firsts[kind.keypoints or ()], len(kind.keypoints or ())) for kind in chosen}
    pairs = tuple((firsts[each] + i, firsts[each] + j) for each in lists for i, j in _pairs(each))
    return _Landmarks(names, pairs, places, only, without)


def _images(told: Sequence[CocoImage], path: Path) -> dict[str, tuple[Path, tuple[float, float] | None]]:
    """Return each picture's file, and its size as it was annotated, by its id."""
    folders = picture_folders(path)
    found: dict[str, tuple[Path, tuple[float, float] | None]] = {}
    named: dict[Path, str] = {}
    for i, image in enumerate(told):
        where = f"{path}: images[{i}]"
        picture = picture_in(folders, image.file_name, where)
        if named.setdefault(picture, image.file_name) != image.file_name:
            raise InputError(
                f"{where} and another one are both {picture}: keep the folders in which they were annotated"
            )
        if id_text(image.id) in found and found[id_text(image.id)][0] != picture:
            raise InputError(f"{where}.id cannot be {short(image.id)}; another picture has it")
        found[id_text(image.id)] = picture, image.size
    return found


def _annotation(
    told: CocoAnnotation,
    images: Mapping[str, tuple[Path, tuple[float, float] | None]],
    total: int,
    place: tuple[int, int],
    where: str,
) -> Annotation:
    if id_text(told.image_id) not in images:
        raise InputError(f"{where} is of image {told.image_id!r}, which is not among the images")
    first, count = place
    if len(told.keypoints or ()) != 3 * count:
        numbers = len(told.keypoints or ())
        raise InputError(f"{where}.keypoints has {numbers} numbers; it must have 3 for each of {count}")
    points = np.zeros((total, 3))
    points[first : first + count] = np.array(told.keypoints, float).reshape(count, 3)
    xy, seen = points[:, :2], points[:, 2] > 0
    if seen.sum() > 1 and 0 < xy[seen].max() <= 1 and xy[seen].min() >= 0:
        raise InputError(f"{where}.keypoints look like shares of the picture's width and height; COCO's are pixels")
    box = _box(told, xy, seen)
    width, height = box[2] - box[0], box[3] - box[1]
    picture, size = images[id_text(told.image_id)]
    name = readable(f"{picture.stem}_{id_text(told.id)}")
    return Annotation(
        name,
        picture,
        xy,
        seen,
        box if width and height else None,
        square_crop(box, PADDING) if width or height else None,  # of a single landmark: the whole picture
        size=size,
    )


def _box(told: CocoAnnotation, xy: Float[ndarray, "landmark 2"], seen: Bool[ndarray, " landmark"]) -> Box:
    """Return the annotated box, or that of the known landmarks where it is missing or empty."""
    x, y, width, height = told.bbox or (0.0, 0.0, 0.0, 0.0)
    if width and height:
        return x, y, x + width, y + height
    (left, top), (right, bottom) = xy[seen].min(0).tolist(), xy[seen].max(0).tolist()
    return left, top, right, bottom


def _pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(
        (i, names.index(other))
        for i, name in enumerate(names)
        if name.startswith("left_") and (other := "right_" + name.removeprefix("left_")) in names
    )
