"""The camera of a picture: planted ones come back, and what cannot be known is said not to be."""

import math

import pytest
import torch

from keyorbit.geometry.cameras import Cameras, orbit_cameras
from keyorbit.geometry.rigs import zero123plus_cameras
from oracles.pose import search_elevation
from pnp import FULL_POSE, PoseConfig, solve_input_camera

RIGS = {
    "perspective": zero123plus_cameras().to(dtype=torch.float64),
    "orthographic": orbit_cameras((0.0, 60.0, 130.0), (20.0, -10.0, 45.0), orthographic=True, dtype=torch.float64),
}


def rand(generator, *shape):
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def spoil(xy, generator, noise, outliers):
    """Noise of `noise` sides, and every picture's share of `outliers` of its places anywhere."""
    xy = xy + noise * torch.randn(xy.shape, generator=generator, dtype=torch.float64)
    bad = rand(generator, *xy.shape[:-1]).argsort(-1) < round(outliers * xy.shape[-2])
    return torch.where(bad[..., None], rand(generator, *xy.shape), xy), bad


def planted(count=40, keypoints=16, noise=0.0, outliers=0.0, crop=True, rig="perspective", seed=0):
    """True elevations in -20…60, points in space, where cropped pictures show them, and which are wrong."""
    generator = torch.Generator().manual_seed(seed)
    elevation = 80 * rand(generator, count) - 20
    points = 0.7 * (rand(generator, count, keypoints, 3) - 0.5)
    cameras = orbit_cameras(0.0, elevation.tolist(), orthographic=rig == "orthographic", dtype=torch.float64)
    xy = torch.stack([cameras.select([i]).project(points[i])[0] for i in range(count)])
    if crop:
        zoom, shift = 0.7 + 0.6 * rand(generator, count, 1, 1), 0.1 * rand(generator, count, 1, 2)
        xy = 0.5 + zoom * (xy - 0.5) + shift
    return elevation, points, *spoil(xy, generator, noise, outliers)


def solve(points, xy, rig="perspective", **config):
    return solve_input_camera(points, xy, torch.ones_like(xy[..., 0]), RIGS[rig], PoseConfig(**config))


@pytest.fixture(scope="module")
def hard():
    """200 cropped pictures with noise of 1 % of the side and 30 % of the places wrong."""
    elevation, points, xy, bad = planted(200, noise=0.01, outliers=0.3)
    return solve(points, xy), elevation, bad


@pytest.mark.parametrize("rig", RIGS)
@pytest.mark.parametrize("crop", [False, True])
def test_exact_places_give_the_exact_camera(rig, crop):
    elevation, points, xy, _ = planted(crop=crop, rig=rig)
    found = solve(points, xy, rig, free=("elevation", "zoom", "shift") if crop else ("elevation",))
    assert (found.elevation_deg - elevation).abs().max() < 1e-3
    assert found.residual.max() < 1e-6
    assert found.elevation_std_deg.max() < 0.1
    assert found.inliers.all()
    # The cameras that are returned see what the picture shows.
    seen = torch.stack([found.cameras.select([i]).project(points[i])[0] for i in range(len(xy))])
    torch.testing.assert_close(seen, xy, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rig", RIGS)
def test_the_azimuth_can_be_free(rig):
    elevation, points, xy, _ = planted(20, rig=rig, noise=0.003, outliers=0.2)
    turn = math.radians(70.0)
    rotation = torch.tensor([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1.0]])
    found = solve(points @ rotation.double().mT, xy, rig, free=("azimuth", "elevation", "zoom", "shift"))
    assert (found.elevation_deg - elevation).abs().median() < 1
    assert (found.azimuth_deg - 70).abs().median() < 1


def test_the_distance_can_be_free():
    points = planted(1)[1][0]
    for distance in (1.3, 1.866, 3.0):
        xy = orbit_cameras(0.0, 25.0, distance, dtype=torch.float64).project(points)[0]
        found = solve(points, xy, free=("elevation", "distance"))
        assert found.elevation_deg == pytest.approx(25.0, abs=1e-3)
        assert torch.linalg.vector_norm(found.cameras.centers[0]) == pytest.approx(distance, abs=1e-4)


