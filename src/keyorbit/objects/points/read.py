"""Read the points that an annotation tool exported, whichever it was."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from keyorbit.errors import InputError
from keyorbit.objects.points.coco import read_coco
from keyorbit.objects.points.cvat import read_cvat
from keyorbit.objects.points.label_studio import read_label_studio
from keyorbit.objects.points.point import PicturePoint
from keyorbit.storage.content import LARGEST, json_in, text_of
from keyorbit.values import short

# Where the tools put their annotations in an exported folder or archive.
_PLACES = (
    *("annotations.xml", "annotations/person_keypoints_default.json", "annotations/instances_default.json"),
    *("result.json", "cvat.xml", "label_studio.json", "coco.json"),
)
TOOLS = "COCO keypoints, 'CVAT for images 1.1' or Label Studio's JSON"


def read_points(path: Path) -> tuple[PicturePoint, ...]:
    """Read COCO keypoints, CVAT's XML or Label Studio's JSON, told apart by their content.

    ``path`` may also be the folder or the archive (.zip) that a tool exports.

    Raises:
        InputError: it is none of these, or as the readers of the formats.
    """
    text, place = _text(path)
    if text.lstrip("\ufeff \r\n\t").startswith("<"):
        return read_cvat(text, place)
    values = json_in(text, str(place))
    if isinstance(values, list) or (isinstance(values, Mapping) and "data" in values):
        return read_label_studio(values, place)
    if isinstance(values, Mapping) and "images" in values:
        return read_coco(values, place)
    what = f"with {', '.join(short(key)[1:-1] for key in list(values)[:3])}" if _is_table(values) else "of another kind"
    raise InputError(f"{place} is JSON {what}; it must be {TOOLS}")


def _is_table(values: Any) -> bool:
    return isinstance(values, Mapping) and len(values) > 0


def _text(path: Path) -> tuple[str, Path]:
    """The text of the annotations, and the file that they are in."""
    if path.is_dir():
        found = next((path / place for place in _PLACES if (path / place).is_file()), None)
        if found is None:
            raise InputError(f"{path} has no annotations: none of {', '.join(_PLACES)}; give the file itself")
        return text_of(found), found
    if path.suffix.lower() == ".zip" and path.is_file():
        return _in_archive(path)
    return text_of(path), path


def _in_archive(path: Path) -> tuple[str, Path]:
    try:
        with ZipFile(path) as archive:
            names = {info.filename: info for info in archive.infolist()}
            place = next((place for place in _PLACES if place in names), None)
            if place is None:
                raise InputError(f"{path} has no annotations: none of {', '.join(_PLACES)}")
            if names[place].file_size > LARGEST:
                raise InputError(f"{path}: {place} has {names[place].file_size:,} bytes; at most {LARGEST:,} are read")
            with archive.open(place) as file:
                content = file.read(LARGEST + 1)
        return content.decode("utf-8-sig"), path / place
    except (BadZipFile, OSError, RuntimeError, NotImplementedError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
