"""Every rig gives planted points back, and shows the object's sides where a person looking through it sees them."""

import math
from pathlib import Path

import pytest
import torch

from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.geometry.rigs import Rig, known_rigs, rig, zero123plus_cameras
from keyorbit.geometry.triangulation import triangulate
from keyorbit.geometry.views import Layout, merge_views, split_views

NAMES = list(known_rigs())
# A person in front of the object sees these sides; the object's own left hand is on their right.
FRONT, RIGHT_HAND, UP = (0.3, 0.0, 0.0), (0.0, 0.3, 0.0), (0.0, 0.0, 0.3)


def planted(count=7, seed=0):
    return 0.8 * torch.rand(2, count, 3, generator=torch.Generator().manual_seed(seed)) - 0.4


def seen(name, view, point):
    """Where a view sees a point, from its middle: right and up are positive."""
    x, y = rig(name).cameras.project(torch.tensor([point]))[view, 0].tolist()
    return x - 0.5, 0.5 - y


def test_all_published_models_are_there():
    assert set(NAMES) == {
        "zero123plus-v1.1",
        "zero123plus-v1.2",
        "instantmesh",
        "syncdreamer",
        "wonder3d",
        "era3d",
        "mvdream",
        "mv-adapter",
    }
    with pytest.raises(ValueError, match=r"'zero124'.*wonder3d"):
        rig("zero124")
    assert known_rigs()["wonder3d"] is rig("wonder3d")


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_whole(name):
    entry = rig(name)
    assert entry.layout.num_views == len(entry.cameras) == len(entry.azimuth_deg) == len(entry.elevation_deg)
    assert all(0 <= a < 360 for a in entry.azimuth_deg)
    assert all(abs(e) < 90 for e in entry.elevation_deg)
    assert "github.com/" in entry.source
    assert entry.scale_known or "unit is" in entry.note
    assert entry.tiled == (entry.layout == Layout(3, 2))


@pytest.mark.parametrize("name", NAMES)
def test_planted_points_come_back(name):
    cameras = rig(name).cameras
    points = planted()
    assert (triangulate(cameras.project(points), cameras) - points).abs().max() < 1e-4


@pytest.mark.parametrize("name", [name for name in NAMES if not rig(name).scale_known])
def test_without_a_known_scale_points_come_back_up_to_one_common_scale(name):
    entry = rig(name)
    # The same pictures, taken in a world 1.7 times as large: by farther cameras, or a wider orthographic side.
    real = orbit_cameras(
        entry.azimuth_deg,
        entry.elevation_deg,
        1.7 * entry.distance,
        entry.fov_deg,
        entry.orthographic,
        1.7 * entry.side,
    )
    points = 1.7 * planted()
    assert (1.7 * triangulate(real.project(points), entry.cameras) - points).abs().max() < 1e-4


@pytest.mark.parametrize("name", [name for name in NAMES if not rig(name).scale_known])
def test_the_unit_is_what_the_note_says(name):
    entry = rig(name)
    if name == "zero123plus-v1.1":
        assert entry.distance * 2 / 3 == pytest.approx(1.0)
    else:
        # Half a unit to the right of the origin lies on the right edge of the first view.
        az = math.radians(entry.azimuth_deg[0])
        assert seen(name, 0, (-0.5 * math.sin(az), 0.5 * math.cos(az), 0.0))[0] == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("orthographic", [False, True])
def test_planted_points_come_back_from_rolled_cameras(orthographic):
    entry = Rig(
        "rolled",
        Layout(2, 2),
        True,
        (0.0, 50.0, 120.0, 250.0),
        (80.0, -60.0, 10.0, 0.0),
        "input",
        "canonical",
        "here",
        "",
        roll_deg=(0.0, 90.0, -35.0, 180.0),
        orthographic=orthographic,
    )
    points = planted()
    assert (triangulate(entry.cameras.project(points), entry.cameras) - points).abs().max() < 1e-4
    level = orbit_cameras(entry.azimuth_deg, entry.elevation_deg, orthographic=orthographic)
    assert (level.project(points) - entry.cameras.project(points))[:, 1:].abs().max() > 0.1
    torch.testing.assert_close(level.centers, entry.cameras.centers, atol=1e-6, rtol=0)


