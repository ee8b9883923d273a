"""The formats of a detection, and edges between keypoints. It imports no library: the command line reads it."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal

from keyorbit.errors import InputError
from keyorbit.storage.outputs import OutputKind

FORMATS = ("json", "coco", "glb", "ply", "colmap", "csv", "rrd", "keypointnet", "cvat", "labelstudio")
DEFAULT_FORMATS = ("json", "coco", "glb", "keypointnet")
DETECTION = OutputKind("detection")
# What is written of each of several objects, beside their common file of results.
PerObject = Literal["all", "json", "none"]
RERUN = "a rerun recording needs rerun: pip install 'keyorbit[rerun]'"
ANNOTATIONS = OutputKind("export of annotations")
Edge = tuple[int, int]


def parse_formats(text: str) -> tuple[str, ...]:
    """Parse a list of formats with commas, such as ``json,ply``.

    Raises:
        InputError: a format is unknown, or what writes it is not installed, or the list is empty.
    """
    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    for name in names or (text,):
        if name not in FORMATS:
            raise InputError(f"the format {name!r} is unknown; give some of {', '.join(FORMATS)}")
    if "rrd" in names and find_spec("rerun") is None:
        raise InputError(RERUN)
    return names


def check_per_object(per_object: str | None, formats: Sequence[str], given: bool) -> None:
    """Raise an error where what is asked for of each of several objects contradicts the rest.

    Args:
        per_object: None where nothing is asked for.
        formats: that are asked for.
        given: whether one object's views are given.

    Raises:
        InputError: it does.
    """
    if per_object is not None and given:
        raise InputError("--per-object is for several objects, and --views gives one: leave one of them out")
    if per_object in ("json", "none") and tuple(formats) != DEFAULT_FORMATS:
        raise InputError(f"--per-object {per_object} writes no files of --format {','.join(formats)}: leave one out")


def parse_skeleton(text: str) -> list[Edge] | None:
    """Parse edges such as ``0-3,3-5``. ``auto`` gives None, and the empty string no edges.

    Raises:
        InputError: it is neither.
    """
    if text.strip() == "auto":
        return None
    try:
        pairs = [tuple(map(int, pair.split("-"))) for pair in text.split(",") if pair.strip()]
        return [(first, second) for first, second in pairs]
    except ValueError as error:
        raise InputError(f"the skeleton is 'auto' or edges such as 0-3,3-5, not {text!r}") from error


def check_edges(edges: Sequence[Edge], keypoints: int) -> None:
    """Raise an error unless every edge joins two of the keypoints 0 … keypoints−1.

    Raises:
        InputError: an edge does not.
    """
    for first, second in edges:
        if first == second or not (0 <= first < keypoints and 0 <= second < keypoints):
            raise InputError(
                f"the skeleton's edge {first}-{second} does not join two of keypoints 0 to {keypoints - 1}"
            )
