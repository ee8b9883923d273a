import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from keyorbit.geometry import heatmaps as hm
from oracles import losses as loops


def planted(height, width, row, col):
    maps = torch.zeros(height, width)
    maps[row, col] = 1.0
    return maps


@pytest.mark.parametrize(("height", "width"), [(8, 12), (12, 8), (40, 40), (1, 1)])
def test_every_reading_of_a_single_pixel_is_its_centre(height, width):
    row, col = height - 1, width // 3
    maps = planted(height, width, row, col)
    expected = torch.tensor([(col + 0.5) / width, (row + 0.5) / height])
    assert torch.allclose(hm.argmax_xy(maps), expected)
    assert torch.allclose(hm.soft_argmax_xy(maps), expected)
    assert torch.allclose(hm.windowed_soft_argmax_xy(maps, 1), expected)
    assert torch.allclose(hm.pixel_centers(height, width)[row, col], expected)
    assert hm.argmax_rowcol(maps).tolist() == [row, col]
    assert hm.spatial_variance(maps).item() == pytest.approx(0, abs=1e-10)


def test_softmax_and_normalize_sum_to_one():
    logits = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 10
    soft = hm.spatial_softmax(logits, temperature=2.0)
    assert torch.allclose(soft.sum((-2, -1)), torch.ones(2, 3))
    assert torch.allclose(soft[1, 2].log().flatten().diff(), (logits[1, 2] / 2).flatten().diff(), atol=1e-3)
    assert torch.allclose(hm.normalize(logits.abs()).sum((-2, -1)), torch.ones(2, 3))
    with pytest.raises(ValueError, match="temperature"):
        hm.spatial_softmax(logits, 0.0)


def test_normalize_of_nothing_is_uniform_with_a_finite_gradient():
    maps = torch.zeros(2, 4, 5, requires_grad=True)
    out = hm.normalize(maps)
    assert torch.allclose(out, torch.full((2, 4, 5), 1 / 20))
    out.square().sum().backward()
    assert maps.grad.isfinite().all()
    tiny = torch.full((4, 5), 1e-30)
    assert torch.allclose(hm.normalize(tiny), torch.full((4, 5), 1 / 20))


def test_a_window_ignores_the_second_peak():
    maps = planted(20, 20, 5, 5) + 0.9 * planted(20, 20, 5, 15) + 0.5 * planted(20, 20, 5, 6)
    xy = hm.windowed_soft_argmax_xy(maps, 2)
    assert xy.tolist() == pytest.approx([(5 + 0.5 + 1 / 3) / 20, 5.5 / 20])
    assert torch.allclose(hm.windowed_soft_argmax_xy(maps, 40), hm.soft_argmax_xy(hm.normalize(maps)))
    assert hm.windowed_soft_argmax_xy(torch.zeros(9, 9), 0).tolist() == pytest.approx([0.5 / 9, 0.5 / 9])
    with pytest.raises(ValueError, match="radius"):
        hm.windowed_soft_argmax_xy(maps, -1)


def test_covariance_matches_the_definition():
    heat = hm.normalize(torch.rand(3, 8, 12, dtype=torch.float64))
    points = hm.pixel_centers(8, 12, torch.float64).reshape(-1, 2)
    for m, cov, var in zip(heat, hm.covariance(heat), hm.spatial_variance(heat), strict=True):
        expected = torch.cov(points.T, correction=0, aweights=m.flatten())
        assert torch.allclose(cov, expected)
        assert var.item() == pytest.approx(expected.trace().item())


@pytest.mark.parametrize(("height", "width"), [(8, 12), (12, 8), (40, 40)])
def test_a_gaussian_is_round_in_pixels_with_peak_one(height, width):
    m = planted(height, width, 5, 3)
    assert torch.allclose(hm.gaussian(hm.argmax_xy(m), height, width, 2.0), loops.bump(m, 2.0), atol=1e-6)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.floats(0.3, 0.7), st.floats(0.3, 0.7), st.sampled_from([(24, 36), (36, 24), (30, 30)]))
def test_soft_argmax_finds_a_gaussian_between_pixels(x, y, size):
    heat = hm.normalize(hm.gaussian(torch.tensor([x, y], dtype=torch.float64), *size, 1.5))
    assert hm.soft_argmax_xy(heat).tolist() == pytest.approx([x, y], abs=1e-4)
    spread = 1.5**2 * (1 / size[0] ** 2 + 1 / size[1] ** 2)
    assert hm.spatial_variance(heat).item() == pytest.approx(spread, rel=1e-2)


def test_gradients():
    maps = torch.rand(2, 4, 6, dtype=torch.float64, requires_grad=True)
    xy = torch.rand(2, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda m: hm.soft_argmax_xy(hm.normalize(m)), maps)
    assert gradcheck(lambda m: hm.windowed_soft_argmax_xy(m, 1), maps)
    assert gradcheck(hm.spatial_variance, maps)
    assert gradcheck(lambda p: hm.gaussian(p, 4, 6, 1.3), xy)
    assert not hm.argmax_xy(maps).requires_grad


def test_kl_matches_the_loops_and_is_zero_for_a_gaussian():
    maps = torch.rand(2, 3, 8, 12, dtype=torch.float64) + 0.01
    kl = hm.gaussian_kl(maps, 2.0)
    for b in range(2):
        for t in range(3):
            assert kl[b, t].item() == pytest.approx(loops.kl(maps[b, t], 2.0), abs=1e-8)
    peaked = hm.gaussian(torch.tensor([0.5 / 12, 4.5 / 8]), 8, 12, 2.0)
    assert hm.gaussian_kl(peaked, 2.0).item() == pytest.approx(0, abs=1e-6)


def test_resize_keeps_unit_square_positions():
    xy = torch.tensor([0.4, 0.6])
    small = hm.normalize(hm.gaussian(xy, 20, 30, 2.0))
    big = hm.normalize(hm.resize(small, (60, 45)))
    assert torch.allclose(hm.soft_argmax_xy(big), xy, atol=1e-3)
    assert hm.resize(small, (20, 30)) is small


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest-exact"])
@pytest.mark.parametrize(("old", "new"), [((4, 4), (32, 32)), ((5, 7), (12, 9)), ((20, 30), (7, 11)), ((3, 8), (3, 5))])
def test_resize_does_what_interpolate_does(mode, old, new):
    maps = torch.randn(2, 3, *old, dtype=torch.float64, requires_grad=True)
    corners = None if mode == "nearest-exact" else False
    expected = F.interpolate(maps, size=new, mode=mode, align_corners=corners)
    found = hm.resize(maps, new, mode)
    assert torch.allclose(found, expected, atol=1e-12)
    weight = torch.randn_like(expected)
    gradients = [torch.autograd.grad((weight * x).sum(), maps)[0] for x in (found, expected)]
    assert torch.allclose(*gradients, atol=1e-12)
    assert hm.resize(maps.bfloat16(), new, mode).dtype == torch.bfloat16
