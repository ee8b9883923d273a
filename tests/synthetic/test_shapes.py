"""Shapes: where rays leave them, and pieces that turn together with their keypoints."""

import numpy as np
import pytest

from keyorbit.synthetic.shapes import Build, Piece, box, ellipsoid, limb, rotation_about, surface_point, turned_build


@pytest.mark.parametrize("seed", range(4))
def test_a_ray_from_the_middle_of_a_box_leaves_it_at_the_nearest_wall(seed):
    rng = np.random.default_rng(seed)
    half, ray = rng.uniform(0.5, 2, 3), rng.normal(size=3)
    expected = ray * (half / np.abs(ray)).min()
    np.testing.assert_allclose(surface_point([box(-half, half)], (0, 0, 0), ray), expected, atol=1e-9)


def test_a_ray_goes_on_to_the_last_of_several_shapes_and_never_backwards():
    shapes = [box((-1, -1, -1), (1, 1, 1)), ellipsoid((3, 0, 0), 0.5), box((-9, -1, -1), (-8, 1, 1))]
    np.testing.assert_allclose(surface_point(shapes, (0, 0, 0), (2, 0, 0)), [3.5, 0, 0], atol=1e-9)
    with pytest.raises(ValueError, match="meets no face"):
        surface_point(shapes[2:], (0, 0, 0), (1, 0, 0))


def test_a_limb_has_domed_ends_half_a_radius_long():
    vertices = limb([(0, 0, 0), (0, 0, 2), (0, 0, 3)], [0.4, 0.3, 0.2]).vertices
    np.testing.assert_allclose([vertices[:, 2].min(), vertices[:, 2].max()], [-0.2, 3.1])


def test_keypoints_turn_with_their_pieces():
    cube = box((1, 2, 3), (2, 4, 6))
    corner = cube.vertices[0]
    build = turned_build(
        Build([Piece("cube", cube, "cubes")], {"corner": corner}), rotation_about("z", 90.0), (1, 0, 0)
    )
    np.testing.assert_allclose(build.points["corner"], build.pieces[0].shape.vertices[0])
    np.testing.assert_allclose(build.points["corner"], [1 - corner[1], corner[0] - 1, corner[2]], atol=1e-12)
    assert (build.pieces[0].name, build.pieces[0].group) == ("cube", "cubes")
