import pytest
import torch
from torch.autograd import gradcheck

from keyorbit.discovery import losses
from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.geometry.heatmaps import gaussian, normalize
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.geometry.views import Layout
from keyorbit.geometry.warps import Warp, random_warps, warp_image
from oracles import losses as loops


def random_maps(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted_maps(points, cameras, height=40, width=40, sigma=2.0):
    """Peak-1 Gaussians where the cameras see the points: [batch view token height width]."""
    return gaussian(cameras.project(points), height, width, sigma)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (12, 8)])
@pytest.mark.parametrize(("rows", "cols"), [(3, 2), (2, 3), (1, 6), (1, 1)])
def test_losses_match_the_loops(rows, cols, height, width):
    maps = random_maps(2, rows * cols, 3, height, width)
    before = maps.clone()
    layout = Layout(rows, cols)
    flat = maps.flatten(0, 2)
    assert losses.sharpening(maps, 1.5).item() == pytest.approx(loops.sharpening(flat, 1.5))
    kl = sum(loops.kl(m, 2.0) for m in flat) / len(flat)
    assert losses.sharpening(maps, 2.0, "kl").item() == pytest.approx(kl)
    assert losses.localization(maps, 1.5).item() == pytest.approx(loops.localization(maps, 1.5))
    grid = loops.grid_sharpening(maps, rows, cols, 1.5)
    assert losses.grid_sharpening(maps, layout, 1.5).item() == pytest.approx(grid)
    if rows * cols > 1:
        found = losses.pixel_consistency(maps).item()
        assert found == pytest.approx(loops.pixel_consistency(maps), rel=1e-5)
    assert torch.equal(maps, before)


def test_one_view_has_nothing_to_be_consistent_with():
    assert losses.pixel_consistency(random_maps(1, 1, 2, 4, 4)).item() == 0


def test_sharpening_is_zero_for_gaussians_and_pulls_towards_them():
    xy = torch.tensor([[0.5 / 12, 6.5 / 8], [7.5 / 12, 3.5 / 8]])
    assert losses.sharpening(gaussian(xy, 8, 12, 2.0), 2.0).item() == pytest.approx(0, abs=1e-10)
    assert losses.sharpening(gaussian(xy, 8, 12, 2.0), 1.0).item() > 1e-3
    for form in ("mse", "kl"):
        maps = random_maps(4, 8, 12).requires_grad_()
        loss = losses.sharpening(maps, 2.0, form)
        (gradient,) = torch.autograd.grad(loss, maps)
        assert losses.sharpening((maps - gradient).clamp_min(0), 2.0, form) < loss
    with pytest.raises(ValueError, match="'mse' or 'kl'"):
        losses.sharpening(maps, 2.0, "l1")


def test_a_perfectly_consistent_point_fails_only_the_pixel_metric():
    cameras = zero123plus_cameras().to(dtype=torch.float64)
    points = 0.4 * (random_maps(1, 5, 3) - 0.5)
    maps = planted_maps(points, cameras).requires_grad_()
    pixel = losses.pixel_consistency(maps)
    assert pixel.item() > 5
    assert not pixel.requires_grad
    geometric = losses.geometric_consistency(maps, cameras)
    assert geometric.item() < 1e-8
    # The same pixel in every view, which the pixel metric wants, is no point of space.
    still = gaussian(torch.tensor([0.7, 0.6], dtype=torch.float64), 40, 40, 2.0).expand(1, 6, 5, 40, 40)
    assert losses.pixel_consistency(still).item() == 0
    assert losses.geometric_consistency(still, cameras).item() > 1e-3


def test_geometric_consistency_is_differentiable_and_goes_down():
    cameras = zero123plus_cameras().to(dtype=torch.float64)
    xy = (0.3 + 0.4 * random_maps(1, 6, 3, 2)).requires_grad_()
    step = torch.optim.SGD([xy], lr=1.0)
    values = []
    for _ in range(15):
        loss = losses.geometric_consistency(gaussian(xy, 20, 20, 1.5), cameras)
        step.zero_grad()
        loss.backward()
        step.step()
        values.append(loss.item())
    assert values[-1] < values[0] / 2


def test_geometric_weights_leave_a_wrong_view_out():
    cameras = zero123plus_cameras()
    maps = planted_maps(torch.tensor([[[0.1, 0.0, 0.1]]]), cameras).clone()
    maps[:, 3] = maps[:, 3].roll(9, dims=-1)
    weights = torch.ones(1, 6, 1)
    assert losses.geometric_consistency(maps, cameras, weights).item() > 1e-4
    weights[:, 3] = 0
    assert losses.geometric_consistency(maps, cameras, weights).item() < 1e-8
    with pytest.raises(ValueError, match="5 views meet 6"):
        losses.geometric_consistency(maps[:, :5], cameras)


def test_token_order_does_not_matter():
    cameras = orbit_cameras((0.0, 70.0, 140.0), (10.0, -20.0, 5.0)).to(dtype=torch.float64)
    maps = random_maps(2, 3, 6, 8, 8)
    shuffled = maps[:, :, torch.tensor([3, 1, 5, 0, 2, 4])]
    for loss in (
        losses.localization,
        losses.pixel_consistency,
        lambda m: losses.geometric_consistency(m, cameras),
        lambda m: losses.grid_sharpening(m, Layout(1, 3)),
    ):
        assert loss(maps).item() == pytest.approx(loss(shuffled).item(), rel=1e-5)


