"""The points of a mesh that are nearest to others, against a fine grid over every triangle."""

import numpy as np
import pytest

from keyorbit.geometry.triangles import nearest_on_triangles


def grid_of(corners, steps=24):
    """Points all over each triangle: [face point 3]."""
    weights = np.array([(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]) / steps
    return np.einsum("pc,fcd->fpd", weights, corners)


def test_no_other_point_of_the_mesh_is_nearer():
    rng = np.random.default_rng(0)
    corners = rng.normal(size=(40, 3, 3))
    corners[1] = corners[0]
    corners[2, 1] = corners[2, 0]  # a line
    corners[3] = corners[3, :1]  # a point
    corners[4, 2] = (corners[4, 0] + corners[4, 1]) / 2  # a line of three different points
    points = np.concatenate([rng.normal(size=(60, 3)) * 2, corners[0], corners[5:8].mean(1), corners[3, :1] + 1e-3])
    found = nearest_on_triangles(corners, points)
    assert (found.weights >= 0).all()
    assert found.weights.sum(1) == pytest.approx(1)
    assert found.places == pytest.approx((found.weights[:, :, None] * corners[found.face]).sum(1))
    assert found.distance == pytest.approx(np.linalg.norm(found.places - points, axis=1), abs=1e-12)
    tried = np.linalg.norm(grid_of(corners)[None] - points[:, None, None], axis=3)
    assert (found.distance <= tried.min((1, 2)) + 1e-12).all()
    # The grid is finer than 0.2, so that what is nearest cannot be far below it.
    assert (found.distance >= tried.min((1, 2)) - 0.2).all()
    assert found.distance[60:66] == pytest.approx(0, abs=1e-12)
    assert found.face[60:66].tolist() == [0, 0, 0, 5, 6, 7]


def test_far_from_the_origin_and_in_any_unit():
    corners = np.random.default_rng(1).normal(size=(20, 3, 3))
    points = np.random.default_rng(2).normal(size=(30, 3))
    plain = nearest_on_triangles(corners, points)
    moved = nearest_on_triangles(corners * 1e-3 + 5, points * 1e-3 + 5)
    assert plain.face.tolist() == moved.face.tolist()
    assert moved.weights == pytest.approx(plain.weights, abs=1e-6)
    assert nearest_on_triangles(corners, np.zeros((0, 3))).places.shape == (0, 3)
