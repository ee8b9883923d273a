"""Cameras of other conventions are named for what they are; those of any rig that looks at one object pass."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from helpers.wrong_cameras import BLENDER, CAMERA_TO_WORLD, FLIP, OPENGL, RIG, WRONG, posed, seen_through
from keyorbit.geometry.camera_checks import check_cameras
from keyorbit.geometry.cameras import Cameras, orbit_cameras
from keyorbit.geometry.rigs import known_rigs, rig


@pytest.mark.parametrize("name", WRONG)
def test_each_wrong_convention_is_named(name):
    cameras, words = WRONG[name]
    with pytest.raises(ValueError, match=words) as told:
        check_cameras(cameras)
    assert "expected is world_to_camera [view 4 4] with OpenCV's axes" in str(told.value)


@pytest.mark.parametrize("name", known_rigs())
def test_every_published_rig_passes_anywhere_and_its_wrong_readings_do_not(name):
    cameras = known_rigs()[name].cameras
    check_cameras(cameras)
    shift = torch.eye(4)
    shift[:3, 3] = torch.tensor([0.7, -1.3, 0.4])
    for poses in (cameras.world_to_camera, cameras.world_to_camera @ shift):
        check_cameras(posed(poses, cameras))
        inverse = torch.linalg.inv(poses)
        for words, wrong in ((CAMERA_TO_WORLD, inverse), (OPENGL, FLIP @ poses), (BLENDER, inverse @ FLIP)):
            assert re.search(words, said_of(wrong, cameras))


def turned(number, degrees, generator):
    """Small rotations as 4 x 4 matrices."""
    axis = torch.nn.functional.normalize(torch.randn(number, 3, generator=generator, dtype=torch.float64), dim=-1)
    angle = torch.rand(number, 1, generator=generator, dtype=torch.float64) * math.radians(degrees)
    rigid = torch.eye(4, dtype=torch.float64).repeat(number, 1, 1)
    rigid[:, :3, :3] = torch.from_numpy(Rotation.from_rotvec((axis * angle).numpy()).as_matrix())
    return rigid


def place_of(seed, away, unit):
    """Where the object is."""
    point = torch.randn(3, generator=torch.Generator().manual_seed(seed + 10**6), dtype=torch.float64)
    return point / point.norm() * away * unit


def planted(seed, views, fov, away, jitter, unit, spread=1.0):
    """Cameras that look at a point ``away`` from the origin, each aimed with an error, in a world of that ``unit``."""
    generator = torch.Generator().manual_seed(seed)
    azimuth = (torch.rand(views, generator=generator) * 360 * spread).tolist()
    elevation = ((torch.rand(views, generator=generator) - 0.5) * 120 * spread).tolist()
    roll = ((torch.rand(views, generator=generator) - 0.5) * 60).tolist()
    far = ((0.6 + torch.rand(views, generator=generator)) / math.tan(math.radians(fov / 2)) * unit).tolist()
    cameras = orbit_cameras(azimuth, elevation, far, fov, dtype=torch.float64, roll_deg=roll)
    shift = torch.eye(4, dtype=torch.float64)
    shift[:3, 3] = -place_of(seed, away, unit)
    poses = turned(views, jitter, generator) @ cameras.world_to_camera @ shift
    return Cameras(poses.float(), cameras.intrinsics.float())


PLANTED = {
    "seed": st.integers(0, 10**6),
    "fov": st.floats(20, 70),
    "away": st.sampled_from([0.0, 0.3, 2.0, 20.0]),
    "unit": st.sampled_from([1e-2, 1.0, 1e3]),
}


@settings(deadline=None, max_examples=150, derandomize=True)
@given(**PLANTED, views=st.integers(1, 16), jitter=st.floats(0, 0.25))
def test_cameras_that_look_at_one_object_pass(jitter, fov, **facts):
    """Aimed within a quarter of the field of view, from anywhere, in any unit."""
    check_cameras(planted(**facts, fov=fov, jitter=jitter * fov))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(**PLANTED)
def test_photographs_from_one_side_pass(**facts):
    check_cameras(planted(**facts, views=6, jitter=0.0, spread=0.08))


def said_of(poses, cameras):
    try:
        check_cameras(posed(poses, cameras))
    except ValueError as error:
        return str(error)
    return "nothing"


@pytest.mark.parametrize(("away", "least"), [(0.0, 100), (0.3, 97), (2.0, 97), (20.0, 97)])
def test_wrong_readings_of_six_views_are_named(away, least):
    """All, where the object is at the world's origin; elsewhere some wrong readings look at one point too."""
    right = dict.fromkeys((CAMERA_TO_WORLD, OPENGL, BLENDER), 0)
    for seed in range(100):
        cameras = planted(seed, 6, 20.0 + seed % 50, away, 0.0, 10.0 ** (seed % 5 - 2))
        poses = cameras.world_to_camera
        inverse = torch.linalg.inv(poses)
        for words, wrong in ((CAMERA_TO_WORLD, inverse), (OPENGL, FLIP @ poses), (BLENDER, inverse @ FLIP)):
            right[words] += bool(re.search(words, said_of(wrong, cameras)))
    assert min(right.values()) >= least, right


