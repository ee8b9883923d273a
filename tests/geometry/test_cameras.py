import json
import math

import pytest
import torch

from keyorbit.geometry.cameras import Cameras, orbit_cameras
from keyorbit.geometry.rigs import zero123plus_cameras


def test_zero123plus_cameras_stand_where_the_model_renders():
    cameras = zero123plus_cameras()
    radius = 0.5 / math.tan(math.radians(15))
    for i, centre in enumerate(cameras.centers):
        x, y, z = centre.tolist()
        assert math.sqrt(x * x + y * y + z * z) == pytest.approx(radius, rel=1e-5)
        assert math.degrees(math.atan2(y, x)) % 360 == pytest.approx(30 + 60 * i, abs=1e-3)
        assert math.degrees(math.asin(z / radius)) == pytest.approx(20 if i % 2 == 0 else -10, abs=1e-3)
    assert cameras.intrinsics[0, 0, 0].item() == pytest.approx(0.5 / math.tan(math.radians(15)), rel=1e-6)


def test_version_1_1_and_unknown_versions():
    cameras = zero123plus_cameras("v1.1")
    elevation = torch.rad2deg(torch.asin(cameras.centers[:, 2] / cameras.centers.norm(dim=-1)))
    assert torch.allclose(elevation, torch.tensor([30.0, -20.0] * 3), atol=1e-3)
    assert cameras.intrinsics[0, 0, 0].item() == pytest.approx(0.5 / math.tan(math.radians(49.13 / 2)), rel=1e-5)
    with pytest.raises(ValueError, match=r"v1\.1.*v1\.2"):
        zero123plus_cameras("v2")


@pytest.mark.parametrize("orthographic", [False, True])
def test_right_is_x_up_is_minus_y_and_the_origin_is_central(orthographic):
    # From azimuth 0 the camera looks along −x: +y lies to the right, +z up.
    camera = orbit_cameras(0.0, 0.0, distance=2.0, orthographic=orthographic)
    xy = camera.project(torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 0.1], [0.3, 0.0, 0.0]]))[0]
    assert torch.allclose(xy[0], torch.tensor([0.5, 0.5]), atol=1e-6)
    assert xy[1, 0] > 0.55
    assert xy[1, 1].item() == pytest.approx(0.5)
    assert xy[2, 1] < 0.45
    assert xy[2, 0].item() == pytest.approx(0.5)
    assert torch.allclose(xy[3], xy[0], atol=1e-6)


def test_projection_by_hand():
    camera = orbit_cameras(0.0, 0.0, distance=2.0, fov_deg=90.0)
    # At depth 2 − 0.5 = 1.5 a 90° view is 3 wide: y = 0.3 is a tenth of it from the centre.
    assert camera.project(torch.tensor([[0.5, 0.3, 0.0]]))[0, 0, 0].item() == pytest.approx(0.6)
    assert camera.depth(torch.tensor([[0.5, 0.3, 0.0]]))[0, 0].item() == pytest.approx(1.5)


def test_the_view_edge_is_half_the_field_of_view():
    camera = orbit_cameras(0.0, 0.0, distance=1.0, fov_deg=30.0)
    edge = math.tan(math.radians(15))
    assert camera.project(torch.tensor([[0.0, edge, -edge]]))[0, 0].tolist() == pytest.approx([1.0, 1.0])


def test_an_orthographic_square_spans_the_scale():
    camera = orbit_cameras(0.0, 0.0, orthographic=True)
    assert camera.project(torch.tensor([[7.0, 0.5, 0.5]]))[0, 0].tolist() == pytest.approx([1.0, 0.0])
    wide = orbit_cameras(0.0, 0.0, orthographic=True, scale=2.0)
    assert wide.project(torch.tensor([[7.0, 1.0, 1.0]]))[0, 0].tolist() == pytest.approx([1.0, 0.0])


def test_project_agrees_with_the_4x4_matrices():
    cameras = zero123plus_cameras()
    points = torch.rand(2, 5, 3) - 0.5
    xy, depth = cameras.project(points), cameras.depth(points)
    assert xy.shape == (2, 6, 5, 2)
    for v in range(6):
        moved = cameras.world_to_camera[v] @ torch.cat([points[1, 3], torch.ones(1)])
        picture = cameras.intrinsics[v] @ moved[:3]
        assert torch.allclose(xy[1, v, 3], picture[:2] / picture[2], atol=1e-5)
        assert depth[1, v, 3].item() == pytest.approx(moved[2].item(), abs=1e-5)


def test_matrices_are_rigid_and_directions_meet_the_origin():
    cameras = orbit_cameras((0.0, 77.0, 200.0), (60.0, -80.0, 5.0))
    rotation = cameras.world_to_camera[:, :3, :3]
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3).expand(3, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(3), atol=1e-5)
    radius = cameras.centers.norm(dim=-1, keepdim=True)
    assert torch.allclose(cameras.centers + radius * cameras.directions, torch.zeros(3, 3), atol=1e-5)


def test_points_on_a_camera_plane_stay_finite():
    cameras = orbit_cameras(0.0, 0.0, distance=1.0)
    assert cameras.project(torch.tensor([[1.0, 0.2, 0.2]])).isfinite().all()


def test_select_and_json_round_trip():
    cameras = orbit_cameras((10.0, 20.0, 30.0), 5.0, orthographic=True)
    again = Cameras.from_dict(json.loads(json.dumps(cameras.to_dict())))
    assert len(again) == 3
    assert again.orthographic
    assert torch.equal(again.world_to_camera, cameras.world_to_camera)
    assert torch.equal(again.intrinsics, cameras.intrinsics)
    assert torch.equal(cameras.select([2, 0]).world_to_camera[0], cameras.world_to_camera[2])
    assert cameras.to(dtype=torch.float64).projection.dtype == torch.float64
    with pytest.raises(ValueError, match="intrinsics"):
        Cameras.from_dict({"world_to_camera": []})


def test_bad_angles_are_refused():
    with pytest.raises(ValueError, match=r"elevation of 90"):
        orbit_cameras(0.0, 90.0)
    with pytest.raises(ValueError, match="one per view"):
        orbit_cameras((0.0, 1.0), (0.0, 1.0, 2.0))


def test_a_world_about_a_point_has_it_for_its_origin():
    cameras, point, places = zero123plus_cameras(), torch.tensor([100.0, -5, 3]), torch.rand(4, 3) - 0.5
    found = cameras.about(point)
    assert found.world_to_camera.dtype == cameras.world_to_camera.dtype
    torch.testing.assert_close(found.project(places), cameras.project(places + point), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.about(-point).world_to_camera, cameras.world_to_camera, atol=2e-5, rtol=0)