def test_gradcheck():
    cameras = orbit_cameras((0.0, 70.0, 140.0), (10.0, -20.0, 5.0)).to(dtype=torch.float64)
    warp = random_warps((1, 3), torch.Generator().manual_seed(0), dtype=torch.float64)
    maps = random_maps(1, 3, 2, 4, 5).requires_grad_()
    others = random_maps(1, 3, 2, 4, 5, seed=1).requires_grad_()
    points = random_maps(2, 4, 3).requires_grad_()
    for loss in (
        losses.sharpening,
        lambda m: losses.sharpening(m, 1.0, "kl"),
        lambda m: losses.grid_sharpening(m, Layout(3, 1)),
        lambda m: losses.geometric_consistency(m, cameras),
        lambda m: losses.spread(normalize(m)),
        lambda m: losses.on_object(normalize(m), random_maps(1, 3, 4, 5, seed=3)),
    ):
        assert gradcheck(loss, maps)
    assert gradcheck(lambda a, b: losses.equivariance(a, b, warp), (maps, others))
    assert gradcheck(lambda p: losses.separation(p, 0.7), points)


def test_equivariance_looks_only_at_what_the_warp_shows():
    warp = Warp(torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]], dtype=torch.float64)[None])
    maps = random_maps(1, 3, 6, 8)
    warped = warp_image(maps, warp, fill=0.0)
    assert losses.equivariance(maps, warped, warp).item() == pytest.approx(0, abs=1e-12)
    unseen = maps.clone()
    unseen[..., 4:] += 5  # This half leaves the picture.
    assert losses.equivariance(unseen, warped, warp).item() == pytest.approx(0, abs=1e-12)
    seen = maps.clone()
    seen[..., :4] += 2
    assert losses.equivariance(seen, warped, warp).item() == pytest.approx(4)
    away = Warp(torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]], dtype=torch.float64)[None])
    assert losses.equivariance(maps, warped, away).item() == 0


def test_equivariance_of_equivariant_maps_is_small():
    warp = random_warps((2, 6), torch.Generator().manual_seed(1))
    xy = 0.4 + 0.2 * random_maps(2, 6, 3, 2).float()
    maps = gaussian(xy, 40, 40, 3.0)
    right = gaussian(warp.apply(xy), 40, 40, 3.0)
    assert losses.equivariance(maps, right, warp) < 0.1 * losses.equivariance(maps, maps, warp)


def test_spread_separation_and_on_object_by_hand():
    heat = torch.zeros(1, 1, 1, 2, 4)
    heat[..., 0, 0] = heat[..., 0, 1] = 0.5
    assert losses.spread(heat).item() == pytest.approx(0.125**2)
    mask = torch.zeros(1, 1, 2, 4, dtype=torch.bool)
    mask[..., 0] = True
    assert losses.on_object(heat, mask).item() == pytest.approx(0.5)
    assert losses.on_object(heat, ~mask).item() == pytest.approx(0.5)
    assert losses.on_object(heat, torch.ones(1, 1, 2, 4)).item() == 0
    points = torch.tensor([[0.0, 0.0, 0.0], [0.3, 0.0, 0.0], [0.0, 2.0, 0.0]])
    assert losses.separation(points, 0.5).item() == pytest.approx(0.2**2 / 3)
    assert losses.separation(points[:1], 0.5).item() == 0


def test_off_silhouette_measures_how_far_projected_points_are_from_the_object():
    cameras = zero123plus_cameras().to(dtype=torch.float64)
    points = torch.tensor([[[0.0, 0.0, 0.0], [0.3, 0.1, 0.2]], [[0.0, 0.2, 0.0], [5.0, 0.0, 0.0]]], dtype=torch.float64)
    # A field that is linear in x is read off exactly wherever the point lies between pixel centres.
    width, height = 40, 20
    slope = ((torch.arange(width, dtype=torch.float64) + 0.5) / width).expand(2, 6, height, width)
    xy = cameras.project(points)
    inside = xy.clamp(0, 1)
    expected = inside[..., 0].clamp(0.5 / width, 1 - 0.5 / width) + (xy - inside).abs().sum(-1)
    assert losses.off_silhouette(points, cameras, slope).item() == pytest.approx(expected.mean().item())
    on_it = torch.zeros_like(slope)
    assert losses.off_silhouette(points[:, :1], cameras, on_it).item() == 0
    moved = points[:1].clone().requires_grad_()
    assert gradcheck(lambda p: losses.off_silhouette(p, cameras, slope[:1]), moved)


def test_multi_view_adds_its_parts():
    cameras = zero123plus_cameras()
    maps = random_maps(1, 6, 2, 8, 8).float().requires_grad_()
    loss = losses.multi_view(maps, cameras=cameras, weights=(2.0, 30.0))
    parts = loss.as_dict()
    assert set(parts) == {"localization", "consistency", "total"}
    assert parts["localization"].item() == pytest.approx(losses.localization(maps).item())
    assert parts["consistency"].item() == pytest.approx(losses.geometric_consistency(maps, cameras).item())
    assert parts["total"].item() == pytest.approx(2 * loss.localization.item() + 30 * loss.consistency.item())
    pixel = losses.multi_view(maps, consistency="pixel")
    assert pixel.total.item() == pytest.approx((losses.localization(maps) + losses.pixel_consistency(maps)).item())
    with pytest.raises(ValueError, match="needs the views' cameras"):
        losses.multi_view(maps)
    with pytest.raises(ValueError, match="'geometric' or 'pixel'"):
        losses.multi_view(maps, cameras=cameras, consistency="none")
