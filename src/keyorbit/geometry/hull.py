"""Silhouettes of the object in its views, the visual hull, and the volume that is searched."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.heatmaps import resize
from keyorbit.geometry.sampling import bilinear, lower_median

# Cells of the hull's grid a side, and draws from its surface.
_SIDE, _SURFACE = 32, 1500
SURFACE_SPACING = 2 / (_SIDE - 1)


def silhouettes(
    views: Float[Tensor, "view 3 height width"], threshold: float = 0.06
) -> Bool[Tensor, "view height width"]:
    """Mark the pixels that differ from the background, taken to be the median colour of the view's border."""
    border = torch.cat([views[..., 0, :], views[..., -1, :], views[..., :, 0], views[..., :, -1]], dim=-1)
    ground = lower_median(border, -1)[..., None, None]
    return (views - ground).abs().amax(1) > threshold


@dataclass(frozen=True, eq=False)
class Silhouette:
    """Where an object is in its views, and how far every other pixel is from it.

    Attributes:
        mask: True on the object, [view height width].
        distance: of each pixel from the nearest one of the mask, [view height width], in sides of the view. 0 on the
            mask, and everywhere in a view whose mask is empty: such a view does not constrain its position.
    """

    mask: Bool[Tensor, "view height width"]
    distance: Float[Tensor, "view height width"]

    @classmethod
    def of(cls, mask: Bool[Tensor, "view height width"]) -> "Silhouette":
        """Make the silhouette of a mask."""
        return cls(mask, silhouette_distance(mask))


def silhouette_distance(masks: Bool[Tensor, "*batch height width"]) -> Float[Tensor, "*batch height width"]:
    """Compute the distance of every pixel to the nearest pixel of the silhouette, in sides of the view; 0 on it.

    A view without a silhouette is 0 everywhere: it does not constrain the object's position.
    """
    height, width = masks.shape[-2:]
    fields = [
        distance_transform_edt(~mask, sampling=(1 / height, 1 / width)) if mask.any() else np.zeros(mask.shape)
        for mask in masks.reshape(-1, height, width).cpu().numpy()
    ]
    return torch.from_numpy(np.stack(fields)).float().reshape(masks.shape).to(masks.device)


def convex_outlines(
    masks: Bool[Tensor, "view height width"], directions: int = 64
) -> Bool[Tensor, "view height width"]:
    """Fill the silhouettes to their convex hulls: what no straight line parts from all of a silhouette.

    Args:
        masks: True on the object; a view without any stays so.
        directions: of the lines that are tried, evenly over the circle. Default 64.
    """
    height, width = masks.shape[-2:]
    places = torch.cartesian_prod(torch.arange(height), torch.arange(width)).float()
    angles = torch.arange(directions) * (2 * torch.pi / directions)
    along = places @ torch.stack([angles.sin(), angles.cos()])
    filled = [
        (along <= along[mask.flatten()].amax(0) + 1e-3).all(-1) if mask.any() else mask.flatten()
        for mask in masks.cpu()
    ]
    return torch.stack(filled).reshape(masks.shape).to(masks.device)


def grown_masks(
    masks: Bool[Tensor, "version view height width"], size: tuple[int, int]
) -> Float[Tensor, "version view new_height new_width"]:
    """Resize silhouettes to the size of the maps and widen them by a pixel: a heatmap on an edge extends beyond it."""
    return F.max_pool2d(resize(masks.float(), size), 3, stride=1, padding=1)


def sampled(
    maps: Float[Tensor, "*batch view channel height width"],
    xy: Float[Tensor, "*batch view point 2"],
    edge: str = "zeros",
) -> Float[Tensor, "*batch view channel point"]:
    """Sample maps at positions in the unit square, bilinearly. ``edge`` is the padding: ``zeros`` or ``border``."""
    found = bilinear(maps.reshape(-1, *maps.shape[-3:]), xy.reshape(-1, *xy.shape[-2:]), edge)
    return found.reshape(*maps.shape[:-2], xy.shape[-2])


