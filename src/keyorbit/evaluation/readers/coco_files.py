"""Where COCO's annotations and their pictures are, in the folders of the programs that write them.

FOLDER/annotations/person_keypoints_val2017.json, FOLDER/val2017/….jpg                       COCO
FOLDER/annotations/person_keypoints_default.json, FOLDER/images/default/… or images/…        CVAT, Datumaro
FOLDER/train/_annotations.coco.json, train/….jpg                                             Roboflow
FOLDER/result.json, FOLDER/images/….jpg, named images\\….jpg on Windows                      Label Studio
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from keyorbit.errors import InputError
from keyorbit.evaluation.readers.tables import below, need_file

# What programs call the parts of a data set, by our names of them; COCO's own first.
SUBSETS = {"train": ("train2017", "train"), "test": ("val2017", "test", "valid", "val")}
_PREFIX = "person_keypoints_"
# COCO's other files, whose names begin like this: without keypoints.
_OTHERS = ("instances_", "captions_", "stuff_", "panoptic_", "image_info_")
# What Label Studio puts before the name of an uploaded file.
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
# Keys that other programs' own formats have, and COCO has not.
_FORMATS = {"shapes": "labelme's", "items": "Datumaro's", "_via_img_metadata": "VIA's"}


def annotation_file(path: Path, split: str) -> Path:
    """Return the JSON file of a split in a folder, or ``path`` itself where it is no folder.

    Raises:
        InputError: there is none, or there are several and none is named as one of the split.
    """
    if not path.is_dir():
        return path
    folder = path / "annotations"
    ways = [
        way
        for name in SUBSETS[split]
        for way in (folder / f"{_PREFIX}{name}.json", path / name / "_annotations.coco.json", folder / f"{name}.json")
    ]
    if there := next((way for way in ways if way.is_file()), None):
        return there
    beside = sorted(folder.glob("[!.]*.json"))
    found = (
        [file for file in beside if file.name.startswith(_PREFIX)]
        or sorted(path.glob("[!.]*.json"))
        or [file for file in beside if not file.name.startswith(_OTHERS)]
        # What CVAT calls "COCO", to be told that it has no keypoints.
        or [file for file in beside if file.name.startswith(_OTHERS[0])]
    )
    others = tuple(name for key, names in SUBSETS.items() if key != split for name in names)
    fitting = [file for file in found if not _subset(file).lower().startswith(others)]
    if len(fitting) > 1:
        names = ", ".join(file.name for file in fitting[:3]) + (" and more" if fitting[3:] else "")
        raise InputError(f"{path} has several files of annotations ({names}): give one of them instead of the folder")
    return fitting[0] if fitting else need_file(ways[0], "COCO")


def check_format(data: Any, path: Path) -> None:
    """Raise InputError for what is no COCO but the own format of another program; ``data`` is the file's content."""
    whose = ""
    if isinstance(data, list):
        keys = data[0] if data and isinstance(data[0], Mapping) else {}
        whose = "a list of results, without pictures and categories" if "score" in keys else "a list"
        whose = "Label Studio's own format" if "data" in keys else whose
    elif isinstance(data, Mapping) and "images" not in data:
        whose = next((f"{name} own format" for key, name in _FORMATS.items() if key in data), "")
    if whose:
        raise InputError(f"{path} is {whose}, not COCO's; export or convert it to COCO keypoints")


def picture_folders(path: Path) -> tuple[Path, ...]:
    """Return the folders in which the pictures of an annotation file may be, the likeliest first."""
    if path.parent.name != "annotations":
        return path.parent, path.parent / "images"
    root = path.parent.parent
    own = root / _subset(path)  # COCO's, which is named as missing where there is none
    ways = (root / "images" / _subset(path), root / "images", own, root / "data")
    there = [way for way in ways if way.is_dir()]
    return (*(there or [own]), root, path.parent)


def picture_in(folders: Sequence[Path], name: str, where: str) -> Path:
    """Return a picture's file by the name that annotations give to it; the likeliest one where it is missing.

    A name may be of a place on another machine, such as ``..\\upload\\1\\a.png``: then its last part counts, also
    without the prefix that Label Studio gives to uploads. It may be written as addresses are, and its accents may be
    composed otherwise than on the disk.

    Raises:
        InputError: the name leads out of the folders, and no file in them has its last part.
    """
    for form in dict.fromkeys(_forms(name)):
        for folder in folders:
            try:
                file = below(folder, form, where)
            except InputError:
                break
            if file.is_file():
                return file
    return below(folders[0], name, where)


def _forms(name: str) -> Iterator[str]:
    """Yield what a file may be called by the name that annotations give to it, the likeliest first."""
    plain = name.replace("\\", "/")
    last = plain.rsplit("/", 1)[-1].removeprefix("?d=")
    address = unquote(last.partition("?")[0])
    for form in (name, plain, last, _UPLOAD.sub("", last), address, _UPLOAD.sub("", address)):
        yield form
        for way in ("NFC", "NFD"):  # macOS keeps accents apart from their letters
            yield unicodedata.normalize(way, form)


def _subset(path: Path) -> str:
    return path.stem.removeprefix(_PREFIX).removeprefix(_OTHERS[0])
