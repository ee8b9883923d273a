"""The input picture's elevation, from maps at planted points and from the outline of a planted object."""

import json
import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

from keyorbit.detection.input_camera import Outline, find_input_camera, search_input_camera
from keyorbit.geometry.cameras import Cameras, orbit_cameras
from keyorbit.geometry.heatmaps import gaussian, normalize, pixel_centers, soft_argmax_xy
from keyorbit.geometry.hull import Silhouette, hull_points
from keyorbit.geometry.keypoints import Keypoints2D
from keyorbit.geometry.rigs import zero123plus_cameras
from oracles import input_camera as oracle

VIEWS, SIDE = zero123plus_cameras(), 48
# Three unequal balls, so that no two elevations have the same outline.
BALLS = torch.tensor([[0.2, 0.1, -0.1, 0.12], [-0.15, -0.1, 0.05, 0.16], [0.0, 0.15, 0.25, 0.08]])


def outlines(cameras):
    """Distance from the silhouette of the balls, in every view."""
    centre = cameras.project(BALLS[:, :3])
    radius = BALLS[:, 3] * cameras.intrinsics[:, :1, 0] / cameras.depth(BALLS[:, :3])
    away = (pixel_centers(SIDE, SIDE) - centre[:, :, None, None]).norm(dim=-1) - radius[:, :, None, None]
    return away.amin(1).clamp_min(0)


def keypoints(camera, seed=0, count=12):
    generator = torch.Generator().manual_seed(seed)
    points = 0.6 * torch.rand(count, 3, generator=generator) - 0.3
    maps = normalize(gaussian(camera.project(points)[0], SIDE, SIDE, 1.5))
    return points, maps, soft_argmax_xy(maps)


def zoomed(camera, zoom, shift):
    intrinsics = camera.intrinsics.clone()
    intrinsics[:, :2, :2] *= zoom
    intrinsics[:, :2, 2] += torch.tensor(shift)
    return Cameras(camera.world_to_camera, intrinsics)


@pytest.mark.parametrize("elevation", [-20.0, 5.0, 33.0, 60.0])
def test_maps_alone_tell_the_elevation(elevation):
    points, maps, xy = keypoints(orbit_cameras(0.0, elevation))
    found = search_input_camera(points, torch.ones(12), maps, xy, VIEWS)
    assert float(found.elevation_deg) == pytest.approx(elevation, abs=2)
    # Maps count for a tenth of what they say, so the answer is surer than it admits.
    assert float(found.elevation_std_deg) < 15
    assert found.residual.max() < 0.03
    assert 0.4 < float(found.score) <= 1


@pytest.mark.parametrize(("zoom", "shift"), [(1.0, (0.0, 0.0)), (1.4, (0.06, -0.05))])
def test_the_outline_tells_it_where_the_maps_do_not(zoom, shift):
    hull = hull_points(outlines(VIEWS), VIEWS, 400, torch.Generator().manual_seed(0))
    for elevation in (-10.0, 20.0, 50.0):
        camera = zoomed(orbit_cameras(0.0, elevation), zoom, shift)
        points, _, xy = keypoints(camera)
        flat = torch.full((12, SIDE, SIDE), 1 / SIDE**2)
        outline = Outline(hull, Silhouette(outlines(camera) == 0, outlines(camera)))
        found = search_input_camera(points, torch.ones(12), flat, xy, VIEWS, outline)
        assert float(found.elevation_deg) == pytest.approx(elevation, abs=6)
        assert found.residual.median() < 0.05


def test_nothing_known_is_said():
    points, _, xy = keypoints(orbit_cameras(0.0, 20.0))
    flat = torch.full((12, SIDE, SIDE), 1 / SIDE**2)
    found = search_input_camera(points, torch.ones(12), flat, xy, VIEWS)
    assert float(found.score) == 0
    assert math.isinf(float(found.elevation_std_deg))
    assert not found.inliers.any()
    silent = search_input_camera(points, torch.zeros(12), *keypoints(orbit_cameras(0.0, 20.0))[1:], VIEWS)
    assert float(silent.score) == 0


def test_cameras_that_look_elsewhere_and_orthographic_ones():
    rig = orbit_cameras((30.0, 90.0, 150.0), 10.0, orthographic=True, scale=1.1)
    camera = orbit_cameras(0.0, 30.0, orthographic=True, scale=1.1)
    points, maps, xy = keypoints(camera)
    found = search_input_camera(points, torch.ones(12), maps, xy, rig)
    assert float(found.elevation_deg) == pytest.approx(30, abs=2)
    assert found.cameras.orthographic