def beside_silhouette(
    distance: Float[Tensor, "*batch view height width"], xy: Float[Tensor, "*batch view point 2"]
) -> Float[Tensor, "*batch view point"]:
    """Compute how far positions lie beside the object, in sides of the view; 0 on the silhouette.

    Args:
        distance: of each pixel from the silhouette, see `silhouette_distance`.
        xy: positions in the unit square. For those outside it, the distance to the picture (the sum along both axes) is
            added.
    """
    inside, beyond = _within_square(xy)
    return sampled(distance.unsqueeze(-3), inside, "border")[..., 0, :] + beyond


def _within_square(xy: Float[Tensor, "*batch 2"]) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch"]]:
    """Bring positions into the unit square; and how far that is, the sum along both axes."""
    inside = xy.clamp(0, 1)
    return inside, (xy - inside).abs().sum(-1)


@dataclass(frozen=True, eq=False)
class HullGrid:
    """A grid over what all views look at, and where they show it: the same for all objects that these cameras see.

    It lies on the CPU, since not every device has all of the operations of :func:`hull_points`.

    Attributes:
        points: [point 3], world units, in the order of their coordinates.
        side: how many there are a side.
        inside: their places in the views, brought into the unit square, [view point 2].
        beyond: how far they are outside it, [view point].
        slack: distance from a silhouette, in sides of the view, to which a cell that touches it may be.
    """

    points: Float[Tensor, "point 3"]
    side: int
    inside: Float[Tensor, "view point 2"]
    beyond: Float[Tensor, "view point"]
    slack: float

    @classmethod
    def of(cls, cameras: Cameras, side: int = _SIDE) -> "HullGrid":
        """Make the grid of these cameras, ``side`` points a side (default that of :func:`surface_points`)."""
        cameras = cameras.to("cpu")
        points, step = search_grid(cameras, side)
        points = points.float()
        slack = 0.5 * step * float(cameras.intrinsics[0, 0, 0]) / _reach(cameras)
        return cls(points, side, *_within_square(cameras.project(points)), slack)

    def shell(self, distance: Float[Tensor, "view height width"]) -> Int[Tensor, " cell"]:
        """Return which points are on the surface of a visual hull, in order; see :func:`hull_points`."""
        side = self.side
        away = (sampled(distance.unsqueeze(-3), self.inside, "border")[..., 0, :] + self.beyond).amax(0)
        within = (away <= self.slack).reshape(1, side, side, side)
        inner = -F.max_pool3d(-F.pad(within.to(distance), (1,) * 6), 3, stride=1) > 0
        found = (within & ~inner).flatten().nonzero()[:, 0]
        return found if len(found) and not within.all() else torch.arange(len(self.points))


def hull_points(
    distance: Float[Tensor, "view height width"],
    cameras: Cameras,
    count: int,
    generator: torch.Generator,
    side: int = 40,
) -> Float[Tensor, "{count} 3"]:
    """Draw random points on the surface of the visual hull: cells of a grid that border on empty cells.

    Args:
        distance: from the silhouettes, 0 on them. Where they exclude everything or nothing, the points fill the
            searched cube.
        cameras: of the views.
        count: number of points. A point may be drawn more than once.
        generator: source of the random numbers.
        side: cells of the grid, a side. Default 40. A hull thinner than a cell is used whole.
    """
    grid = HullGrid.of(cameras, side)
    return grid.points[_drawn(grid, distance, count, generator)].to(distance)


def _drawn(
    grid: HullGrid, distance: Float[Tensor, "view height width"], count: int, generator: torch.Generator
) -> Int[Tensor, "{count}"]:
    """Return the cells of as many random points on the surface."""
    found = grid.shell(distance.cpu().float())
    return found[(torch.rand(count, generator=generator) * len(found)).long()]


