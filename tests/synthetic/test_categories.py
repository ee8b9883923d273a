"""What holds for every category: keypoints on the surface, a front that shows, seeds that decide, known words."""

from functools import cache

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from keyorbit.synthetic.objects import CATEGORIES, make_object
from keyorbit.synthetic.render import object_surface
from keyorbit.synthetic.shapes import box, join, revolved, rotation_about

# Posed limbs may cross the middle.
ARTICULATED = {"person", "animal"}
OBJECTS = 60
FEW = range(6)
each_category = pytest.mark.parametrize("category", CATEGORIES)


@cache
def objects(category):
    return [make_object(category, seed) for seed in range(OBJECTS)]


def distance_to_surface(triangles, point):
    near = trimesh.triangles.closest_point(triangles, np.broadcast_to(point, (len(triangles), 3)))
    return np.linalg.norm(near - point, axis=1).min()


@each_category
def test_known_keypoints_lie_on_the_object(category):
    for seed in FEW:
        thing = objects(category)[seed]
        mesh = object_surface(thing).mesh
        triangles = mesh.triangles[mesh.area_faces > 1e-12]  # the poles of ellipsoids have triangles without area
        for name, point, known in zip(thing.names, thing.keypoints, thing.known, strict=True):
            if known:
                assert distance_to_surface(triangles, point) < 0.03, f"{name} of {category} {seed}"


@each_category
def test_objects_fit_the_sphere_in_few_triangles(category):
    for thing in objects(category):
        mesh = object_surface(thing).mesh
        assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(0.5, abs=1e-6)
        assert len(mesh.faces) < 2000


@each_category
def test_parts_are_closed_and_face_outwards(category):
    for seed in FEW:
        for part in objects(category)[seed].parts:
            mesh = trimesh.Trimesh(part.shape.vertices, part.shape.faces, process=False)
            assert mesh.is_watertight, f"{part.name} of {category} {seed}"
            assert mesh.volume > 0, f"{part.name} of {category} {seed}"


@each_category
def test_keypoints_have_names_and_twins(category):
    spec = CATEGORIES[category]
    names = spec.keypoint_names
    assert 10 <= len(names) <= 20
    assert len(set(names)) == len(names)
    paired = [name for pair in spec.pairs for name in pair]
    assert len(set(paired)) == len(paired)
    assert set(paired) <= set(names)
    for pair in spec.pairs:
        assert [name.replace("left", "right") for name in pair] == [pair[1]] * 2
    assert {name for name in names if {"left", "right"} & set(name.split())} == set(paired)


@each_category
def test_builders_name_only_declared_keypoints(category):
    spec = CATEGORIES[category]
    for seed in range(OBJECTS):
        assert set(spec.build(np.random.default_rng(seed)).points) <= set(spec.keypoint_names)


@each_category
def test_every_keypoint_is_often_there(category):
    share = np.mean([thing.known for thing in objects(category)], axis=0)
    rare = [name for name, often in zip(CATEGORIES[category].keypoint_names, share, strict=True) if often < 1 / 3]
    assert rare == []


@each_category
def test_twins_stand_on_their_sides(category):
    """Left is +y; what is not posed is its own mirror image."""
    for thing in objects(category):
        for left, right in thing.pairs:
            assert thing.known[left] == thing.known[right]
            if category in ARTICULATED or not thing.known[left]:
                continue
            assert thing.keypoints[left, 1] > 0 > thing.keypoints[right, 1]
            np.testing.assert_allclose(thing.keypoints[left], thing.keypoints[right] * [1, -1, 1], atol=1e-9)


@each_category
def test_the_seed_decides_the_object(category):
    first, again = (make_object(category, 3) for _ in range(2))
    assert first.captions == again.captions
    assert np.array_equal(first.keypoints, again.keypoints)
    for one, two in zip(first.parts, again.parts, strict=True):
        assert np.array_equal(one.shape.vertices, two.shape.vertices)
        assert one.paint.words == two.paint.words
    shapes = {thing.keypoints.tobytes() for thing in objects(category)}
    assert len(shapes) == OBJECTS


def turn_distance(mesh, degrees):
    """Mean distance between the surface and itself turned about the vertical, less that of two samplings of it."""
    one, two = (trimesh.sample.sample_surface(mesh, 4000, seed=seed)[0] for seed in (0, 1))
    turned = one @ rotation_about("z", degrees).T

    def chamfer(first, second):
        return (cKDTree(first).query(second)[0].mean() + cKDTree(second).query(first)[0].mean()) / 2

    return chamfer(turned, two) - chamfer(one, two)


@each_category
@pytest.mark.parametrize("degrees", [90.0, 180.0])
def test_no_object_looks_alike_from_another_side(category, degrees):
    for seed in FEW:
        assert turn_distance(object_surface(objects(category)[seed]).mesh, degrees) > 0.002, f"{category} {seed}"


def test_a_table_without_a_front_would_be_noticed():
    """The measure above is zero on what is symmetric."""
    legs = [box((x - 0.05, y - 0.05, -0.3), (x + 0.05, y + 0.05, 0.2)) for x in (-0.3, 0.3) for y in (-0.3, 0.3)]
    shape = join([box((-0.35, -0.35, 0.2), (0.35, 0.35, 0.25)), *legs])
    mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    assert abs(turn_distance(mesh, 90.0)) < 5e-4
    assert abs(turn_distance(mesh, 180.0)) < 5e-4


def test_a_square_section_has_the_half_width_of_its_profile():
    shape = revolved([(0.3, 0.0), (0.2, 1.0)], square=True)
    mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    np.testing.assert_allclose(mesh.bounds, [[-0.3, -0.3, 0.0], [0.3, 0.3, 1.0]], atol=1e-12)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx((0.36 + 0.16 + 0.24) / 3)
