"""Cameras round an object: their poses, and the projection of points of the world.

World: right-handed, +z up, the object at the origin. Camera axes are OpenCV's: x right, y down, z forward. Intrinsics
are normalised: they map to the unit square of a view and do not depend on the size of a picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

# Distance of Zero123++ v1.2's cameras from an object in a sphere of radius 0.5, at 30° (zero123plus issue 73).
ZERO123PLUS_DISTANCE = 0.5 / math.tan(math.radians(15.0))

# Points nearer to a camera's plane than this are pushed off it, so that no division gives an infinite value.
_MIN_DEPTH = 1e-6


@dataclass(frozen=True, eq=False)
class Cameras:
    """The cameras of an object's views.

    Attributes:
        world_to_camera: [view 4 4], rigid transforms from the world to OpenCV's camera axes.
        intrinsics: [view 3 3], from camera space to the unit square of a view.
        orthographic: default False. If True, xy = intrinsics[:2] · (X, Y, 1) of camera space, without division by
            depth.
    """

    world_to_camera: Float[Tensor, "view 4 4"]
    intrinsics: Float[Tensor, "view 3 3"]
    orthographic: bool = False

    def __len__(self) -> int:
        return self.world_to_camera.shape[0]

    @property
    def projection(self) -> Float[Tensor, "view 3 4"]:
        """Matrices P [view 3 4]: xy = (P₀·p, P₁·p) / P₂·p for p = (x, y, z, 1). P₂·p is depth, or 1 if orthographic."""
        rigid = self.world_to_camera[:, :3]
        if self.orthographic:
            # Camera space (X, Y, Z, 1) becomes (X, Y, 1): the third intrinsic column is the principal point.
            last = self.world_to_camera[:, 3:]
            rigid = torch.cat([rigid[:, :2], last], dim=1)
        # Sums of products, here and below, instead of matmul: under autocast or TF32 a matmul loses digits.
        return (self.intrinsics[..., None] * rigid[:, None]).sum(-2)

    @property
    def centers(self) -> Float[Tensor, "view 3"]:
        """Positions of the cameras in the world: [view 3]."""
        rotation, translation = self.world_to_camera[:, :3, :3], self.world_to_camera[:, :3, 3]
        return -(rotation * translation[:, :, None]).sum(1)

    @property
    def directions(self) -> Float[Tensor, "view 3"]:
        """Unit vectors along which the cameras look, in the world: [view 3]."""
        return self.world_to_camera[:, 2, :3]

    def project(self, points: Float[Tensor, "*batch keypoint 3"]) -> Float[Tensor, "*batch view keypoint 2"]:
        """Project world points into each view: xy in the unit square, or outside it if a point is out of the picture.

        A point behind a perspective camera is mirrored. Check `depth` > 0 where that can happen.
        """
        homogeneous = _transform(self.projection.to(points), points)
        depth = homogeneous[..., 2:]
        sign = torch.where(depth < 0, -1.0, 1.0).to(depth.dtype)
        return homogeneous[..., :2] / (sign * depth.abs().clamp_min(_MIN_DEPTH))

    def depth(self, points: Float[Tensor, "*batch keypoint 3"]) -> Float[Tensor, "*batch view keypoint"]:
        """Distance of world points along each camera's viewing direction, in world units."""
        return _transform(self.world_to_camera[:, 2:3].to(points), points)[..., 0]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | str | None = None) -> "Cameras":
        """The same cameras on another device or in another type of floats; both may be given by name.

        Raises:
            InputError: there is no such device here, or the type is not one of floats.
        """
        from keyorbit.results import moved  # here, as below

        poses, inner = (moved(matrices, device, dtype) for matrices in (self.world_to_camera, self.intrinsics))
        return Cameras(poses, inner, self.orthographic)

    def about(self, point: Float[Tensor, "3"]) -> "Cameras":
        """Return the same cameras in a world whose origin is this point."""
        poses = self.world_to_camera.to("cpu").double()  # what is far away cancels; MPS has no double precision
        poses[:, :3, 3] += (poses[:, :3, :3] * point.to("cpu").double()).sum(-1)
        return Cameras(poses.to(self.world_to_camera), self.intrinsics, self.orthographic)

    def select(self, indices: Sequence[int] | slice | Shaped[Tensor, " chosen"]) -> "Cameras":
        """Return the cameras of some views, in the order of ``indices``."""
        chosen = indices if isinstance(indices, slice | Tensor) else list(indices)
        return Cameras(self.world_to_camera[chosen], self.intrinsics[chosen], self.orthographic)

    def zoomed(self, scale: float, shift: tuple[float, float]) -> "Cameras":
        """Return cameras that show every point at scale · xy + shift, for the xy of the unit square where these do."""
        intrinsics = self.intrinsics.clone()
        intrinsics[:, :2] *= scale
        intrinsics[:, :2, 2] += torch.tensor(shift).to(intrinsics)
        return Cameras(self.world_to_camera, intrinsics, self.orthographic)

    def join(self, other: "Cameras") -> "Cameras":
        """These cameras, then the others. ValueError unless both are perspective or both orthographic."""
        if self.orthographic != other.orthographic:
            raise ValueError("perspective and orthographic cameras do not make one set")
        return Cameras(
            torch.cat([self.world_to_camera, other.world_to_camera]),
            torch.cat([self.intrinsics, other.intrinsics]),
            self.orthographic,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON."""
        return {
            "world_to_camera": self.world_to_camera.tolist(),
            "intrinsics": self.intrinsics.tolist(),
            "orthographic": self.orthographic,
        }

    @classmethod
    def from_dict(cls, data: Any, dtype: torch.dtype = torch.float32) -> "Cameras":
        """Build cameras from the result of `to_dict`; other names in it are ignored.

        Raises:
            InputError: a part is missing, of the wrong type or shape, or beyond ±1e9.
        """
        # Here, since all that imports cameras would lie above these otherwise.
        from keyorbit.geometry.matrices import CameraMatrices
        from keyorbit.values import from_values

        checked = from_values(CameraMatrices, data, "the camera data", others=True)
        poses, inner = (torch.tensor(rows, dtype=dtype) for rows in (checked.world_to_camera, checked.intrinsics))
        return Cameras(poses, inner, checked.orthographic)


def orbit_cameras(
    azimuth_deg: float | Sequence[float],
    elevation_deg: float | Sequence[float],
    distance: float | Sequence[float] = ZERO123PLUS_DISTANCE,
    fov_deg: float | Sequence[float] = 30.0,
    orthographic: bool = False,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
    roll_deg: float | Sequence[float] = 0.0,
) -> Cameras:
    """Make cameras on a sphere that look at the origin with +z up.

    A camera stands at distance·(cos el·cos az, cos el·sin az, sin el). Each of the angles and the distance is one
    number for all views, or one number for each view.

    Args:
        azimuth_deg: azimuth in degrees; 0 is the +x side, positive is anticlockwise from above.
        elevation_deg: elevation in degrees, between −90 and 90 (both excluded).
        distance: from the origin, in world units. Default 1.866, Zero123++'s.
        fov_deg: field of view that spans the unit square, in degrees. Default 30. Ignored if orthographic.
        orthographic: default False.
        scale: world units that an orthographic unit square spans. Default 1.
        dtype: of the matrices. Default float32.
        roll_deg: rotation of the camera clockwise about its viewing direction, in degrees; the picture rotates
            anticlockwise. Default 0.

    Raises:
        ValueError: lengths differ, or an elevation is ±90° or beyond, where "up" is undefined.
    """
    azimuth, elevation, radius, fov, roll = _equal_lengths(azimuth_deg, elevation_deg, distance, fov_deg, roll_deg)
    if any(abs(e) >= 90.0 for e in elevation):
        raise ValueError("an elevation of 90° or more leaves 'up' undefined: keep it between -90° and 90°")
    az = torch.deg2rad(torch.tensor(azimuth, dtype=torch.float64))
    el = torch.deg2rad(torch.tensor(elevation, dtype=torch.float64))
    outward = torch.stack([el.cos() * az.cos(), el.cos() * az.sin(), el.sin()], dim=-1)
    right = torch.stack([-az.sin(), az.cos(), torch.zeros_like(az)], dim=-1)
    down = torch.linalg.cross(-outward, right)
    cos, sin = (f(torch.deg2rad(torch.tensor(roll, dtype=torch.float64)))[:, None] for f in (torch.cos, torch.sin))
    rotation = torch.stack([cos * right + sin * down, cos * down - sin * right, -outward], dim=-2)
    world_to_camera = torch.eye(4, dtype=torch.float64).repeat(len(az), 1, 1)
    world_to_camera[:, :3, :3] = rotation
    world_to_camera[:, 2, 3] = torch.tensor(radius, dtype=torch.float64)
    half = torch.deg2rad(torch.tensor(fov, dtype=torch.float64)) / 2
    focal = torch.full_like(half, 1.0 / scale) if orthographic else 0.5 / half.tan()
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(len(az), 1, 1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    intrinsics[:, :2, 2] = 0.5
    return Cameras(world_to_camera.to(dtype), intrinsics.to(dtype), orthographic)


def _transform(
    matrices: Float[Tensor, "view row 4"], points: Float[Tensor, "*batch keypoint 3"]
) -> Float[Tensor, "*batch view keypoint row"]:
    linear, offset = matrices[:, None, :, :3], matrices[:, None, :, 3]
    return (linear * points[..., None, :, None, :]).sum(-1) + offset


def _equal_lengths(*values: float | Sequence[float]) -> list[list[float]]:
    lists = [[float(v)] if isinstance(v, int | float) else [float(x) for x in v] for v in values]
    count = max(map(len, lists))
    if any(len(v) not in (1, count) for v in lists):
        raise ValueError(f"camera angles of lengths {[len(v) for v in lists]} differ: give one per view")
    return [v * count if len(v) == 1 else v for v in lists]


def repeat_cameras(cameras: Cameras, versions: int) -> Cameras:
    """Repeat the cameras for each version, in the order of :meth:`Observed.places`."""
    return Cameras(
        cameras.world_to_camera.repeat(versions, 1, 1), cameras.intrinsics.repeat(versions, 1, 1), cameras.orthographic
    )
