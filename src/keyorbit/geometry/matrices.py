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
        world_to_camera: 4 × 4 for each view, one or more, row by row. Where the last row, 0 0 0 1, was left out, it is
            added.
        intrinsics: 3 × 3 for each view.
        orthographic: default False.

    Raises:
        InputError: there are no views, or the two lists differ in length.
    """

    world_to_camera: tuple[Annotated[tuple[Row4, ...], Meta(min_length=3, max_length=4)], ...]
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
        whole = tuple((*rows, (0.0, 0.0, 0.0, 1.0)) if len(rows) == 3 else rows for rows in self.world_to_camera)
        object.__setattr__(self, "world_to_camera", whole)


@dataclass(frozen=True)
class Convention:
    """How a format's poses were read, in words for what is wrong if another convention fits better.

    Attributes:
        matrices: what the format calls its poses.
        inverse: what they are if the inverse of what was read fits.
        flipped: what they are if the other axes fit: OpenGL's for OpenCV's.
        both: what they are if both have to be changed.
        expected: what the format has.
    """

    matrices: str
    inverse: str
    flipped: str
    both: str
    expected: str


OURS = Convention(
    "world_to_camera",
    "camera-to-world: invert each matrix",
    "world-to-camera in OpenGL's axes (y up, z back): change the signs of the second and third row",
    "camera-to-world in OpenGL's axes (y up, z back), as in Blender and NeRF: change the signs of the second and third "
    "column, then invert each matrix",
    "expected is world_to_camera [view 4 4] with OpenCV's axes (x right, y down, z forward) and intrinsics [view 3 3] "
    "to the unit square",
)
NERF = Convention(
    "transform_matrix",
    "world-to-camera in OpenCV's axes (y down, z forward): invert each matrix, then change the signs of the second and "
    "third column",
    "camera-to-world in OpenCV's axes (y down, z forward): change the signs of the second and third column",
    "world-to-camera in OpenGL's axes: invert each matrix",
    "expected is camera-to-world with OpenGL's axes (x right, y up, z back)",
)
COLMAP = Convention(
    "the pose of the images",
    "camera-to-world: invert each pose",
    "world-to-camera in OpenGL's axes (y up, z back): change the signs of the second and third row",
    "camera-to-world in OpenGL's axes (y up, z back): change the signs of the second and third column, then invert "
    "each pose",
    "expected are quaternion and translation from the world to the camera with OpenCV's axes (x right, y down, z "
    "forward)",
)