def test_a_camera_rolled_to_its_right_sees_up_on_the_left():
    cameras = orbit_cameras((0.0, 0.0, 0.0), 0.0, orthographic=True, roll_deg=(90.0, -90.0, 180.0))
    xy = cameras.project(torch.tensor([UP]))[:, 0] - 0.5
    torch.testing.assert_close(xy, torch.tensor([[-0.3, 0.0], [0.3, 0.0], [0.0, 0.3]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["wonder3d", "era3d", "mv-adapter"])
def test_the_named_views_of_an_orthographic_model(name):
    front, front_right, right, back, left, front_left = range(6)
    reach = 0.3 / rig(name).side
    slant = reach * math.sqrt(0.5)
    expected = {  # where a view sees the object's front and its right-hand side, left or right of the middle
        front: (0.0, reach),
        front_right: (-slant, slant),
        right: (-reach, 0.0),
        back: (0.0, -reach),
        left: (reach, 0.0),
        front_left: (slant, slant),
    }
    for view, (of_front, of_right) in expected.items():
        assert seen(name, view, FRONT) == pytest.approx((of_front, 0.0), abs=1e-6)
        assert seen(name, view, RIGHT_HAND) == pytest.approx((of_right, 0.0), abs=1e-6)
        assert seen(name, view, UP) == pytest.approx((0.0, reach), abs=1e-6)
    # The camera of `right` stands on the right-hand side: that side is nearest to it.
    depth = rig(name).cameras.depth(torch.tensor([RIGHT_HAND, (0.0, -0.3, 0.0)]))
    assert depth[right, 0] < depth[right, 1]
    assert depth[left, 0] > depth[left, 1]


@pytest.mark.parametrize(("name", "right"), [("mvdream", 1), ("syncdreamer", 4)])
def test_a_quarter_turn_of_a_perspective_model_goes_to_the_right(name, right):
    assert rig(name).azimuth_deg[right] == 90.0
    assert seen(name, 0, FRONT)[0] == pytest.approx(0.0, abs=1e-6)
    assert seen(name, 0, RIGHT_HAND)[0] > 0.1
    assert seen(name, right, FRONT)[0] < -0.1
    assert seen(name, right, RIGHT_HAND)[0] == pytest.approx(0.0, abs=1e-6)
    # From above the horizon, what is nearer lies lower, and up is up.
    assert seen(name, 0, FRONT)[1] < -0.02
    assert seen(name, 0, UP)[1] > 0.1


@pytest.mark.parametrize("name", ["zero123plus-v1.1", "zero123plus-v1.2", "instantmesh"])
def test_a_tiled_model_starts_a_little_to_the_right_and_above(name):
    entry = rig(name)
    # The first view stands 30° to the right, so the front is seen on the left and the right-hand side on the right.
    assert seen(name, 0, FRONT)[0] < -0.02
    assert seen(name, 0, RIGHT_HAND)[0] > 0.02
    above = entry.cameras.centers[:, 2] > 0
    assert above.tolist() == [True, False] * 3


def test_zero123plus_is_as_zero123plus_cameras_has_it():
    for version in ("v1.1", "v1.2"):
        ours, theirs = rig(f"zero123plus-{version}").cameras, zero123plus_cameras(version)
        assert torch.equal(ours.world_to_camera, theirs.world_to_camera)
        assert torch.equal(ours.intrinsics, theirs.intrinsics)


def test_instantmesh_is_zero123plus_in_a_larger_world():
    small, large = rig("zero123plus-v1.2").cameras, rig("instantmesh").cameras
    points = planted()
    ratio = rig("instantmesh").distance / rig("zero123plus-v1.2").distance
    assert ratio == pytest.approx(2.14, abs=0.01)
    torch.testing.assert_close(large.project(ratio * points), small.project(points), atol=1e-5, rtol=0)


def test_a_strip_of_views_is_a_layout_like_any_other():
    views = torch.rand(2, 16, 3, 4, 5)
    entry = rig("syncdreamer")
    assert torch.equal(entry.views(views.flatten(0, 1)), views)
    strip = merge_views(views.transpose(1, 2), entry.layout)
    assert strip.shape == (2, 3, 4, 80)
    assert torch.equal(split_views(strip, entry.layout).transpose(1, 2), views)
    column = merge_views(views.transpose(1, 2), 16, 1)
    assert torch.equal(split_views(column, 16, 1).transpose(1, 2), views)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="batch of 7 does not divide into objects of 6"):
        rig("era3d").views(torch.zeros(7, 3, 4, 4))
    with pytest.raises(ValueError, match="does not divide into 3 rows"):
        rig("instantmesh").views(torch.zeros(1, 3, 16, 24))
    with pytest.raises(ValueError, match="2 cameras do not fill 3 rows"):
        Rig("short", Layout(3, 2), True, (0.0, 90.0), (0.0, 0.0), "input", "input", "here", "")


def test_the_table_has_every_rig():
    table = (Path(__file__).parents[2] / "docs" / "layouts.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in table.splitlines() if line.startswith("| `") and line.count("|") == 8}
    assert set(rows) == set(NAMES)
    for name, row in rows.items():
        assert ("scale unknown" in row) == (not rig(name).scale_known)
        assert ("field of view unknown" in row) == (not rig(name).fov_known)
        assert ("orthographic" in row) == rig(name).orthographic
        _, _, _, azimuth, elevation, *_ = row.split("|")
        for cell, frame in ((azimuth, rig(name).azimuth_from), (elevation, rig(name).elevation_from)):
            assert cell.strip(" *").endswith("own" if frame == "canonical" else "input")


def test_azimuths_are_the_objects_own_where_the_models_authors_say_so():
    # bytedance/MVDream issue 19; huanngzh/MV-Adapter issue 42. All others count from the input view.
    assert {name for name in NAMES if rig(name).azimuth_from == "canonical"} == {"mvdream", "mv-adapter"}
