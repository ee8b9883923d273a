"""What an object's ``meta.json`` says, checked before any picture is read and without torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

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
    """One object's ``meta.json``. It has ground truth if ``keypoints_3d`` or ``keypoints_2d`` is there.

    What is left out beside them is filled in here, but for places in views, which need the cameras.

    Attributes:
        format: of the folder.
        layout: rows and columns of ``grid.png``, or of the files ``view_0.png`` ….
        cameras: of the views. Default None: the model's own.
        caption: a description. Default: none.
        input_elevation_deg: elevation of the input picture's camera, −90…90 degrees. Default None: not known.
        input_camera: of the input view, of the form of ``cameras``; read only where ``keypoints_2d`` is left out.
            Default None: not known.
        symmetry: how many turns about the vertical bring the object onto itself, or "round". Default 1: only a whole
            one.
        keypoint_names: of the landmarks. Default: their numbers from 0.
        pairs: left and right twins, by index. Default: none.
        keypoints_3d: a point for each landmark in the cameras' world, of any numbers or null for those that the object
            lacks. Default None: only pictures were annotated.
        known: whether the object has each landmark. Default: all whose point is given and finite.
        keypoints_2d: for each annotated view, the input view first, a place in the unit square for each landmark, of
            any numbers or null for those that it does not show. Default: the points as the cameras see them.
        visible: for each annotated view, whether it sees each landmark. Default: those in the picture.
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
    input_camera: Any = None
    symmetry: Symmetry = 1
    keypoint_names: tuple[str | int, ...] | None = None
    pairs: tuple[tuple[Amount, Amount], ...] | None = None
    keypoints_3d: tuple[AnyPoint | None, ...] | None = None
    known: tuple[Flag, ...] | None = None
    keypoints_2d: tuple[tuple[AnyPlace | None, ...], ...] | None = None
    visible: tuple[tuple[Flag, ...], ...] | None = None
    boxes: tuple[AnyPlace, ...] | None = None
    surface: tuple[Point, ...] | None = None

    def __post_init__(self) -> None:
        if self.keypoints_2d is None and not self.keypoints_3d:
            return
        landmarks, counted = self._landmarks()
        views = None if self.keypoints_2d is None else len(self.keypoints_2d)
        if not landmarks or views == 0:
            raise InputError("landmarks need keypoint_names, keypoints_3d and keypoints_2d not empty, or left out")
        for name, part in (("known", self.known), ("keypoints_3d", self.keypoints_3d)):
            _check_length(name, part, landmarks, counted)
        for name, rows in (("visible", self.visible), ("boxes", self.boxes)):
            if views is not None:
                _check_length(name, rows, views, "views in keypoints_2d")
        for name, lists in (("keypoints_2d", self.keypoints_2d), ("visible", self.visible)):
            for i, row in enumerate(lists or ()):
                _check_length(f"{name}[{i}]", row, landmarks, counted)
        for pair in self.pairs or ():
            if max(pair) >= landmarks:
                raise InputError(f"pairs has {list(pair)}; the {landmarks} landmarks are counted from 0")
        if self.surface is not None and len(self.surface) < 2:
            raise InputError("surface has fewer than two points; give more, or leave it out")
        self._fill_in(landmarks)

    def _landmarks(self) -> tuple[int, str]:
        """How many landmarks there are, and where they are counted."""
        if self.keypoint_names is not None:
            return len(self.keypoint_names), "landmarks in keypoint_names"
        if self.keypoints_3d is not None:
            return len(self.keypoints_3d), "landmarks in keypoints_3d"
        return len((self.keypoints_2d or ((),))[0]), "landmarks in keypoints_2d[0]"

    def _fill_in(self, landmarks: int) -> None:
        """Put what was left out, and check the numbers of what is known and seen."""
        points = self.keypoints_3d or (None,) * landmarks
        known = self.known
        if known is None:
            known = tuple(self.keypoints_3d is None or _is_finite(point) for point in points)
        for i, (point, has) in enumerate(zip(points, known, strict=True)):
            if has and self.keypoints_3d is not None:
                check_value(f"keypoints_3d[{i}]", point, Point)
        told, visible, seen = self.visible, [], list[float]()
        for i, places in enumerate(self.keypoints_2d or ()):
            visible.append([_is_finite(place) for place in places] if told is None else list(told[i]))
            for j, place in enumerate(places):
                if visible[i][j] and known[j]:
                    check_value(f"keypoints_2d[{i}][{j}]", place, Place)
                    seen += [abs(value) for value in place or () if not -1 < value < 2]
                    visible[i][j] = told is not None or all(0 <= value <= 1 for value in place or ())
        if seen:
            raise InputError(
                f"keypoints_2d look like pixels (up to {max(seen):g}): divide x by the width of the view and y by its "
                "height"
            )
        names = self.keypoint_names
        object.__setattr__(self, "keypoint_names", tuple(range(landmarks)) if names is None else names)
        object.__setattr__(self, "known", known)
        if self.keypoints_2d is not None:
            object.__setattr__(self, "visible", tuple(map(tuple, visible)))


def read_description(folder: Path) -> Description:
    """Read an object folder's ``meta.json``. Names that others added are ignored.

    Raises:
        InputError: it is missing, no JSON, of another format, or says what contradicts itself.
    """
    path = folder / "meta.json"
    return _described(text_of(path, _LARGEST), str(path))


def description_in(data: bytes, where: str) -> Description:
    """The same of a file's bytes; ``where`` names it in errors."""
    if len(data) > _LARGEST:
        raise InputError(f"{where} has {len(data):,} bytes; such a file has at most {_LARGEST:,}")
    try:
        return _described(data.decode("utf-8-sig"), where)
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is no text in UTF-8: byte {error.start} cannot be read") from error


def _described(text: str, where: str) -> Description:
    return from_values(Description, json_in(text, where, infinite=True), where, others=True)


def _check_length(name: str, values: Sequence[object] | None, count: int, what: str) -> None:
    if values is not None and len(values) != count:
        raise InputError(f"{name} has {len(values)} entries for the {count} {what}")


def _is_finite(place: Sequence[float] | None) -> bool:
    return place is not None and all(map(math.isfinite, place))