def search_volume(cameras: Cameras) -> tuple[Float[Tensor, "3"], float]:
    """Return middle and radius of the volume that all views see, in world units.

    The middle is the point nearest to the rays through the middles of the pictures, and the radius is the smallest half
    side of a view at it. (In a cropped picture that ray is not the optical axis.) A single ray, or parallel rays, give
    the point on them nearest to the origin. It works for every rig and for a user's own cameras.
    """
    like, cameras = cameras.world_to_camera, cameras.to("cpu")  # where there is float64: MPS has none
    centre, direction = _central_rays(cameras)
    unit = torch.eye(3).to(direction)
    across = unit - direction[:, :, None] * direction[:, None, :]
    right = (across @ centre[..., None]).sum(0)
    middle = torch.linalg.solve(across.sum(0) + 1e-9 * unit, right)[:, 0]
    depth = torch.ones_like(direction[:, 0]) if cameras.orthographic else cameras.depth(middle[None])[:, 0].abs()
    focal = cameras.intrinsics[:, [0, 1], [0, 1]].double().abs().amax(-1)
    return middle.to(like), float((0.5 * depth / focal).min())


def _central_rays(cameras: Cameras) -> tuple[Float[Tensor, "view 3"], Float[Tensor, "view 3"]]:
    """Return origins and unit directions of the rays through the middles of the views, in double precision."""
    inner, axes = cameras.intrinsics.double(), cameras.world_to_camera[:, :3, :3].double()
    # Beside the optical axis, in camera space at depth 1; exactly 0 where the principal point is the middle.
    down = (0.5 - inner[:, 1, 2]) / inner[:, 1, 1]
    across = (0.5 - inner[:, 0, 2] - inner[:, 0, 1] * down) / inner[:, 0, 0]
    beside = across[:, None] * axes[:, 0] + down[:, None] * axes[:, 1]
    centre, axis = cameras.centers.double(), cameras.directions.double()
    if cameras.orthographic:
        return centre + beside, axis
    return centre, (axis + beside) / (1 + across**2 + down**2).sqrt()[:, None]


def _reach(cameras: Cameras) -> float:
    """Return the number that divides a focal length to convert world lengths at the object to sides of the view."""
    middle, _ = search_volume(cameras)
    return 1.0 if cameras.orthographic else float(cameras.depth(middle[None])[:, 0].abs().mean())


def search_grid(cameras: Cameras, side: int) -> tuple[Float[Tensor, "point 3"], float]:
    """Return a cubic grid over what all views look at, ``side`` points a side, and its spacing; world units."""
    middle, radius = search_volume(cameras)
    return middle + cube(side).to(middle) * (2 * radius / (side - 1)), 2 * radius / (side - 1)


def cube(side: int) -> Float[Tensor, "point 3"]:
    """Return a cubic grid about the origin, ``side`` points a side, of spacing 1."""
    axis = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
    return torch.cartesian_prod(axis, axis, axis)


def in_sight(
    points: Float[Tensor, "point 3"], surface: Float[Tensor, "other 3"], cameras: Cameras, spacing: float
) -> Bool[Tensor, "view point"]:
    """Compute which views see the points, that is, have no surface in front of them.

    A point is hidden where some surface point at the same position in the view is nearer to the camera by 2.5 spacings.

    Args:
        points: points to test, world units.
        surface: points on the object's surface.
        cameras: of the views.
        spacing: distance between neighbouring points of the surface, in radii of the volume that all views see.
    """
    _, radius = search_volume(cameras)
    near = torch.cdist(cameras.project(points), cameras.project(surface)) < spacing / 2
    front = torch.where(near, cameras.depth(surface)[:, None, :], torch.inf).amin(-1)
    return cameras.depth(points) <= front + 2.5 * spacing * radius


def surface_points(
    distance: Float[Tensor, "view height width"],
    cameras: Cameras,
    generator: torch.Generator | None = None,
    grid: HullGrid | None = None,
) -> Float[Tensor, "point 3"]:
    """Return distinct points on the surface of the visual hull, ``SURFACE_SPACING`` radii apart; world units.

    ``grid``: of these cameras, where many objects are seen by them. Default None: it is made anew.
    """
    grid, draw = grid or HullGrid.of(cameras), generator or torch.Generator().manual_seed(0)
    # Cells are in the order of their coordinates.
    found: Tensor = grid.points[torch.unique(_drawn(grid, distance, _SURFACE, draw))]
    return found.to(distance)
