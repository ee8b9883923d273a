"""Triangle shapes that procedural objects are built from: boxes, prisms, tubes, ellipsoids, surfaces of revolution."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

Point = Sequence[float | int] | Float[ndarray, "3"]


@dataclass(frozen=True)
class Shape:
    """A triangle mesh.

    Attributes:
        vertices: world units.
        faces: vertex indices, with outward winding.
    """

    vertices: Float[ndarray, "vertex 3"]
    faces: Int[ndarray, "face 3"]


@dataclass(frozen=True)
class Piece:
    """A named piece of an object.

    Attributes:
        name: what captions call it.
        shape: its mesh.
        group: pieces with the same group may be named together (four legs: "legs"). Empty for none.
    """

    name: str
    shape: Shape
    group: str = ""


@dataclass(frozen=True)
class Build:
    """The result of a category's builder. Units are arbitrary; +x is the front, +y the left, +z up.

    Attributes:
        pieces: of the object.
        points: landmarks by name, those that this object has.
    """

    pieces: list[Piece]
    points: dict[str, Float[ndarray, "3"]]


def join(shapes: Sequence[Shape]) -> Shape:
    """Join several meshes into one, without welding."""
    starts = np.cumsum([0] + [len(shape.vertices) for shape in shapes[:-1]])
    return Shape(
        np.concatenate([shape.vertices for shape in shapes]),
        np.concatenate([shape.faces + start for shape, start in zip(shapes, starts, strict=True)]),
    )


def prism(
    bottom: Sequence[float],
    top: Sequence[float],
    bottom_radii: tuple[float, float],
    top_radii: tuple[float, float] | None = None,
    sides: int = 4,
) -> Shape:
    """Make a prism or truncated cone from ``bottom`` to ``top`` (world points).

    The two ends are regular polygons with ``sides`` corners, scaled to the given half-widths along x and y (for four
    sides, the half-widths of the rectangle). The ends stay horizontal, so that a slanted leg stands flat.
    """
    top_radii = bottom_radii if top_radii is None else top_radii
    angle = (np.arange(sides) + 0.5) * 2 * np.pi / sides
    # A square of half-width 1 has its corners at distance sqrt(2); a many-sided polygon approaches the circle.
    circle = np.stack([np.cos(angle), np.sin(angle)], 1) * (np.sqrt(2) if sides == 4 else 1.0)
    rings = [
        np.concatenate([circle * radii, np.zeros((sides, 1))], 1) + np.asarray(end)
        for end, radii in ((bottom, bottom_radii), (top, top_radii))
    ]
    i = np.arange(sides)
    j = (i + 1) % sides
    side_faces = np.concatenate([np.stack([i, j, j + sides], 1), np.stack([i, j + sides, i + sides], 1)])
    fan = np.stack([np.zeros(sides - 2, int), np.arange(1, sides - 1), np.arange(2, sides)], 1)
    return Shape(np.concatenate(rings), np.concatenate([side_faces, fan[:, ::-1], fan + sides]))


def box(low: Point, high: Point) -> Shape:
    """Make an axis-aligned box from its lowest to its highest corner."""
    low_, high_ = np.asarray(low, float), np.asarray(high, float)
    centre, half = (low_ + high_) / 2, (high_ - low_) / 2
    return prism((centre[0], centre[1], low_[2]), (centre[0], centre[1], high_[2]), (float(half[0]), float(half[1])))


def turned(shape: Shape, rotation: Float[ndarray, "3 3"], origin: Point) -> Shape:
    """Rotate the shape about ``origin``."""
    return Shape((shape.vertices - origin) @ rotation.T + origin, shape.faces)


def tube(
    path: Float[ndarray, "point 3"] | Sequence[Point],
    radii: float | Sequence[float] | Float[ndarray, " point"],
    sides: int = 8,
    flatten: float = 1.0,
) -> Shape:
    """Make a closed tube along a path: a limb, a handle, a pole.

    Args:
        path: points along the middle of the tube.
        radii: one number, or one for each point of the path.
        sides: corners of the section, a regular polygon. Default 8.
        flatten: thickness of the section along its second axis over that along its first, default 1 (round). The first
            axis is perpendicular to the path and to the world axis that the path follows least.
    """
    points = np.asarray(path, float)
    radius = np.broadcast_to(np.asarray(radii, float), (len(points),))
    tangent = np.gradient(points, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    # One reference for the whole path, the axis that the path follows least: sections do not twist.
    reference = np.eye(3)[np.abs(tangent).sum(0).argmin()]
    first = np.cross(tangent, reference)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(tangent, first)
    angle = (np.arange(sides) + 0.5) * 2 * np.pi / sides
    ring = np.cos(angle)[None, :, None] * first[:, None] + flatten * np.sin(angle)[None, :, None] * second[:, None]
    return _skin(points[:, None] + radius[:, None, None] * ring)


def lathe(
    profile: Sequence[Sequence[float]], centre: Sequence[float] | Float[ndarray, "2"] = (0.0, 0.0), sides: int = 16
) -> Shape:
    """Make a surface of revolution about the vertical through ``centre``, from (radius, height), bottom up."""
    angle = np.arange(sides) * 2 * np.pi / sides
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    rings = [np.concatenate([r * circle + np.asarray(centre), np.full((sides, 1), z)], 1) for r, z in profile]
    return _skin(np.stack(rings))


def revolved(profile: Sequence[tuple[float, float]], square: bool = False) -> Shape:
    """Make a :func:`lathe` about the z axis; or, if ``square``, a body of square section of that half-width."""
    if not square:
        return lathe(profile)
    corners = turned(lathe(profile, sides=4), rotation_about("z", 45.0), (0.0, 0.0, 0.0))
    return Shape(corners.vertices * [np.sqrt(2), np.sqrt(2), 1.0], corners.faces)


def ellipsoid(centre: Point, radii: Point | float, sides: int = 12, rotation: ndarray | None = None) -> Shape:
    """Make an ellipsoid with half-axes ``radii`` along x, y and z, then rotate it by ``rotation`` about its centre."""
    latitude = np.linspace(-np.pi / 2, np.pi / 2, sides // 2 + 1)
    ball = lathe(list(zip(np.cos(latitude), np.sin(latitude), strict=True)), sides=sides)
    vertices = ball.vertices * np.broadcast_to(np.asarray(radii, float), (3,))
    if rotation is not None:
        vertices = vertices @ rotation.T
    return Shape(vertices + np.asarray(centre, float), ball.faces)


def hull_between(first: Float[ndarray, "corner 3"], second: Float[ndarray, "corner 3"]) -> Shape:
    """Make a solid between two polygons with the same number of corners, joined corner by corner: wings, wedges."""
    return _skin(np.stack([np.asarray(first, float), np.asarray(second, float)]))


def limb(path: Float[ndarray, "point 3"] | Sequence[Point], radii: Sequence[float], sides: int = 8) -> Shape:
    """Make a round tube with domed ends, which extend half a radius beyond the path's ends."""
    points, radius = np.asarray(path, float), np.asarray(radii, float)
    first, last = points[0] - points[1], points[-1] - points[-2]
    low = points[0] + 0.5 * radius[0] * first / np.linalg.norm(first)
    high = points[-1] + 0.5 * radius[-1] * last / np.linalg.norm(last)
    return tube(np.stack([low, *points, high]), [0.5 * radius[0], *radius, 0.5 * radius[-1]], sides)


