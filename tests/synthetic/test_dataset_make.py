"""Procedural objects: exact keypoints, closed parts, deterministic pictures."""

import numpy as np
import pytest
import torch
import trimesh

from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.objects.dataset import load_dataset
from keyorbit.synthetic.choices import MAX_OBJECTS
from keyorbit.synthetic.dataset import make_dataset
from keyorbit.synthetic.objects import make_object
from keyorbit.synthetic.plan import DatasetSpec
from keyorbit.synthetic.render import Light, Surface, composite, object_surface, render, visible
from keyorbit.synthetic.samples import SURFACE_POINTS, SampleSpec, input_azimuth, make_sample, make_samples
from keyorbit.synthetic.shapes import box, prism


def test_shapes_are_closed_and_face_outwards():
    for shape, volume in (
        (box((0.0, 0.0, 0.0), (1.0, 2.0, 3.0)), 6.0),
        (prism((0.0, 0.0, 0.0), (0.3, 0.0, 2.0), (0.5, 0.5)), 2.0),
        (prism((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0), sides=64), np.pi),
    ):
        mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
        assert mesh.is_watertight
        assert mesh.volume == pytest.approx(volume, rel=5e-3)


@pytest.mark.parametrize("seed", range(12))
def test_chairs_fit_the_sphere_and_their_keypoints_lie_on_them(seed):
    chair = make_object("chair", seed)
    surface = object_surface(chair)
    assert np.linalg.norm(surface.mesh.vertices, axis=1).max() == pytest.approx(0.5, abs=1e-6)
    triangles = surface.mesh.triangles
    for name, point, known in zip(chair.names, chair.keypoints, chair.known, strict=True):
        if known:
            near = trimesh.triangles.closest_point(triangles, np.broadcast_to(point, (len(triangles), 3)))
            assert np.linalg.norm(near - point, axis=1).min() < 0.03, name
    at = dict(zip(chair.names, chair.keypoints, strict=True))
    assert at["seat front left"][0] > at["seat back left"][0]
    assert at["seat front left"][1] > at["seat front right"][1]
    assert at["foot front left"][2] < at["seat front left"][2] < at["back top left"][2]
    for left, right in chair.pairs:
        np.testing.assert_allclose(chair.keypoints[left], chair.keypoints[right] * [1, -1, 1], atol=1e-9)


def test_the_seed_decides():
    first, again, other = (make_sample(SampleSpec("chair", seed, 16)) for seed in (3, 3, 4))
    assert np.array_equal(first.views, again.views)
    assert not np.array_equal(first.views, other.views)
    specs = [SampleSpec("chair", seed, 16) for seed in range(4)]
    for one, two in zip(make_samples(specs, 1), make_samples(specs, 2), strict=True):
        assert np.array_equal(one.views, two.views)


def test_visible_keypoints_are_seen_on_the_object():
    sample = make_sample(SampleSpec("chair", 5))
    alphas = [sample.input_image[..., 3], *sample.views[..., 3]]
    for alpha, xy, seen in zip(alphas, sample.keypoints_2d, sample.visible, strict=True):
        grown = torch.nn.functional.max_pool2d(torch.from_numpy(alpha > 0).float()[None], 5, 1, 2)[0]
        for column, row in (xy[seen] * 64).astype(int).clip(0, 63):
            assert grown[row, column] > 0


def cube(color=(0.2, 0.5, 0.8)):
    shape = box((-0.2, -0.2, -0.2), (0.2, 0.2, 0.2))
    return Surface(trimesh.Trimesh(shape.vertices, shape.faces, process=False), np.tile(color, (12, 1)))


def test_the_input_views_azimuth_is_known_without_the_scene():
    specs = [SampleSpec("mug", 3, 8), SampleSpec("chair", 4, 8, turn_deg=40.0)]
    assert [input_azimuth(spec) for spec in specs] == [make_sample(spec).input_azimuth_deg for spec in specs]


def test_the_input_picture_stands_on_its_background(tmp_path):
    make_dataset(tmp_path, DatasetSpec("chair", 8, seed=10, size=16))
    grounds = []
    for i, thing in enumerate(load_dataset(tmp_path)):
        sample = make_sample(SampleSpec("chair", 10 * MAX_OBJECTS + i, 16))
        corner = np.asarray(thing.input_image)[0, 0] / 255
        np.testing.assert_allclose(corner, sample.background, atol=1 / 255)
        grounds.append(tuple(corner))
    assert len(set(grounds)) >= 3


def test_a_cube_is_drawn_where_it_is_in_its_colour():
    picture = render(cube(), orbit_cameras([0.0], [0.0]), 64, Light(ambient=1.0, diffuse=0.0))[0]
    # The near face, 0.4 wide, stands 1.666 from the camera; the view is 1 wide at 1.866.
    width = 0.4 * 1.866 / 1.666 * 64
    assert (picture[32, :, 3] == 255).sum() == pytest.approx(width, abs=2)
    assert picture[32, 32, :3].tolist() == [51, 128, 204]
    assert composite(picture)[0, 0].tolist() == [127, 127, 127]


def test_points_behind_the_object_are_hidden():
    seen = visible(cube(), np.array([[0.2, 0, 0], [-0.2, 0, 0]]), orbit_cameras([0.0, 180.0], [0.0, 0.0]))
    assert seen.tolist() == [[True, False], [False, True]]


def test_a_dataset_comes_back_from_disk(tmp_path):
    make_dataset(tmp_path, DatasetSpec("chair", 2, seed=7, size=32))
    objects = load_dataset(tmp_path)
    sample = make_sample(SampleSpec("chair", 7 * MAX_OBJECTS + 1, 32))
    assert len(objects) == 2
    thing = objects[1]
    assert thing.caption == sample.caption
    np.testing.assert_allclose(thing.truth.keypoints_3d, sample.keypoints_3d, atol=1e-6)
    np.testing.assert_array_equal(thing.masks, sample.views[..., 3] > 127)
    np.testing.assert_allclose(thing.views.permute(0, 2, 3, 1) * 255, composite(sample.views), atol=1)
    projected = thing.cameras.project(thing.truth.keypoints_3d)
    torch.testing.assert_close(projected, thing.truth.keypoints_2d[1:], atol=1e-5, rtol=0)


def test_shards_make_the_dataset_that_one_machine_makes(tmp_path):
    make_dataset(tmp_path / "one", DatasetSpec("lamp", 3, seed=7, size=16))
    for i in range(2):
        make_dataset(tmp_path / "shards", DatasetSpec("lamp", 3, seed=7, size=16, shard=(i, 2)))
    files = {
        root: {path.relative_to(tmp_path / root): path.read_bytes() for path in sorted((tmp_path / root).rglob("*.*"))}
        for root in ("one", "shards")
    }
    assert files["one"] == files["shards"]
    assert len(files["one"]) == 12


def test_a_turned_sample_is_the_same_object_from_further_round():
    still, turned = (make_sample(SampleSpec("mug", 3, 16, turn)) for turn in (0.0, 90.0))
    # The object turns the other way: (x, y) goes to (y, -x).
    for name in ("keypoints_3d", "surface"):
        before, after = getattr(still, name), getattr(turned, name)
        np.testing.assert_allclose(after, np.stack([before[:, 1], -before[:, 0], before[:, 2]], 1), atol=1e-9)
    assert still.input_elevation_deg == turned.input_elevation_deg
    assert len(still.surface) == SURFACE_POINTS
