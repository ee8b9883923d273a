"""Points read from the product of the views, the visual hull, and what survives noise, occlusion and wrong views."""

import pytest
import torch

from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.geometry.evidence import log_evidence, read_evidence, view_evidence
from keyorbit.geometry.heatmaps import gaussian, normalize, pixel_centers, soft_argmax_xy
from keyorbit.geometry.hull import beside_silhouette, hull_points, search_volume
from keyorbit.geometry.keypoints import Keypoints2D
from keyorbit.geometry.rigs import zero123plus_cameras

CAMERAS = zero123plus_cameras()
SIDE, SIGMA = 48, 1.5


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def maps_at(xy):
    return normalize(gaussian(xy, SIDE, SIDE, SIGMA))


def disc(radius):
    """Distance from a disc in the middle of every view: what a ball looks like."""
    away = (pixel_centers(SIDE, SIDE) - 0.5).norm(dim=-1) - radius
    return away.clamp_min(0).expand(6, -1, -1)


@pytest.mark.parametrize(
    "cameras", [CAMERAS, orbit_cameras((0.0, 70.0, 140.0), (20.0, -10.0, 40.0), orthographic=True)]
)
def test_planted_points_are_read(cameras):
    points = 0.6 * draw(2, 5, 3) - 0.3
    found = read_evidence(maps_at(cameras.project(points)), cameras)
    # A side of a view is one unit of the world at the object, and a pixel a 48th of it.
    assert (found.xyz - points).norm(dim=-1).max() < 0.6 / SIDE
    assert found.strength.min() > 2
    # One standard deviation of a map, seen by several views, is a little less in space.
    assert 0.3 < (found.covariance.diagonal(dim1=-2, dim2=-1).sqrt() / (SIGMA / SIDE)).mean() < 1


def test_two_wrong_views_of_six_do_not_move_the_peak():
    points = 0.6 * draw(8, 3) - 0.3
    maps = maps_at(CAMERAS.project(points))
    for k in range(8):
        wrong = [k % 6, (k + 2) % 6]
        maps[wrong, k] = maps_at((CAMERAS.project(points)[wrong, k] + 0.2 + 0.4 * draw(2, 2, seed=k)) % 1)
    assert (read_evidence(maps, CAMERAS).xyz - points).norm(dim=-1).max() < 0.01


def test_the_answer_lies_in_the_hull_though_the_maps_do_not():
    outside = torch.tensor([[0.4, 0.0, 0.0], [0.0, 0.0, 0.1]])
    maps = maps_at(CAMERAS.project(outside))
    free, bound = read_evidence(maps, CAMERAS), read_evidence(maps, CAMERAS, disc(0.2))
    beside = beside_silhouette(disc(0.2), CAMERAS.project(bound.xyz))
    assert beside.max() < 0.03
    assert beside_silhouette(disc(0.2), CAMERAS.project(free.xyz))[:, 0].max() > 0.1
    assert (bound.xyz[1] - outside[1]).norm() < 0.01


def test_a_sharp_peak_is_not_missed_between_the_points_of_the_grid():
    points = 0.6 * draw(6, 3) - 0.3
    maps = normalize(gaussian(CAMERAS.project(points), 96, 96, 0.8))
    assert (read_evidence(maps, CAMERAS).xyz - points).norm(dim=-1).max() < 0.6 / 96


def test_flat_maps_say_nothing():
    flat = torch.full((6, 2, SIDE, SIDE), 1 / SIDE**2)
    assert read_evidence(flat, CAMERAS).strength.abs().max() < 1e-5
    assert log_evidence(0.2 * draw(7, 3), flat, CAMERAS).abs().max() < 1e-4


def test_evidence_by_hand_and_its_gradient():
    maps = normalize(draw(1, 1, 4, 4).double())
    centre = pixel_centers(4, 4).double()[1, 2].reshape(1, 1, 2)
    expected = (0.9 * maps[0, 0, 1, 2] * 16 + 0.1).log()
    torch.testing.assert_close(view_evidence(maps, centre, 0.1)[0, 0, 0], expected)
    torch.autograd.gradcheck(lambda m: view_evidence(m, centre + 0.03), (maps.requires_grad_(),))