def surface_point(shapes: Sequence[Shape], origin: Point, direction: Point) -> Float[ndarray, "3"]:
    """Return where the ray from ``origin``, a point inside the shapes, leaves them (Möller & Trumbore 1997).

    Raises:
        ValueError: the ray meets no face.
    """
    mesh = join(shapes)
    start, ray = np.asarray(origin, float), np.asarray(direction, float)
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    facing = normal @ ray
    facing = np.where(np.abs(facing) < 1e-12, np.nan, facing)
    across = np.cross(start - a, ray)
    u = -((c - a) * across).sum(1) / facing
    v = ((b - a) * across).sum(1) / facing
    distance = ((a - start) * normal).sum(1) / facing
    # Comparisons with NaN are False; a hair's breadth over the edges, so that no ray slips between two faces.
    hit = (u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9) & (distance > 0)
    if not hit.any():
        raise ValueError("the ray meets no face")
    return np.asarray(start + distance[hit].max() * ray)


def turned_build(build: Build, rotation: Float[ndarray, "3 3"], origin: Point) -> Build:
    """Rotate pieces and points together about ``origin``: a head that looks aside, a trunk that leans."""
    pieces = [Piece(p.name, turned(p.shape, rotation, origin), p.group) for p in build.pieces]
    return Build(pieces, {name: rotation @ (point - origin) + origin for name, point in build.points.items()})


def rotation_about(axis: str, angle_deg: float) -> Float[ndarray, "3 3"]:
    """Return the right-handed rotation about ``"x"``, ``"y"`` or ``"z"``."""
    i = "xyz".index(axis)
    j, k = (i + 1) % 3, (i + 2) % 3
    angle = np.deg2rad(angle_deg)
    matrix = np.eye(3)
    matrix[j, j] = matrix[k, k] = np.cos(angle)
    matrix[k, j], matrix[j, k] = np.sin(angle), -np.sin(angle)
    return matrix


def _skin(rings: Float[ndarray, "ring corner 3"]) -> Shape:
    """Make the closed surface through a stack of rings. Each end is covered by a fan about its middle."""
    count, sides = rings.shape[:2]
    i = np.arange(sides)
    j = (i + 1) % sides
    band = np.concatenate([np.stack([i, j, j + sides], 1), np.stack([i, j + sides, i + sides], 1)])
    faces = [band + sides * k for k in range(count - 1)]
    low, high = count * sides, count * sides + 1
    faces.append(np.stack([np.full(sides, low), j, i], 1))
    faces.append(np.stack([np.full(sides, high), i + sides * (count - 1), j + sides * (count - 1)], 1))
    ends = np.stack([rings[0].mean(0), rings[-1].mean(0)])
    return Shape(np.concatenate([rings.reshape(-1, 3), ends]), np.concatenate(faces))
