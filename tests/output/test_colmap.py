"""A COLMAP text model is read back by the rules of COLMAP's documentation, and shows the keypoints where they were."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras, orbit_cameras
from keyorbit.geometry.keypoints import Keypoints2D
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.output.colmap import write_colmap
from keyorbit.output.palette import palette
from keyorbit.storage.outputs import MARKER

WIDTH, HEIGHT = 320, 240
NAMES = [f"view_{i}.png" for i in range(6)]


@dataclass
class Image:
    rotation: np.ndarray
    translation: np.ndarray
    camera: int
    name: str
    xy: np.ndarray
    point_ids: list


@dataclass
class Point:
    xyz: np.ndarray
    rgb: list
    error: float
    track: list


def lines(path):
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def from_quaternion(w, x, y, z):
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def read_model(folder):
    """Cameras as (model, width, height, parameters), images, and points, each by its identifier."""
    cameras, images, points = {}, {}, {}
    for line in lines(folder / "cameras.txt"):
        number, model, width, height, *values = line.split()
        cameras[int(number)] = (model, int(width), int(height), [float(v) for v in values])
    rows = lines(folder / "images.txt")
    for about, seen in zip(rows[::2], rows[1::2], strict=True):
        number, *pose, camera, name = about.split()
        pose = np.array(pose, float)
        cells = np.array(seen.split(), float).reshape(-1, 3)
        rotation = from_quaternion(*pose[:4])
        images[int(number)] = Image(
            rotation, pose[4:], int(camera), name, cells[:, :2], cells[:, 2].astype(int).tolist()
        )
    for line in lines(folder / "points3D.txt"):
        number, *cells = line.split()
        track = np.array(cells[7:], int).reshape(-1, 2).tolist()
        points[int(number)] = Point(np.array(cells[:3], float), [int(c) for c in cells[3:6]], float(cells[6]), track)
    return cameras, images, points


def reproject(camera, image, xyz):
    """Pixels; (0.5, 0.5) is the middle of the first."""
    model, _, _, values = camera
    across, down, *middle = values if model == "PINHOLE" else (values[0], *values)
    x, y, z = image.rotation @ xyz + image.translation
    return np.array([across * x / z + middle[0], down * y / z + middle[1]])


def planted(cameras):
    """Keypoints 0 to 4; keypoint 1 is unseen in view 2, keypoint 3 everywhere."""
    xyz = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.2
    score = torch.ones(len(cameras), 5, dtype=torch.float64)
    score[2, 1] = 0
    score[:, 3] = 0
    return xyz, Keypoints2D(cameras.project(xyz), score, cameras)


@pytest.mark.parametrize("size", [(320, 320), (WIDTH, HEIGHT)])
def test_a_reader_gets_our_2d_back(size, tmp_path):
    width, height = size
    xyz, flat = planted(zero123plus_cameras("v1.2").to(dtype=torch.float64))
    write_colmap(tmp_path / "model", flat, flat.triangulate(), width, height, NAMES)
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        MARKER,
        "cameras.txt",
        "images.txt",
        "points3D.txt",
    }
    cameras, images, points = read_model(tmp_path / "model")
    # One camera took all pictures; its focal lengths differ where the view is not a square.
    ((model, *shape, values),) = cameras.values()
    assert (model, *shape) == ("SIMPLE_PINHOLE" if width == height else "PINHOLE", width, height)
    np.testing.assert_allclose(values[-2:], [width / 2, height / 2], atol=1e-4)
    assert [image.name for image in images.values()] == NAMES
    assert sorted(points) == [0, 1, 2, 4]
    for i, image in enumerate(images.values()):
        np.testing.assert_allclose(image.xy / size, flat.xy[i], atol=1e-7)
        for k, point in points.items():
            again = reproject(cameras[image.camera], image, point.xyz)
            np.testing.assert_allclose(again, flat.xy[i, k] * torch.tensor(size), atol=1e-4)
    for k, point in points.items():
        np.testing.assert_allclose(point.xyz, xyz[k], atol=1e-6)
        np.testing.assert_allclose(np.array(point.rgb) / 255, to_rgb(palette(5)[k]), atol=1 / 255)


def test_the_first_pixels_middle_is_one_half(tmp_path):
    """Our convention puts it at xy = 0.5/n; a point planted there has COLMAP's (0.5, 0.5)."""
    cameras = zero123plus_cameras("v1.2")
    corner = torch.tensor([0.5 / WIDTH, 0.5 / HEIGHT]).expand(6, 1, 2)
    flat = Keypoints2D(corner, torch.ones(6, 1), cameras)
    write_colmap(tmp_path / "model", flat, flat.triangulate(), WIDTH, HEIGHT, NAMES)
    _, images, _ = read_model(tmp_path / "model")
    np.testing.assert_allclose(images[1].xy, [[0.5, 0.5]], atol=1e-6)
    np.testing.assert_allclose(flat.to_pixels(HEIGHT, WIDTH)[0], [[0.0, 0.0]], atol=1e-5)


