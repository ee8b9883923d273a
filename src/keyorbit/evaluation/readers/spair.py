"""SPair-71k (Min et al. 2019): pictures of 18 categories with up to 30 landmarks and the object's box.

    FOLDER/JPEGImages/cat/….jpg
    FOLDER/ImageAnnotation/cat/….json         {"kps": {"0": [x, y] or null, …}, "bndbox": [x0, y0, x1, y1], …}
    FOLDER/Layout/large/trn.txt, val.txt, test.txt      lines such as 000001-SOURCE-TARGET:cat

The pictures of a split are those of its pairs. Landmarks are predicted in each picture, and PCK is of these, per image
and per point; pairs of pictures are matched through the same landmarks.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keyorbit.errors import InputError
from keyorbit.evaluation.readers.base import Annotation, annotated_objects, check_split, need_folder
from keyorbit.evaluation.readers.tables import Coordinate, below, json_of, lines_of
from keyorbit.objects.dataset import ObjectDataset
from keyorbit.values import from_values, short

LISTS = {"train": "trn.txt", "validation": "val.txt", "test": "test.txt"}
LANDMARKS = 30


@dataclass(frozen=True)
class _Told:
    """Landmarks by number, and the box: left, top, right, bottom, in pixels."""

    kps: dict[str, tuple[Coordinate, Coordinate] | None]
    bndbox: tuple[Coordinate, Coordinate, Coordinate, Coordinate]

    def __post_init__(self) -> None:
        wrong = next((k for k in self.kps if not k.isdecimal() or int(k[:3]) >= LANDMARKS or len(k) > 3), None)
        if wrong is not None:
            raise InputError(f"kps has a landmark {short(wrong)}; they are numbered 0 to {LANDMARKS - 1}")
        left, top, right, bottom = self.bndbox
        if left > right or top > bottom:
            raise InputError(f"bndbox cannot be {list(self.bndbox)}; it must be left, top, right, bottom")


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
    lists = folder / "Layout" / "large" / LISTS[split]
    stems = _stems(lists, category)
    annotations = [_annotation(pictures / category, places, stem, str(lists)) for stem in stems]
    names = tuple(f"landmark {i}" for i in range(LANDMARKS))
    return annotated_objects(annotations, names, (), f"SPair-71k {category}", lists)


def _stems(path: Path, category: str) -> list[str]:
    found: dict[str, None] = {}
    for number, line in lines_of(path, "SPair-71k"):
        pair, _, kind = line.strip().partition(":")
        parts = pair.split("-")
        if len(parts) != 3 or not kind:
            raise InputError(f"{path}, line {number} cannot be {short(line)}; it must be NUMBER-SOURCE-TARGET:CATEGORY")
        if kind == category:
            found |= dict.fromkeys(parts[1:])
    return sorted(found)


def _annotation(pictures: Path, places: Path, stem: str, where: str) -> Annotation:
    picture, place = below(pictures, f"{stem}.jpg", where), below(places, f"{stem}.json", where)
    told = from_values(_Told, json_of(place, "SPair-71k"), str(place), others=True)
    xy, seen = np.zeros((LANDMARKS, 2)), np.zeros(LANDMARKS, bool)
    for number, point in told.kps.items():
        if point is not None:
            xy[int(number)], seen[int(number)] = point, True
    return Annotation(picture.stem, picture, xy, seen, told.bndbox)
