import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keyorbit.geometry.heatmaps import argmax_xy, gaussian, pixel_centers, soft_argmax_xy
from keyorbit.geometry.heatmaps import normalize as normalized
from keyorbit.geometry.warps import Warp, inside, random_warps, unwarp, warp_image


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_identity_changes_nothing():
    images = torch.rand(2, 3, 8, 12)
    warp = Warp.identity((2,))
    assert torch.allclose(warp_image(images, warp), images, atol=1e-5)
    assert torch.allclose(unwarp(images, warp), images, atol=1e-5)
    assert torch.equal(warp.apply(images[:, 0, :, :2]), images[:, 0, :, :2])
    assert inside(warp, 37, 23).all()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 1.0, 1.5]))
def test_inverse_and_compose(seed, aspect):
    warps = random_warps((2, 3), generator(seed), 40.0, (0.5, 2.0), 0.3, aspect, torch.float64)
    other = random_warps((2, 3), generator(seed + 1), dtype=torch.float64)
    points = torch.rand(2, 3, 7, 2, dtype=torch.float64)
    assert torch.allclose(warps.inverse().apply(warps.apply(points)), points)
    assert torch.allclose(warps.compose(other).apply(points), warps.apply(other.apply(points)))


@pytest.mark.parametrize(("height", "width"), [(24, 36), (36, 24), (40, 40)])
def test_a_warped_peak_is_where_apply_says(height, width):
    warp = random_warps((4,), generator(3), aspect=width / height)
    xy = torch.tensor([0.55, 0.45]).expand(4, 1, 2)
    images = gaussian(xy, height, width, 2.0)
    moved = warp_image(images, warp, fill=0.0)
    found = soft_argmax_xy(normalized(moved))
    assert torch.allclose(found, warp.apply(xy), atol=5e-3)
    assert (found - xy).abs().max() > 0.03


def test_a_turn_is_a_turn_in_pixels():
    height, width = 20, 60
    warp = random_warps((5,), generator(1), 90.0, (0.7, 0.7), 0.0, aspect=width / height)
    size = torch.tensor([width, height])
    corners = torch.tensor([[0.2, 0.3], [0.8, 0.3], [0.2, 0.9]])
    before = corners * size
    after = warp.apply(corners.expand(5, 3, 2)) * size
    for side in (1, 2):
        length = (after[:, side] - after[:, 0]).norm(dim=-1) / (before[side] - before[0]).norm()
        assert torch.allclose(length, torch.full((5,), 0.7), atol=1e-5)
    cosine = ((after[:, 1] - after[:, 0]) * (after[:, 2] - after[:, 0])).sum(-1)
    assert torch.allclose(cosine, torch.zeros(5), atol=1e-2)
    centre = torch.full((5, 1, 2), 0.5)
    assert torch.allclose(warp.apply(centre), centre, atol=1e-6)


def test_draws_fill_their_ranges_and_repeat():
    matrix = random_warps((2000,), generator(), 15.0, (0.8, 1.0), 0.25).matrix
    size = torch.linalg.det(matrix[:, :, :2]).sqrt()
    angle = torch.rad2deg(torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0]))
    shift = matrix[:, :, :2].sum(-1) / 2 + matrix[:, :, 2] - 0.5
    for values, low, high in ((size, 0.8, 1.0), (angle, -15.0, 15.0), (shift, -0.25, 0.25)):
        slack = (high - low) * 0.02
        assert low - 1e-4 <= values.min() <= low + slack
        assert high - slack <= values.max() <= high + 1e-4
    assert torch.equal(random_warps((3,), generator(5)).matrix, random_warps((3,), generator(5)).matrix)
    assert not torch.equal(random_warps((3,), generator(5)).matrix, random_warps((3,), generator(6)).matrix)
    with pytest.raises(ValueError, match="scale range"):
        random_warps((3,), generator(), scale=(0.0, 1.0))


def shift_right(by):
    return Warp(torch.tensor([[1.0, 0.0, by], [0.0, 1.0, 0.0]]))


def test_fill_paints_what_comes_from_outside():
    image = torch.full((2, 4, 8), 0.3)
    border = warp_image(image, shift_right(0.5))
    assert torch.allclose(border, image)
    white = warp_image(image, shift_right(0.5), fill=1.0)
    assert torch.allclose(white[:, :, :4], torch.ones(2, 4, 4))
    assert torch.allclose(white[:, :, 4:], image[:, :, 4:])
    each = warp_image(image, shift_right(0.5), fill=torch.tensor([0.0, 1.0]))
    assert each[0, 0, 0].item() == pytest.approx(0)
    assert each[1, 0, 0].item() == pytest.approx(1)


def test_one_warp_serves_a_batch_and_arguments_stay():
    images = torch.rand(2, 3, 1, 6, 6)
    before = images.clone()
    moved = warp_image(images, shift_right(1 / 6), fill=0.0)
    assert torch.allclose(moved[..., 1:], images[..., :-1], atol=1e-5)
    assert torch.equal(images, before)


@pytest.mark.parametrize("aspect", [0.5, 1.0])
def test_unwarp_is_exact_where_inside_says(aspect):
    height, width = 40, int(40 * aspect)
    warp = random_warps((6,), generator(2), aspect=aspect)
    points = pixel_centers(height, width).reshape(1, -1, 2).expand(6, -1, -1)

    def smooth(xy):
        return ((xy[..., 0] * 3).sin() + (xy[..., 1] * 2).cos()).reshape(6, 1, height, width)

    back = unwarp(smooth(warp.inverse().apply(points)), warp)
    seen = inside(warp, height, width)
    assert 0.3 < seen.float().mean() < 1
    error = (back - smooth(points))[:, 0].abs()
    assert error[seen].max() < 5e-3
    assert error[~seen].max() > 0.3


def test_inside_by_hand():
    assert inside(shift_right(0.5), 2, 8).tolist() == [[True] * 4 + [False] * 4] * 2
    turned = Warp(torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, 0.0]]))  # A quarter turn: x' = 1 − y, y' = x.
    assert inside(turned, 6, 6).all()
    image = torch.zeros(1, 6, 6)
    image[0, 1, 4] = 1
    assert argmax_xy(warp_image(image, turned))[0].tolist() == pytest.approx([1 - 1.5 / 6, 4.5 / 6])
    assert math.isclose(float(unwarp(warp_image(image, turned), turned)[0, 1, 4]), 1.0, abs_tol=1e-4)