def test_pictures_of_another_shape_show():
    wide = seen_through(lambda inner: torch.diag(torch.tensor([0.75, 1, 1])).double() @ inner)
    check_cameras(wide, torch.full((6,), 4 / 3))
    check_cameras(RIG, torch.ones(6))
    check_cameras(RIG, torch.full((6,), 1.05))
    with pytest.raises(ValueError, match=r"view 0 are for a picture of another shape: .* 0.75 times as wide"):
        check_cameras(RIG, torch.full((6,), 4 / 3))
    with pytest.raises(ValueError, match="view 4 are for"):
        check_cameras(wide, torch.tensor([4 / 3] * 4 + [1.0] + [4 / 3]))


def test_the_middle_square_of_cut_pictures_passes():
    """Photographs that were cut by hand, each elsewhere, have principal points anywhere."""
    inner = RIG.intrinsics.clone()
    inner[:, 0, 2] += torch.tensor([0.3, -0.3, 0.2, 0.0, 0.25, -0.1])
    inner[:, 1, 2] += torch.tensor([0.3, 0.1, -0.2, 0.0, 0.25, -0.1])
    check_cameras(Cameras(RIG.world_to_camera, inner), torch.ones(6))
    check_cameras(Cameras(RIG.world_to_camera, RIG.intrinsics + torch.tensor([[0, 0, 0.05], [0, 0, 0.05], [0, 0, 0]])))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(**PLANTED, cut=st.floats(1, 40))
def test_pictures_cut_round_the_object_pass(cut, **facts):
    """Of wide pictures in which the object is anywhere, the piece that shows it, with the intrinsics of that piece."""
    cameras = planted(**facts, views=6, jitter=0.4 * facts["fov"])
    place = place_of(facts["seed"], facts["away"], facts["unit"]).float()
    where = cameras.project(place[None])[:, 0] + torch.tensor([0.2, -0.1]) / cut
    inner = cameras.intrinsics.clone()
    inner[:, :2, 2] = (inner[:, :2, 2] - where) * cut + 0.5
    inner[:, 0, 0] *= cut
    inner[:, 1, 1] *= cut
    check_cameras(Cameras(cameras.world_to_camera, inner), torch.ones(6))


def test_orthographic_cameras_have_focal_lengths_of_any_size():
    check_cameras(orbit_cameras([0.0, 90.0, 180.0], 0.0, orthographic=True, scale=1e-3))
    check_cameras(orbit_cameras([0.0, 90.0, 180.0], 0.0, orthographic=True, scale=1e3))
    inner = RIG.intrinsics * torch.tensor([[64.0], [64], [1]])
    with pytest.raises(ValueError, match="pixels"):
        check_cameras(Cameras(RIG.world_to_camera, inner, True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"world_to_camera": [[1, 2], [3]]},
            r"world_to_camera\[0\] cannot be \[1, 2\]; it must be a list of length >= 3 and",
        ),
        ({"world_to_camera": "there"}, "world_to_camera cannot be 'there'; it must be a list"),
        ({"intrinsics": [[["a"] * 3] * 3] * 6}, r"intrinsics\[0\]\[0\]\[0\] cannot be 'a'; it must be a number"),
        ({"intrinsics": None}, "intrinsics cannot be None"),
        ({"intrinsics": [[[10**400] * 3] * 3] * 6}, r"intrinsics\[0\]\[0\]\[0\] cannot be 1000"),
        (
            {"world_to_camera": RIG.world_to_camera[:, :2].tolist()},
            r"world_to_camera\[0\] cannot be .*; it must be a list of length >= 3 and of length <= 4",
        ),
        (
            {"intrinsics": RIG.intrinsics[0].tolist()},
            r"intrinsics\[0\]\[0\] cannot be 1\.\d+; it must be a list of length 3",
        ),
        ({"orthographic": "no"}, "orthographic cannot be 'no'; it must be true or false"),
        ({"intrinsics": RIG.intrinsics[:5].tolist()}, "6 matrices world_to_camera and 5 intrinsics"),
    ],
)
def test_lists_that_are_no_matrices_are_told(change, words):
    with pytest.raises(ValueError, match=words):
        Cameras.from_dict(RIG.to_dict() | change)


def test_axes_that_are_not_at_right_angles():
    cameras = rig("instantmesh").cameras
    for row, column in ((0, 1), (1, 0)):
        inner = cameras.intrinsics.clone()
        inner[2, row, column] = 1e6
        with pytest.raises(ValueError, match=r"intrinsics have 1e\+06 beside the focal lengths"):
            check_cameras(Cameras(cameras.world_to_camera, inner))


@pytest.mark.parametrize(("away", "fine"), [(1e3, True), (1e6, False)])
def test_a_world_whose_origin_is_too_far_for_single_precision_is_told(away, fine):
    poses = RIG.world_to_camera.double()
    poses[:, :3, 3] += poses[:, :3, 0] * away
    cameras = Cameras(poses, RIG.intrinsics.double())
    if fine:
        check_cameras(cameras)
        return
    with pytest.raises(
        ValueError, match=r"are 1e\+06 from the origin and 1.9\d* from each other, which is too far for"
    ):
        check_cameras(cameras)