def test_hull_points_lie_on_the_surface_of_a_ball():
    found = hull_points(disc(0.25), CAMERAS, 400, torch.Generator().manual_seed(0))
    # A disc of a quarter of the side is a ball of 0.24 about; a hull is never smaller than its object.
    distance = found.norm(dim=-1)
    assert distance.min() > 0.2
    assert distance.max() < 0.3
    assert torch.equal(found, hull_points(disc(0.25), CAMERAS, 400, torch.Generator().manual_seed(0)))


def test_the_search_fits_any_rig():
    middle, radius = search_volume(CAMERAS)
    assert middle.abs().max() < 1e-5
    assert radius == pytest.approx(0.5, abs=1e-4)
    far = orbit_cameras((0.0, 60.0, 120.0), 20.0, distance=4.0, fov_deg=30.0)
    moved = far.world_to_camera.clone()
    moved[:, :3, 3] -= (moved[:, :3, :3] @ torch.tensor([5.0, -2.0, 1.0])).reshape(3, 3)
    middle, radius = search_volume(type(far)(moved, far.intrinsics))
    torch.testing.assert_close(middle, torch.tensor([5.0, -2.0, 1.0]), atol=1e-3, rtol=0)
    assert radius == pytest.approx(4 * 0.5 / 1.8660254, abs=1e-3)
    assert search_volume(orbit_cameras((0.0, 90.0), 0.0, orthographic=True, scale=1.2))[1] == pytest.approx(0.6)


@pytest.mark.parametrize("orthographic", [False, True])
def test_the_volume_of_cut_pictures_is_what_they_show(orthographic):
    """Pieces of the views that all show one place, which is not where the optical axes meet."""
    cameras = orbit_cameras([0.0, 70.0, 160.0, 250.0], [20.0, -10.0, 40.0, 0.0], orthographic=orthographic)
    place = torch.tensor([0.2, -0.1, 0.15])
    inner = cameras.intrinsics.clone()
    inner[:, :2, 2] += 0.5 - cameras.project(place[None])[:, 0]
    inner[:, :2, :2] *= 4
    inner[:, :2, 2] = 0.5 + 4 * (inner[:, :2, 2] - 0.5)
    middle, radius = search_volume(type(cameras)(cameras.world_to_camera, inner, orthographic))
    torch.testing.assert_close(middle, place, atol=1e-5, rtol=0)
    assert radius == pytest.approx(search_volume(cameras)[1] / 4, rel=0.2)


def planted(wrong, trials=6, count=16, scatter=0.006):
    """Points, and keypoints read from noisy heatmaps: some views hidden (flat), and `wrong` of them elsewhere."""
    cases = []
    for trial in range(trials):
        points = 0.6 * draw(count, 3, seed=trial) - 0.3
        xy = CAMERAS.project(points) + scatter * noise(6, count, 2, seed=trial)
        score = torch.ones(6, count)
        for k in range(count):
            order = torch.randperm(6, generator=torch.Generator().manual_seed(100 * trial + k))
            xy[order[:wrong], k] = 0.1 + 0.8 * draw(wrong, 2, seed=1000 * trial + k)
            if not wrong:
                xy[order[5], k], score[order[5], k] = 0.5, 0.0  # hidden: its map is flat
        maps = maps_at(xy)
        maps = torch.where(score[..., None, None] > 0, maps, torch.full_like(maps, 1 / SIDE**2))
        cases.append((points, Keypoints2D(soft_argmax_xy(maps), score, CAMERAS), maps))
    return cases


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_planted_truth_through_noise_occlusion_and_wrong_views(wrong):
    cases = planted(wrong)
    found = [flat.triangulate() for _, flat, _ in cases]
    offset = torch.cat([f.xyz - points for f, (points, _, _) in zip(found, cases, strict=True)])
    told = torch.cat([f.score for f in found]) > 0
    error = offset.norm(dim=-1)
    # The object is about 1 across.
    assert told.float().mean() > 0.97
    assert error[told].median() < 0.008
    assert error[told].mean() < 0.01
    read = torch.cat([read_evidence(maps, CAMERAS).xyz - points for points, _, maps in cases])
    # A wrong view that happens to look near the truth pulls the product a little, where a residual would cut it off.
    assert read.norm(dim=-1).median() < 0.01
    covariance = torch.cat([f.covariance for f in found])
    whitened = torch.linalg.solve(torch.linalg.cholesky(covariance), offset[..., None])[told][..., 0]
    assert (whitened.abs() < 1).float().mean() == pytest.approx(0.68, abs=0.08)
