"""Cameras as the plain numbers that files hold: checked without torch, before there is any tensor."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from keyorbit.errors import InputError

# Beyond this, sums of squares and their products leave the range of float32.
_FURTHEST = 1e9
Coordinate = Annotated[float, Meta(ge=-_FURTHEST, le=_FURTHEST)]
Row3 = tuple[Coordinate, Coordinate, Coordinate]
Row4 = tuple[Coordinate, Coordinate, Coordinate, Coordinate]


@dataclass(frozen=True)
class CameraMatrices:
    """The content of :meth:`keyorbit.geometry.cameras.Cameras.to_dict`.

    Attributes:
        world_to_camera: 4 × 4 for each view, one or more, row by row.
        intrinsics: 3 × 3 for each view.
        orthographic: default False.

    Raises:
        InputError: there are no views, or the two lists differ in length.
    """

    world_to_camera: tuple[tuple[Row4, Row4, Row4, Row4], ...]
    intrinsics: tuple[tuple[Row3, Row3, Row3], ...]
    orthographic: bool = False

    def __post_init__(self) -> None:
        poses, inner = len(self.world_to_camera), len(self.intrinsics)
        if poses != inner:
            raise InputError(
                f"there are {poses} matrices world_to_camera and {inner} intrinsics; give one for each view"
            )
        if not poses:
            raise InputError("there are no cameras")
