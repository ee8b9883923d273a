"""Triangle shapes that procedural objects are built from: boxes and tapered prisms, coloured part by part."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

# Ten colours a child would name without doubt, as sRGB in 0…1; captions use the names.
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.12, 0.12),
    "orange": (0.93, 0.50, 0.10),
    "yellow": (0.93, 0.83, 0.18),
    "green": (0.16, 0.60, 0.22),
    "cyan": (0.15, 0.70, 0.75),
    "blue": (0.13, 0.27, 0.78),
    "purple": (0.50, 0.20, 0.65),
    "pink": (0.95, 0.55, 0.70),
    "brown": (0.45, 0.28, 0.14),
    "white": (0.94, 0.94, 0.92),
    "black": (0.10, 0.10, 0.11),
}


@dataclass(frozen=True)
class Shape:
    """A triangle mesh: ``vertices`` in world units, ``faces`` as vertex indices, outward winding."""

    vertices: Float[ndarray, "vertex 3"]
    faces: Int[ndarray, "face 3"]


@dataclass(frozen=True)
class Part:
    """A named piece of an object in one colour (sRGB, 0…1)."""

    name: str
    shape: Shape
    color: Float[ndarray, "3"]


def join(shapes: Sequence[Shape]) -> Shape:
    """One mesh from several, without welding."""
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
    """A prism or truncated cone from ``bottom`` to ``top`` (world points).

    The two ends are regular polygons with ``sides`` corners, scaled to the given half-widths along x and y (for
    four sides, the half-widths of the rectangle). The ends stay horizontal, so a slanted leg stands flat.
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


def box(low: Sequence[float], high: Sequence[float]) -> Shape:
    """An axis-aligned box from its lowest to its highest corner."""
    low_, high_ = np.asarray(low, float), np.asarray(high, float)
    centre, half = (low_ + high_) / 2, (high_ - low_) / 2
    return prism((centre[0], centre[1], low_[2]), (centre[0], centre[1], high_[2]), (float(half[0]), float(half[1])))


def turned(shape: Shape, rotation: Float[ndarray, "3 3"], origin: Sequence[float]) -> Shape:
    """The shape rotated about ``origin``."""
    return Shape((shape.vertices - origin) @ rotation.T + origin, shape.faces)
