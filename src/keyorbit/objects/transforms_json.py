"""Read the cameras of NeRF's ``transforms.json``, as nerfstudio, instant-ngp and the Blender scenes write it.

Poses are camera-to-world with OpenGL's axes (x right, y up, z back); intrinsics are pixels or angles, for all frames or
for each. Sources: nerfstudio's data conventions and parser, and instant-ngp's loader.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from keyorbit.errors import InputError
from keyorbit.geometry.lenses import Intrinsics
from keyorbit.geometry.matrices import NERF, Coordinate, Row4
from keyorbit.objects.shots import Shot, Shots
from keyorbit.values import from_values, short

# Those whose pictures are flat; nerfstudio writes OPENCV for all of them.
_FLAT = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "PERSPECTIVE")
_FISHEYES = ("OPENCV_FISHEYE", "FISHEYE")

Pixels = Annotated[float, Meta(ge=1, le=2**31 - 1)]
Focal = Annotated[float, Meta(gt=0, le=1e9)]
Angle = Annotated[float, Meta(gt=0, lt=math.pi)]
Degrees = Annotated[float, Meta(gt=0, lt=180)]


@dataclass(frozen=True, kw_only=True)
class _Optics:
    """What may stand at the top for all frames, or in a frame for that one: intrinsics, and the distortion."""

    camera_model: str | None = None
    is_fisheye: bool | None = None
    fl_x: Focal | None = None
    fl_y: Focal | None = None
    camera_angle_x: Angle | None = None
    camera_angle_y: Angle | None = None
    x_fov: Degrees | None = None
    y_fov: Degrees | None = None
    cx: Coordinate | None = None
    cy: Coordinate | None = None
    w: Pixels | None = None
    h: Pixels | None = None
    k1: Coordinate | None = None
    k2: Coordinate | None = None
    k3: Coordinate | None = None
    k4: Coordinate | None = None
    p1: Coordinate | None = None
    p2: Coordinate | None = None
    distortion_params: tuple[Coordinate, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Frame(_Optics):
    """A photograph.

    Raises:
        InputError: the matrix has a last row that no pose has.
    """

    file_path: Annotated[str, Meta(min_length=1, max_length=4096)]
    transform_matrix: Annotated[tuple[Row4, ...], Meta(min_length=3, max_length=4)]

    def __post_init__(self) -> None:
        rows = self.transform_matrix
        if len(rows) == 4 and any(abs(a - b) > 1e-4 for a, b in zip(rows[3], (0, 0, 0, 1), strict=True)):
            raise InputError(
                f"the last row of transform_matrix is {short(list(rows[3]))}, not 0 0 0 1; if the position stands "
                "there, transpose each matrix"
            )


@dataclass(frozen=True, kw_only=True)
class Transforms(_Optics):
    """The file. What it has besides, such as ``applied_transform``, is not needed: poses are in its own world."""

    frames: tuple[Frame, ...]


def transforms_in(content: Any, path: Path) -> Shots:
    """Read the photographs in the content of a file; ``path`` names it in error messages.

    Raises:
        InputError: it holds what no such file holds.
    """
    told = from_values(Transforms, content, str(path), others=True)
    shots = (
        Shot(frame.file_path, _world_to_camera(frame, f"{path}: frames[{i}]"), _lens(told, frame))
        for i, frame in enumerate(told.frames)
    )
    return Shots(str(path), tuple(dict.fromkeys(shots)), NERF)


def _world_to_camera(frame: Frame, where: str) -> tuple[Row4, Row4, Row4, Row4]:
    (a, b, c), at = zip(*((row[:3], row[3]) for row in frame.transform_matrix[:3]), strict=True)
    # The rows of the inverse are across two columns each: those are x right, y up and z back.
    right, up, back = zip(a, b, c, strict=True)
    across = _cross(up, back), _cross(back, right), _cross(right, up)
    volume = sum(map(operator.mul, right, across[0]))
    if abs(volume) < 1e-12:
        raise InputError(f"{where}: transform_matrix has no inverse, which every pose has")
    # A camera that was scaled in Blender has longer axes, and stands and looks the same.
    longer = abs(volume) ** (1 / 3)
    x, y, z = (
        (*(sign * part * longer / volume for part in row), -sign * sum(map(operator.mul, row, at)) * longer / volume)
        for sign, row in zip((1, -1, -1), across, strict=True)
    )
    return x, y, z, (0.0, 0.0, 0.0, 1.0)


def _cross(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    (a, b, c), (d, e, f) = one, other
    return b * f - c * e, c * d - a * f, a * e - b * d


def _lens(everywhere: Transforms, frame: Frame) -> Intrinsics | str:
    def told(name: str) -> Any:
        own = getattr(frame, name)
        return getattr(everywhere, name) if own is None else own

    model = str(told("camera_model") or "OPENCV").upper()
    if model not in (*_FLAT, *_FISHEYES):
        return f"it is a {short(model)[1:-1]} camera; there are: {', '.join((*_FLAT, *_FISHEYES))}"
    width, height = told("w"), told("h")
    across, down = _angle(told("camera_angle_x"), told("x_fov")), _angle(told("camera_angle_y"), told("y_fov"))
    fx, fy = told("fl_x") or _focal(width, across), told("fl_y") or _focal(height, down)
    if fx is None and fy is None:
        # Angles alone: the unit is the side that one spans, of which the photograph tells how many pixels it has.
        if (across or down) and (told("cx") is not None or told("cy") is not None):
            return "it has cx or cy, and no w and h of the picture that they are for"
        width, height = (1.0, None) if across else (None, 1.0)
        fx, fy = _focal(width, across), _focal(height, down)
    focal = fx or fy
    if focal is None:
        return "it has no focal length: it needs fl_x or camera_angle_x"
    coefficients = tuple(told(name) or 0.0 for name in ("k1", "k2", "k3", "k4", "p1", "p2"))
    listed = told("distortion_params")
    if listed is not None:
        if len(listed) > 6:
            return f"it has {len(listed)} distortion_params, where k1, k2, k3, k4, p1, p2 are known"
        coefficients = (*listed, *[0.0] * (6 - len(listed)))
    k1, k2, k3, k4, p1, p2 = coefficients
    fisheye = model in _FISHEYES or bool(told("is_fisheye"))
    kind, given = ("OPENCV_FISHEYE", (k1, k2, k3, k4)) if fisheye else ("OPENCV", (k1, k2, p1, p2, k3, k4))
    return Intrinsics(kind, fx or focal, fy or focal, told("cx"), told("cy"), width, height, given)


def _angle(radians: float | None, degrees: float | None) -> float | None:
    return math.radians(degrees) if radians is None and degrees is not None else radians


def _focal(side: float | None, angle: float | None) -> float | None:
    """The focal length in the unit of the side that an angle spans."""
    return None if side is None or angle is None else side / 2 / math.tan(angle / 2)
