"""SPair-71k (Min et al. 2019): pictures of 18 categories with up to 30 landmarks and the object's box.

    FOLDER/JPEGImages/cat/….jpg
    FOLDER/ImageAnnotation/cat/….json         {"kps": {"0": [x, y] or null, …}, "bndbox": [x0, y0, x1, y1], …}
    FOLDER/Layout/large/trn.txt, val.txt, test.txt      lines such as 000001-SOURCE-TARGET:cat

The pictures of a split are those of its pairs. Landmarks are predicted in each picture, and PCK is of these, per image
and per point; pairs of pictures are matched through the same landmarks.
"""

from pathlib import Path

import numpy as np

from keyorbit.errors import InputError
from keyorbit.evaluation.readers.base import (
    Annotation,
    annotated_objects,
    check_split,
    need_folder,
    read_json,
    read_lines,
)
from keyorbit.objects.dataset import ObjectDataset

LISTS = {"train": "trn.txt", "validation": "val.txt", "test": "test.txt"}
LANDMARKS = 30


def read_spair(folder: Path, split: str, category: str) -> ObjectDataset:
    """Read the pictures of one category. A landmark that a picture lacks is unknown.

    Raises:
        InputError: a file or the category is missing.
    """
    check_split(split, LISTS, "SPair-71k")
    pictures = need_folder(folder / "JPEGImages", "SPair-71k")
    categories = sorted(child.name for child in pictures.iterdir() if child.is_dir())
    if category not in categories:
        raise InputError(f"SPair-71k has no category {category!r}; {pictures} has {', '.join(categories) or 'none'}")
    places = need_folder(folder / "ImageAnnotation" / category, "SPair-71k")
    stems = _stems(folder / "Layout" / "large" / LISTS[split], category)
    annotations = [_annotation(pictures / category / f"{stem}.jpg", places / f"{stem}.json") for stem in stems]
    names = tuple(f"landmark {i}" for i in range(LANDMARKS))
    return annotated_objects(annotations, names, (), f"SPair-71k {category}")


def _stems(path: Path, category: str) -> list[str]:
    found: dict[str, None] = {}
    for line in read_lines(path, "SPair-71k"):
        pair, _, kind = line.strip().partition(":")
        parts = pair.split("-")
        if len(parts) != 3 or not kind:
            raise InputError(f"{path} holds a line that is no pair NUMBER-SOURCE-TARGET:CATEGORY: {line!r}")
        if kind == category:
            found |= dict.fromkeys(parts[1:])
    return sorted(found)


def _annotation(picture: Path, place: Path) -> Annotation:
    told = read_json(place, "SPair-71k")
    xy, seen = np.zeros((LANDMARKS, 2)), np.zeros(LANDMARKS, bool)
    try:
        for number, point in told["kps"].items():
            if point is not None:
                xy[int(number)], seen[int(number)] = point, True
        left, top, right, bottom = (float(value) for value in told["bndbox"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{place} is no annotation with kps and bndbox: {error}") from error
    return Annotation(picture.stem, picture, xy, seen, (left, top, right, bottom))
