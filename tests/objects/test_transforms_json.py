"""NeRF's transforms.json as nerfstudio, instant-ngp and Blender's scenes write it, against a projection of its own."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.wrong_cameras import FLIP, RIG
from keyorbit.errors import InputError
from keyorbit.geometry.views import Layout
from keyorbit.objects.captures import load_capture

LAYOUT = Layout(3, 2)
WIDE, HIGH, FOCAL = 48, 32, 60.0
POINTS = torch.tensor([[0.0, 0, 0], [0.2, -0.1, 0.15], [-0.1, 0.2, -0.2]])
POSES = (torch.linalg.inv(RIG.world_to_camera) @ FLIP).double()


@pytest.fixture
def scene(tmp_path):
    """A folder with six photographs in images/; a call writes a file of cameras beside them."""
    (tmp_path / "images").mkdir()
    for i in range(6):
        Image.fromarray(np.full((HIGH, WIDE, 3), 40 * i, np.uint8)).save(tmp_path / "images" / f"frame_{i}.png")

    def write(top, frames=None, name="transforms.json"):
        poses = [{"file_path": f"images/frame_{i}.png", "transform_matrix": POSES[i].tolist()} for i in range(6)]
        (tmp_path / name).write_text(json.dumps(top | {"frames": poses if frames is None else frames(poses)}))
        return tmp_path

    return write


def seen(poses, fx=FOCAL, fy=FOCAL, cx=WIDE / 2, cy=HIGH / 2):
    """Where OpenGL's cameras see the points, in pixels of the middle square."""
    found = []
    for pose in poses:
        x, y, z = (torch.linalg.inv(pose) @ torch.cat([POINTS.double(), torch.ones(3, 1).double()], 1).T)[:3]
        found.append(torch.stack([fx * x / -z + cx - (WIDE - HIGH) / 2, -fy * y / -z + cy], -1))
    return torch.stack(found).float()


def read(folder, cameras=None):
    found = load_capture(folder / "images", cameras or folder, LAYOUT, 16)
    return found.cameras.project(POINTS) * HIGH


FULL = {"fl_x": FOCAL, "fl_y": 58.0, "cx": 26.0, "cy": 15.0, "w": WIDE, "h": HIGH}
ACROSS, DOWN = 2 * math.atan(WIDE / 2 / FOCAL), 2 * math.atan(HIGH / 2 / FOCAL)


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        (FULL, {"fy": 58.0, "cx": 26.0, "cy": 15.0}),
        (FULL | {"camera_model": "OPENCV", "k1": 0.0, "k2": 0, "p1": 0, "p2": 0}, {"fy": 58.0, "cx": 26.0, "cy": 15.0}),
        ({key: 4 * value for key, value in FULL.items()}, {"fy": 58.0, "cx": 26.0, "cy": 15.0}),
        ({"camera_angle_x": ACROSS}, {}),
        ({"camera_angle_x": ACROSS, "w": WIDE, "h": HIGH}, {}),
        ({"camera_angle_x": ACROSS, "camera_angle_y": DOWN, "w": WIDE, "h": HIGH, "cx": 25.0}, {"cx": 25.0}),
        ({"camera_angle_y": DOWN}, {}),
        ({"x_fov": math.degrees(ACROSS)}, {}),
        ({"fl_x": FOCAL, "aabb_scale": 16, "applied_transform": [[1, 0, 0, 5]], "ply_file_path": "x.ply"}, {}),
        ({"fl_x": FOCAL, "w": WIDE, "h": HIGH, "camera_model": None}, {}),
    ],
)
def test_points_are_seen_where_opengls_cameras_see_them(top, expected, scene):
    torch.testing.assert_close(read(scene(top)), seen(POSES, **expected), atol=1e-3, rtol=0)


def test_frames_may_have_intrinsics_of_their_own_any_order_and_three_rows(scene):
    def changed(frames):
        for i, frame in enumerate(frames):
            frame |= {"fl_x": 60.0 + i, "fl_y": 60.0 + i, "w": 48 * (1 + i), "h": 32 * (1 + i)}
            frame["fl_x"] *= 1 + i
            frame["fl_y"] *= 1 + i
            frame["transform_matrix"] = frame["transform_matrix"][: 3 + i % 2]
        unused = {
            "file_path": "images/frame_9.png",
            "transform_matrix": POSES[0].tolist(),
            "camera_model": "EQUIRECTANGULAR",
        }
        return [unused, *frames[::-1]]

    expected = torch.cat([seen(POSES[i : i + 1], 60.0 + i, 60.0 + i) for i in range(6)])
    torch.testing.assert_close(read(scene({}, changed)), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "name", ["./images/frame_{}", "images\\frame_{}.png", "/data/x/images/frame_{}.png", "frame_{}.png"]
)
def test_names_of_other_folders_systems_and_without_suffix(name, scene):
    def changed(frames):
        return [frame | {"file_path": name.format(i)} for i, frame in enumerate(frames)]

    torch.testing.assert_close(read(scene(FULL, changed)), seen(POSES, fy=58.0, cx=26.0, cy=15.0), atol=1e-3, rtol=0)


