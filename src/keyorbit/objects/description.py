"""What an object's ``meta.json`` says, checked before any picture is read and without torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from keyorbit.errors import InputError
from keyorbit.geometry.matrices import CameraMatrices, Coordinate
from keyorbit.storage.content import json_in, text_of
from keyorbit.values import Amount, Count, Share, check_value, from_values

# Some 100 times the largest that is known; its numbers take ten times as much memory.
_LARGEST = 64 * 2**20
# Files have 0 and 1 for false and true, too.
Flag = bool | Share
Place = tuple[Coordinate, Coordinate]
# Of landmarks that are not seen, or not there: NaN, as numpy writes it.
AnyPlace = tuple[float, float]
AnyPoint = tuple[float, float, float]
Point = tuple[Coordinate, Coordinate, Coordinate]
# How many turns about the vertical bring an object onto itself.
Symmetry = Annotated[int, Meta(ge=1, le=360)] | Literal["round"]


@dataclass(frozen=True)
class Description:
    """One object's ``meta.json``. Landmarks are ground truth if ``keypoints_2d`` is there; else they are not read.

    Attributes:
        format: of the folder.
        layout: rows and columns of ``grid.png``, or of the files ``view_0.png`` ….
        cameras: of the views. Default None: the model's own.
        caption: a description. Default: none.
        input_elevation_deg: elevation of the input picture's camera, −90…90 degrees. Default None: not known.
        keypoint_names: of the landmarks.
        pairs: left and right twins, by index. Default: none.
        keypoints_3d: a point for each landmark, of any numbers for those that the object lacks. Default None: only
            pictures were annotated.
        known: whether the object has each landmark.
        keypoints_2d: for each annotated view, the input view first, a place in the unit square for each landmark, of
            any numbers for those that it does not show.
        visible: for each annotated view, whether it sees each landmark.
        boxes: for each annotated view, width and height of the object; NaN where it has none. Default None: not
            annotated.
        surface: points on the object. Default None: not known.

    Raises:
        InputError: lists differ in length, a pair names no landmark, or visible places look like pixels.
    """

    format: Literal["keyorbit-object-1"]
    layout: tuple[Count, Count]
    cameras: CameraMatrices | None = None
    caption: str | None = None
    input_elevation_deg: Annotated[float, Meta(ge=-90, le=90)] | None = None
    keypoint_names: tuple[str | int, ...] | None = None
    pairs: tuple[tuple[Amount, Amount], ...] | None = None
    keypoints_3d: tuple[AnyPoint, ...] | None = None
    known: tuple[Flag, ...] | None = None
    keypoints_2d: tuple[tuple[AnyPlace, ...], ...] | None = None
    visible: tuple[tuple[Flag, ...], ...] | None = None
    boxes: tuple[AnyPlace, ...] | None = None
    surface: tuple[Point, ...] | None = None

    def __post_init__(self) -> None:
        if self.keypoints_2d is None:
            return
        if not self.keypoint_names or self.known is None or self.visible is None or not self.keypoints_2d:
            raise InputError("landmarks need keypoint_names, known, visible and keypoints_2d, none of them empty")
        landmarks, views = len(self.keypoint_names), len(self.keypoints_2d)
        for name, part in (("known", self.known), ("keypoints_3d", self.keypoints_3d)):
            _check_length(name, part, landmarks, "landmarks in keypoint_names")
        for name, rows in (("visible", self.visible), ("boxes", self.boxes)):
            _check_length(name, rows, views, "views in keypoints_2d")
        for name, lists in (("keypoints_2d", self.keypoints_2d), ("visible", self.visible)):
            for i, row in enumerate(lists):
                _check_length(f"{name}[{i}]", row, landmarks, "landmarks in keypoint_names")
        for pair in self.pairs or ():
            if max(pair) >= landmarks:
                raise InputError(f"pairs has {list(pair)}; the {landmarks} landmarks are counted from 0")
        if self.surface is not None and len(self.surface) < 2:
            raise InputError("surface has fewer than two points; give more, or leave it out")
        seen = []
        for i, (places, flags) in enumerate(zip(self.keypoints_2d, self.visible, strict=True)):
            for j, place in enumerate(places):
                if flags[j] and self.known[j]:
                    check_value(f"keypoints_2d[{i}][{j}]", place, Place)
                    seen += [abs(value) for value in place if not -1 < value < 2]
        if seen:
            raise InputError(
                f"keypoints_2d look like pixels (up to {max(seen):g}): divide x by the width of the view and y by its "
                "height"
            )
        for i, (point, has) in enumerate(zip(self.keypoints_3d or (), self.known, strict=False)):
            if has:
                check_value(f"keypoints_3d[{i}]", point, Point)


def read_description(folder: Path) -> Description:
    """Read an object folder's ``meta.json``. Names that others added are ignored.

    Raises:
        InputError: it is missing, no JSON, of another format, or says what contradicts itself.
    """
    path = folder / "meta.json"
    return from_values(Description, json_in(text_of(path, _LARGEST), str(path), infinite=True), str(path), others=True)


def _check_length(name: str, values: Sequence[object] | None, count: int, what: str) -> None:
    if values is not None and len(values) != count:
        raise InputError(f"{name} has {len(values)} entries for the {count} {what}")
