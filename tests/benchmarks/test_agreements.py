"""Agreement of views in units of their uncertainty, by lines, on the hull; and one constellation for all objects."""

import pytest
import torch

from agreements import epipolar_consistency, hull_likelihood, uncertain_agreement, uncovered, unexplained_variance
from keyorbit.geometry.alignment import canonical_points, repeatability
from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.geometry.heatmaps import covariance, gaussian, normalize, soft_argmax_xy
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.geometry.triangulation import triangulate

CAMERAS = zero123plus_cameras().to(dtype=torch.float64)


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    "cameras",
    [CAMERAS, orbit_cameras((0.0, 60.0, 130.0), (20.0, -10.0, 45.0), orthographic=True).to(None, torch.float64)],
)
def test_places_of_one_point_lie_on_each_others_lines(cameras):
    xy = cameras.project(draw(2, 5, 3) - 0.5)
    assert epipolar_consistency(xy, cameras) < 1e-15
    moved = xy + 0.01 * draw(*xy.shape, seed=1)
    assert 1e-6 < epipolar_consistency(moved, cameras) < 1e-3
    torch.autograd.gradcheck(lambda x: epipolar_consistency(x, cameras), (moved.requires_grad_(),))


def test_a_wrong_view_is_found_out_and_pulls_little():
    points = 0.6 * draw(1, 5, 3) - 0.3
    xy = CAMERAS.project(points)
    spread = 1e-4 * torch.eye(2, dtype=torch.float64).expand(1, 6, 5, 2, 2)
    clean = uncertain_agreement(xy, spread, CAMERAS)
    assert clean.visible.min() > 0.99
    wrong = xy.clone()
    wrong[:, 3] += 0.2
    found = uncertain_agreement(wrong, spread, CAMERAS)
    assert found.visible[:, 3].max() == pytest.approx(0.1)
    assert (found.points - points).norm(dim=-1).max() < (triangulate(wrong, CAMERAS) - points).norm(dim=-1).min() / 2
    # A view whose map is wide is taken for hidden, though its place agrees.
    wide = spread.clone()
    wide[:, 2] *= 20
    assert uncertain_agreement(xy, wide, CAMERAS).visible[:, 2].max() < 0.2


def test_flat_maps_in_the_middle_are_no_answer():
    """The trivial answer of a pure consistency loss costs more than sharp maps that agree."""
    flat = torch.full((1, 6, 3, 24, 24), 1 / 24**2, dtype=torch.float64)
    sharp = normalize(gaussian(CAMERAS.project(0.5 * draw(1, 3, 3) - 0.25), 24, 24, 1.0))
    costs = []
    for maps in (flat, sharp):
        pixel = torch.eye(2, dtype=torch.float64) / 24**2 / 12
        costs.append(uncertain_agreement(soft_argmax_xy(maps), covariance(maps) + pixel, CAMERAS).nll.mean())
    assert costs[0] > costs[1] + 2


def test_the_likelihood_wants_one_point_of_the_hull():
    hull = 0.5 * draw(1, 50, 3) - 0.25
    xy = CAMERAS.project(hull)[:, None]

    def unlikely(points, moved=0.0):
        maps = normalize(gaussian(CAMERAS.project(points) + moved, 24, 24, 1.0))[:, None]
        return hull_likelihood(maps, xy, hull)

    on, places = unlikely(hull[:, :3])
    torch.testing.assert_close(places, hull[:, :3], atol=0.03, rtol=0)
    flat = torch.full((1, 1, 6, 3, 24, 24), 1 / 24**2, dtype=torch.float64)
    nothing, _ = hull_likelihood(flat, xy, hull)
    assert nothing.abs() < 1e-6
    assert on < -1
    assert unlikely(torch.full((1, 3, 3), 0.45).double())[0] > 1
    each_view_elsewhere = 0.15 * draw(6, 1, 2, seed=5)
    assert unlikely(hull[:, :3], each_view_elsewhere)[0] > on + 1


def test_uncovered_is_the_distance_to_the_nearest_token():
    hull, tokens = draw(2, 30, 3), draw(2, 4, 3, seed=1)
    expected = torch.cdist(hull, tokens).amin(-1).square().mean()
    torch.testing.assert_close(uncovered(hull, tokens, 1e4), expected, atol=1e-4, rtol=0)
    assert uncovered(hull, hull) < uncovered(hull, tokens)


def turned(points, angles):
    c, s = angles.cos(), angles.sin()
    zero, one = torch.zeros_like(c), torch.ones_like(c)
    rows = [torch.stack([c, -s, zero], -1), torch.stack([s, c, zero], -1), torch.stack([zero, zero, one], -1)]
    return points @ torch.stack(rows, -2).mT


def test_turned_copies_are_one_unexplained_variance():
    shape = torch.randn(7, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    items = turned(shape.expand(5, -1, -1), 6 * draw(5)) + draw(5, 1, 3, seed=1)
    assert unexplained_variance(items) < 1e-12
    canonical = canonical_points(items)
    torch.testing.assert_close(canonical, canonical[:1].expand_as(canonical))
    _, stray = repeatability(items)
    assert stray.max() < 1e-6
    assert (
        unexplained_variance(torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64))
        > 0.3
    )
    # Everything in one place explains nothing.
    assert unexplained_variance(1e-3 * torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(4))) > 0.3
    noisy = (items + 0.05 * draw(5, 7, 3, seed=5)).requires_grad_()
    (gradient,) = torch.autograd.grad(unexplained_variance(noisy), noisy)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