def test_blenders_scenes_have_a_file_for_each_part(scene, tmp_path):
    def part(named, turned):
        return lambda frames: [
            frame
            | {"file_path": f"./{named}/r_{i}", "transform_matrix": POSES[(i + turned) % 6].tolist(), "rotation": 0.01}
            for i, frame in enumerate(frames)
        ]

    for named, turned in (("train", 1), ("val", 2), ("test", 0)):
        scene({"camera_angle_x": ACROSS}, part(named, turned), f"transforms_{named}.json")
    for i in range(6):
        (tmp_path / "images" / f"frame_{i}.png").rename(tmp_path / "images" / f"r_{i}.png")
    with pytest.raises(InputError, match=r"has './train/r_0' and './val/r_0', and .*r_0.png may be either"):
        read(tmp_path)
    torch.testing.assert_close(read(tmp_path, tmp_path / "transforms_test.json"), seen(POSES), atol=1e-3, rtol=0)
    (tmp_path / "images").rename(tmp_path / "test")
    found = load_capture(tmp_path / "test", tmp_path, LAYOUT, 16).cameras.project(POINTS) * HIGH
    torch.testing.assert_close(found, seen(POSES), atol=1e-3, rtol=0)


def test_a_camera_that_is_scaled_in_blender_stands_where_it_stood(scene):
    def changed(frames):
        for frame in frames:
            for row in frame["transform_matrix"][:3]:
                row[:3] = [2.5 * value for value in row[:3]]
        return frames

    torch.testing.assert_close(read(scene({"camera_angle_x": ACROSS}, changed)), seen(POSES), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "top", [{"is_fisheye": True}, {"camera_model": "OPENCV_FISHEYE"}, {"k1": -0.3}, {"distortion_params": [0.3]}]
)
def test_distortion_is_undone(top, scene, tmp_path):
    plain = load_capture(scene(FULL) / "images", tmp_path, LAYOUT, 16)
    rng = np.random.default_rng(0)
    for path in sorted((tmp_path / "images").iterdir()):
        Image.fromarray(rng.integers(0, 255, (HIGH, WIDE, 3), dtype=np.uint8)).save(path)
    before = load_capture(scene(FULL) / "images", tmp_path, LAYOUT, 16)
    after = load_capture(scene(FULL | top) / "images", tmp_path, LAYOUT, 16)
    torch.testing.assert_close(after.cameras.intrinsics, plain.cameras.intrinsics)
    assert (before.views - after.views).abs().max() > 0.02


@pytest.mark.parametrize(
    ("poses", "words"),
    [
        (POSES @ FLIP.double(), "transform_matrix looks like camera-to-world in OpenCV's axes"),
        (RIG.world_to_camera.double(), "transform_matrix looks like world-to-camera in OpenCV's axes"),
        (FLIP.double() @ RIG.world_to_camera.double(), "transform_matrix looks like world-to-camera in OpenGL's axes"),
        (POSES[:1].expand(6, 4, 4), "do not look at one object: all stand at one point"),
        (POSES.mT, "the last row of transform_matrix is .*, not 0 0 0 1; if the position stands there, transpose"),
        (POSES * torch.tensor([0.0, 0, 0, 1]).double(), "is not rigid|has no inverse"),
        (POSES @ torch.diag(torch.tensor([-1.0, 1, 1, 1])).double(), "transform_matrix is mirrored"),
    ],
)
def test_other_conventions_are_named(poses, words, scene):
    def changed(frames):
        return [frame | {"transform_matrix": poses[i].tolist()} for i, frame in enumerate(frames)]

    with pytest.raises(InputError, match=rf"transforms\.json.*{words}"):
        read(scene(FULL, changed))


@pytest.mark.parametrize(
    ("top", "words"),
    [
        ({}, r"the camera of frame_0\.png cannot be used: it has no focal length: it needs fl_x or camera_angle_x"),
        ({"camera_angle_x": 43.6}, r"camera_angle_x cannot be 43\.6; it must be a number > 0 and < 3\.14"),
        ({"cx": 24.0, "w": WIDE, "h": HIGH}, r"it has no focal length"),
        ({"fl_x": "60"}, "fl_x cannot be '60'; it must be a number"),
        ({"fl_x": 0}, "fl_x cannot be 0; it must be a number > 0"),
        ({"fl_x": 0.9, "w": 48, "h": 32}, "has a focal length of 0.9 pixels for a picture 48 pixels wide"),
        (FULL | {"cx": 4000}, "has its principal point at 4000 in a picture 48 pixels wide, far outside"),
        ({"camera_angle_x": 0.7, "cx": 24.0}, "has cx or cy, and no w and h"),
        (FULL | {"camera_model": "EQUIRECTANGULAR"}, "it is a EQUIRECTANGULAR camera; there are: SIMPLE_PINHOLE, "),
        (
            FULL | {"distortion_params": [0.0] * 12},
            "it has 12 distortion_params, where k1, k2, k3, k4, p1, p2 are known",
        ),
        (FULL | {"w": 32, "h": 48}, r"is for pictures of 32x48 pixels, and frame_0\.png has 48x32 as stored"),
        (FULL | {"k1": -9.0}, r"frame_0\.png: its OPENCV lens moves pixels by up to \d+ and folds"),
    ],
)
def test_what_cannot_be_used_is_told(top, words, scene):
    with pytest.raises(InputError, match=words):
        read(scene(top))


def test_a_frame_twice_with_different_poses_is_told(scene):
    with pytest.raises(InputError, match=r"has 'images/frame_0\.png' twice, with different cameras: remove one"):
        read(scene(FULL, lambda frames: [*frames, frames[1] | {"file_path": frames[0]["file_path"]}]))
