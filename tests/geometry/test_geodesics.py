"""Distances along meshes, against surfaces whose shortest paths are known."""

import numpy as np
import pytest
import trimesh

from keyorbit.geometry.geodesics import surface_distances

RNG = np.random.default_rng(0)


def along(mesh, starts, ends, **more):
    return surface_distances(np.asarray(mesh.vertices), np.asarray(mesh.faces), starts, ends, **more)


def test_on_a_plane_it_is_the_straight_distance():
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    faces = np.array([[0, 1, 2], [0, 2, 3], [2, 1, 0]])  # the last is the first from behind
    points = np.c_[RNG.random((12, 2)), np.zeros(12)]
    found = surface_distances(corners, faces, points, points)
    straight = np.linalg.norm(points[:, None] - points, axis=2)
    assert (found >= straight - 1e-9).all()
    assert found == pytest.approx(straight, rel=0.03, abs=0.003)
    assert (found / np.where(straight > 0, straight, 1))[straight > 0].mean() < 1.01
    assert found == pytest.approx(found.T)


def test_on_a_sphere_it_is_the_arc():
    ball = trimesh.creation.icosphere(subdivisions=4)
    points = RNG.normal(size=(8, 3))
    points /= np.linalg.norm(points, axis=1)[:, None]
    arcs = np.arccos(np.clip(points @ points.T, -1, 1))
    assert along(ball, points, points) == pytest.approx(arcs, rel=0.03, abs=0.01)


def test_around_the_edges_of_a_box_it_is_that_of_the_unfolded_box():
    box = trimesh.creation.box((2.0, 2.0, 2.0))
    # On one side; on the next one; on the opposite one; and on a neighbour, where the way goes across a corner.
    ends = np.array([[1.0, 0.5, 0.5], [0, 1, 0], [-1, 0, 0], [0.5, 1, 0.9]])
    start = np.array([[1.0, 0, 0]])
    unfolded = [np.hypot(0.5, 0.5), 2.0, 4.0, np.hypot(1 + 0.5, 0.9)]
    assert along(box, start, ends)[0] == pytest.approx(unfolded, rel=0.01)


def test_a_surface_is_not_left_though_its_other_side_is_near():
    # A thin plate, closed around: from above to below the way leads around the rim.
    plate = trimesh.creation.box((2.0, 2.0, 0.02))
    found = along(plate, np.array([[0.0, 0, 0.01]]), np.array([[0.0, 0, -0.01]]))
    assert found[0, 0] == pytest.approx(2.02, rel=0.01)


def test_parts_that_touch_are_joined_and_others_are_not():
    seat = trimesh.creation.box((1, 1, 0.1))
    leg = trimesh.creation.box((0.1, 0.1, 1))
    touching, apart = leg.copy(), leg.copy()
    touching.apply_translation((0.2, 0.2, -0.55))  # its top lies in the middle of a large face
    apart.apply_translation((0.2, 0.2, -0.70))
    start, foot = np.array([[0.0, 0.2, -0.05]]), np.array([[0.15, 0.2, -0.8]])
    joined, parted = (along(trimesh.util.concatenate([seat, part]), start, foot)[0, 0] for part in (touching, apart))
    assert joined == pytest.approx(0.15 + 0.75, rel=0.03)
    assert parted == np.inf


def test_vertices_at_one_place_are_one_and_the_unit_does_not_matter():
    box = trimesh.creation.box()
    torn = trimesh.Trimesh(box.triangles.reshape(-1, 3), np.arange(36).reshape(-1, 3), process=False)
    start, ends = np.array([[0.5, 0.1, 0.2]]), np.array([[-0.5, 0.3, 0], [0, 0.5, 0.2]])
    plain = along(box, start, ends)
    torn.apply_scale(1e4)
    assert along(torn, start * 1e4, ends * 1e4) == pytest.approx(plain * 1e4, rel=0.01)


def test_beyond_the_limit_it_is_infinite():
    box = trimesh.creation.box()
    start, ends = np.array([[0.5, 0, 0]]), np.array([[0.5, 0.2, 0], [0.0, 0.5, 0]])
    near, far = along(box, start, ends, limit=0.5)[0]
    # What a limit leaves out changes nothing within it: the sides of a thin plate stay apart.
    plate = trimesh.creation.box((2.0, 2.0, 0.02))
    sides = np.array([[0.1, 0, 0.01], [0, 0, -0.01]])
    assert along(plate, np.array([[0.0, 0, 0.01]]), sides, limit=0.3)[0] == pytest.approx([0.1, np.inf], rel=0.02)
    assert near == pytest.approx(0.2, rel=0.02)
    assert far == np.inf


def test_a_mesh_without_area_has_ways_along_its_edges():
    line = np.array([[0.0, 0, 0], [1, 0, 0], [3, 0, 0]])
    found = surface_distances(line, np.array([[0, 1, 2]]), line[:1], line[2:])
    assert found[0, 0] == pytest.approx(3)
    same = surface_distances(np.zeros((3, 3)), np.array([[0, 1, 2]]), np.zeros((1, 3)), np.zeros((1, 3)))
    assert same[0, 0] == pytest.approx(0, abs=1e-9)