def test_tracks_and_observations_name_each_other(tmp_path):
    _, flat = planted(zero123plus_cameras("v1.2").to(dtype=torch.float64))
    write_colmap(tmp_path / "model", flat, flat.triangulate(), WIDTH, HEIGHT, NAMES)
    _, images, points = read_model(tmp_path / "model")
    assert images[3].point_ids == [0, -1, 2, -1, 4]
    assert images[1].point_ids == [0, 1, 2, -1, 4]
    seen = {(i, k, number) for i, image in images.items() for k, number in enumerate(image.point_ids) if number >= 0}
    assert seen == {(i, k, number) for number, point in points.items() for i, k in point.track}


def test_the_error_is_the_tracks_mean_in_pixels(tmp_path):
    cameras = zero123plus_cameras("v1.2").to(dtype=torch.float64)
    _, flat = planted(cameras)
    noise = torch.randn(flat.xy.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.01
    flat = Keypoints2D(flat.xy + noise, flat.score, cameras)
    write_colmap(tmp_path / "model", flat, flat.triangulate(), WIDTH, HEIGHT, NAMES)
    models, images, points = read_model(tmp_path / "model")
    for point in points.values():
        away = [
            np.linalg.norm(reproject(models[images[i].camera], images[i], point.xyz) - images[i].xy[k])
            for i, k in point.track
        ]
        assert point.error == pytest.approx(np.mean(away), rel=1e-4)
        assert point.error > 0.1


def test_cameras_that_differ_are_listed_each(tmp_path):
    cameras = orbit_cameras(
        [0.0, 90.0, 200.0], [10.0, -80.0, 30.0], 2.0, [30.0, 40.0, 30.0], roll_deg=[0.0, 180.0, 97.0]
    )
    _, flat = planted(cameras.to(dtype=torch.float64))
    write_colmap(tmp_path / "model", flat, flat.triangulate(), WIDTH, WIDTH, NAMES[:3])
    models, images, points = read_model(tmp_path / "model")
    assert [image.camera for image in images.values()] == [1, 2, 1]
    for i, image in enumerate(images.values()):
        np.testing.assert_allclose(
            reproject(models[image.camera], image, points[0].xyz) / WIDTH, flat.xy[i, 0], atol=1e-6
        )


@pytest.mark.parametrize(
    ("kind", "words"), [("orthographic", "rig is orthographic"), ("skewed", "skew"), ("none", "needs cameras")]
)
def test_what_colmap_cannot_say_is_refused(kind, words, tmp_path):
    cameras = orbit_cameras([0.0, 90.0, 180.0], 0.0, orthographic=kind == "orthographic")
    _, flat = planted(cameras.to(dtype=torch.float64))
    points = flat.triangulate()
    if kind == "skewed":
        intrinsics = cameras.intrinsics.clone()
        intrinsics[:, 0, 1] = 0.1
        flat = Keypoints2D(flat.xy, flat.score, Cameras(cameras.world_to_camera, intrinsics))
    if kind == "none":
        flat = Keypoints2D(flat.xy, flat.score)
    with pytest.raises(InputError, match=words):
        write_colmap(tmp_path / "model", flat, points, WIDTH, HEIGHT, NAMES[:3])
    assert list(tmp_path.iterdir()) == []