@pytest.mark.parametrize("outlined", [False, True])
def test_the_search_is_that_of_the_loops(outlined):
    """Elevation, standard deviation, residuals, inliers and score, for maps that are wrong here and there."""
    generator = torch.Generator().manual_seed(3)
    camera = zoomed(orbit_cameras(0.0, 27.0), 1.25, (0.04, -0.03)) if outlined else orbit_cameras(0.0, 27.0)
    points, maps, xy = keypoints(camera)
    xy = xy + 0.01 * torch.randn(xy.shape, generator=generator) * torch.linspace(0, 2, 12)[:, None]
    xy[4], xy[8] = xy[4] + 0.3, xy[8] - 0.15
    maps = normalize(gaussian(xy, SIDE, SIDE, 2.0) + 1e-4)
    weights = torch.linspace(0, 1, 12).sqrt()
    hull = hull_points(outlines(VIEWS), VIEWS, 60, torch.Generator().manual_seed(0))
    distance = outlines(camera)
    outline = Outline(hull, Silhouette(distance == 0, distance)) if outlined else None
    found = search_input_camera(points, weights, maps, xy, VIEWS, outline)
    reach, focal = float(VIEWS.centers[0].norm()), float(VIEWS.intrinsics[0, 0, 0])
    told = (hull.double().numpy(), (distance[0] == 0).numpy(), distance[0].double().numpy()) if outlined else None
    given = (points.double().numpy(), weights.tolist(), maps.double().numpy(), xy.double().numpy())
    mean, std, residuals, inliers, score = oracle.search(*given, reach, focal, told)
    assert found.elevation_deg.item() == pytest.approx(mean, abs=2e-3)
    assert found.elevation_std_deg.item() == pytest.approx(std, rel=1e-3)
    assert found.residual.tolist() == pytest.approx(residuals, abs=1e-4)
    assert found.inliers.tolist() == inliers
    assert 0 < sum(inliers) < 11  # at least one with a weight is told to be wrong
    assert found.score.item() == pytest.approx(score, rel=1e-3)


@pytest.mark.parametrize("alpha", [True, False])
def test_a_pictures_outline_is_that_of_its_alpha_or_of_its_colours(alpha):
    """From a picture, the middle square of it, as from the outline itself."""
    camera = orbit_cameras(0.0, 27.0)
    points, maps, xy = keypoints(camera)
    distance = outlines(VIEWS)[:, ::2]  # not square
    found_on = Keypoints2D(VIEWS.project(points), torch.ones(6, 12), VIEWS, xy, torch.linspace(0.2, 1, 12))
    solid = found_on.triangulate()
    mask = outlines(camera)[0] == 0
    pixels = torch.zeros(SIDE, SIDE + 20, 4, dtype=torch.uint8)
    pixels[..., 3] = 0 if alpha else 255
    pixels[:, 10:-10][mask] = torch.tensor([200, 10, 10, 255], dtype=torch.uint8)
    picture = Image.fromarray(pixels.numpy())
    found = find_input_camera(picture if alpha else picture.convert("RGB"), found_on, solid, maps, distance)
    hull = hull_points(distance, VIEWS, 400, torch.Generator().manual_seed(0))
    half = mask.float().reshape(SIDE // 2, 2, SIDE).mean(1) > 0.5  # at the size of the views' own
    outline = Outline(hull, Silhouette.of(half[None]))
    expected = search_input_camera(solid.xyz, found_on.input_score * solid.score, maps, xy, VIEWS, outline)
    assert found.elevation_deg.item() == pytest.approx(expected.elevation_deg.item(), abs=1e-3)
    assert found.elevation_deg.item() == pytest.approx(27, abs=3)
    for missing in ("cameras", "input_xy", "input_score"):
        assert find_input_camera(picture, replace(found_on, **{missing: None}), solid, maps, distance) is None


def test_the_camera_as_plain_values():
    points, maps, xy = keypoints(orbit_cameras(0.0, 20.0))
    found = search_input_camera(points, torch.ones(12), maps, xy, VIEWS)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["world_to_camera"] == found.cameras.world_to_camera[0].tolist()
    assert plain["intrinsics"] == found.cameras.intrinsics[0].tolist()
    assert (plain["azimuth_deg"], plain["orthographic"]) == (0.0, False)
    for name in ("elevation_deg", "elevation_std_deg", "score"):
        assert plain[name] == float(getattr(found, name))
    for name in ("residual", "inliers"):
        assert plain[name] == getattr(found, name).tolist()
    unknown = search_input_camera(points, torch.zeros(12), maps, xy, VIEWS)
    assert unknown.to_dict()["elevation_std_deg"] is None
