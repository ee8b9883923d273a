"""Points on the triangles of a mesh: the nearest ones, told by face and barycentric coordinates."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

# Share of a distance that rounding may make of it.
_SLACK = 1e-9


@dataclass(frozen=True, eq=False)
class OnTriangles:
    """Points on a mesh.

    Attributes:
        face: that each lies on.
        weights: barycentric coordinates: of the face's three corners, in their order; ≥ 0, and their sum is 1.
        places: the points, ``weights`` times the corners.
        distance: from the points that they were found for, in the mesh's unit.
    """

    face: Int[ndarray, " point"]
    weights: Float[ndarray, "point 3"]
    places: Float[ndarray, "point 3"]
    distance: Float[ndarray, " point"]


def nearest_on_triangles(corners: Float[ndarray, "face 3 3"], points: Float[ndarray, "point 3"]) -> OnTriangles:
    """Find the point of a mesh that is nearest to each of the given ones; of several, that of the first face.

    Faces without area count as the lines or points that they are.

    Args:
        corners: positions of each face's corners; at least one face, all finite.
        points: any number.
    """
    middles = corners.mean(1)
    reach = np.linalg.norm(corners - middles[:, None], axis=2).max(1)
    face, weights, distance = np.zeros(len(points), np.int64), np.zeros((len(points), 3)), np.zeros(len(points))
    for i, point in enumerate(points):
        away = np.linalg.norm(middles - point, axis=1)
        # The middle is on the face, and all of the face is within its reach.
        near = np.flatnonzero(away - reach <= away.min() * (1 + _SLACK))
        found = _weights(corners[near], point)
        square = (((found[:, :, None] * corners[near]).sum(1) - point) ** 2).sum(1)
        best = int(square.argmin())
        face[i], weights[i], distance[i] = near[best], found[best], np.sqrt(square[best])
    return OnTriangles(face, weights, (weights[:, :, None] * corners[face]).sum(1), distance)


def _weights(corners: Float[ndarray, "face 3 3"], point: Float[ndarray, "3"]) -> Float[ndarray, "face 3"]:
    """Compute the barycentric coordinates of each face's point that is nearest to a given one."""
    found, square = np.zeros((len(corners), 3)), np.full(len(corners), np.inf)
    for a, b in ((0, 1), (1, 2), (2, 0)):
        side = corners[:, b] - corners[:, a]
        length = (side**2).sum(1)
        share = ((point - corners[:, a]) * side).sum(1) / np.where(length > 0, length, 1)
        share = np.clip(share, 0, 1)
        away = ((corners[:, a] + share[:, None] * side - point) ** 2).sum(1)
        nearer = away < square
        square[nearer] = away[nearer]
        found[nearer] = 0
        found[nearer, a], found[nearer, b] = 1 - share[nearer], share[nearer]
    first, second, towards = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], point - corners[:, 0]
    normal = np.cross(first, second)
    area = (normal**2).sum(1)
    whole = np.where(area > 0, area, 1)
    v = (np.cross(towards, second) * normal).sum(1) / whole
    w = (np.cross(first, towards) * normal).sum(1) / whole
    inside = (area > 0) & (v >= 0) & (w >= 0) & (v + w <= 1)
    found[inside] = np.stack([1 - v - w, v, w], 1)[inside]
    return found