def test_six_degrees_of_freedom_with_wrong_places():
    generator = torch.Generator().manual_seed(3)
    angles = [rand(generator, 10) * span - start for span, start in ((360, 0), (80, 20), (360, 0))]
    azimuth, elevation, roll = (angle.tolist() for angle in angles)
    distance = (1.5 + rand(generator, 10)).tolist()
    cameras = orbit_cameras(azimuth, elevation, distance, dtype=torch.float64, roll_deg=roll)
    moved = cameras.world_to_camera.clone()
    moved[:, :2, 3] += 0.2 * (rand(generator, 10, 2) - 0.5)
    cameras = Cameras(moved, cameras.intrinsics)
    points = 0.7 * (rand(generator, 10, 16, 3) - 0.5)
    xy = torch.stack([cameras.select([i]).project(points[i])[0] for i in range(10)])
    found = solve(points, spoil(xy, generator, 0.0, 0.3)[0], free=FULL_POSE)
    assert (found.cameras.world_to_camera - moved).abs().max() < 1e-3


def test_noise_and_wrong_places_cost_little(hard):
    found, elevation, bad = hard
    assert (found.elevation_deg - elevation).abs().median() < 2
    assert found.inliers[bad].double().mean() < 0.05
    assert found.inliers[~bad].double().mean() > 0.95
    assert (found.score > 0.5).all()


def test_the_standard_deviation_is_calibrated(hard):
    found, elevation, _ = hard
    error = (found.elevation_deg - elevation).abs()
    assert 0.56 < (error < found.elevation_std_deg).double().mean() < 0.80
    assert (error < 3 * found.elevation_std_deg).double().mean() > 0.95


def test_a_dense_search_finds_the_same():
    _, points, xy, _ = planted(12, noise=0.01, outliers=0.2, crop=False, seed=4)
    found = solve(points, xy, free=("elevation",))
    for i in range(12):
        searched = search_elevation(points[i], xy[i], torch.ones(16, dtype=torch.float64))
        assert abs(found.elevation_deg[i] - searched) < 0.2 + 0.5 * found.elevation_std_deg[i]


def test_weights_take_places_out():
    elevation, points, xy, bad = planted(20, outliers=0.6)
    found = solve_input_camera(points, xy, (~bad).double(), RIGS["perspective"])
    assert (found.elevation_deg - elevation).abs().max() < 1e-3
    assert not found.inliers[bad].any()


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_points_in_a_plane_leave_two_elevations(noise):
    generator = torch.Generator().manual_seed(0)
    points = 0.7 * (rand(generator, 16, 3) - 0.5)
    points[:, 0] = 0
    camera = orbit_cameras(0.0, 20.0, orthographic=True, dtype=torch.float64)
    xy, _ = spoil(camera.project(points)[0], generator, noise, 0.0)
    # An upright plane from above looks as it does from below: the answer may be 20 or -20.
    found = solve(points, xy, "orthographic")
    assert found.elevation_std_deg > 15
    points[:, 0] = 0.7 * (rand(generator, 16) - 0.5)
    xy, _ = spoil(camera.project(points)[0], generator, noise, 0.0)
    assert solve(points, xy, "orthographic").elevation_std_deg < 3


@pytest.mark.parametrize("kind", ["no weight", "two points", "one place", "not finite", "unrelated"])
def test_what_cannot_be_known_has_no_score(kind):
    generator = torch.Generator().manual_seed(1)
    _, points, xy, _ = (x[0] for x in planted(1))
    weights = torch.ones(16, dtype=torch.float64)
    if kind == "no weight":
        weights[:] = 0
    elif kind == "two points":
        weights[2:] = 0
    elif kind == "one place":
        points, xy = torch.full_like(points, 0.1), torch.full_like(xy, 0.5)
    elif kind == "not finite":
        xy = torch.full_like(xy, math.nan)
    else:
        xy = rand(generator, 16, 2)
    found = solve_input_camera(points, xy, weights, RIGS["perspective"])
    assert found.score == 0
    assert found.elevation_std_deg == math.inf
    assert found.elevation_deg.isfinite()
    assert found.cameras.world_to_camera.isfinite().all()
    assert not found.inliers.any()
    assert found.to_dict()["elevation_std_deg"] is None


def test_an_elevation_that_is_not_asked_for_is_refused():
    with pytest.raises(ValueError, match="elevation"):
        solve(*planted(1)[1:3], free=("zoom",))
