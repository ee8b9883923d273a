"""Turning objects to their mean, and stretching a constellation to an object's form."""

import math

import pytest
import torch

from keyorbit.geometry.alignment import Form, canonical_points, form_of, middle_and_stray, stretched, symmetric_pairs


def cloud(generator, *batch):
    points = torch.randn(*batch, 60, 3, generator=generator, dtype=torch.float64)
    return points * torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)


def turn(angle):
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def test_the_form_is_mean_and_upright_covariance(generator):
    points = cloud(generator, 2)
    form = form_of(points)
    for item in range(2):
        torch.testing.assert_close(form.middle[item], points[item].mean(0))
        whole = torch.cov(points[item].T, correction=0)
        torch.testing.assert_close(form.covariance[item][:2, :2], whole[:2, :2])
        torch.testing.assert_close(form.covariance[item][2, 2], whole[2, 2])
        assert not form.covariance[item][2, :2].any()
        assert not form.covariance[item][:2, 2].any()
    again = Form.from_rows(form.rows)
    assert torch.equal(again.middle, form.middle)
    assert torch.equal(again.covariance, form.covariance)


@pytest.mark.parametrize("angle", [0.0, 0.4, 2.0])
def test_points_go_along_with_a_surface_that_is_stretched(generator, angle):
    # Stretched along any upright axes, and moved: what the surface does, its points do.
    surface, own = cloud(generator), cloud(generator)[:5]
    by = turn(angle) @ torch.diag(torch.tensor([1.6, 0.7, 1.2], dtype=torch.float64)) @ turn(angle).T
    shift = torch.tensor([0.1, -0.2, 0.05], dtype=torch.float64)
    found = stretched(own, form_of(surface), form_of(surface @ by.T + shift))
    # The vertical's covariance with the rest is left out; it is only sampling noise here, and stretches nothing.
    torch.testing.assert_close(found, own @ by.T + shift)


def test_the_way_back_is_the_inverse(generator):
    first, second = form_of(cloud(generator, 3)), form_of(cloud(generator, 3) @ turn(0.7) * 1.3 + 0.2)
    points = cloud(generator, 3)[:, :7]
    torch.testing.assert_close(stretched(stretched(points, first, second), second, first), points)


def test_it_never_turns_and_takes_form_to_form(generator):
    surface, other = cloud(generator), cloud(generator) @ turn(1.1).T
    here, there = form_of(surface), form_of(other)
    moved = form_of(stretched(surface, here, there))
    torch.testing.assert_close(moved.middle, there.middle)
    torch.testing.assert_close(moved.covariance, there.covariance)
    axes = torch.eye(3, dtype=torch.float64)
    linear = stretched(axes, here, there) - stretched(torch.zeros_like(axes), here, there)
    torch.testing.assert_close(linear, linear.T)
    assert (torch.linalg.eigvalsh(linear) > 0).all()


def test_one_set_of_points_for_many_forms_and_flat_ones(generator):
    points = cloud(generator)[:4]
    flat = cloud(generator, 2)
    flat[1, :, 2] = 0.1
    here, there = form_of(cloud(generator)), form_of(flat)
    both = stretched(points, here, there)
    assert both.shape == (2, 4, 3)
    assert both.isfinite().all()
    torch.testing.assert_close(both[0], stretched(points, here, form_of(flat[0])))
    # On the way back the flat direction is not blown up beyond its smallest standard deviation.
    assert stretched(both[1], form_of(flat[1]), here).isfinite().all()


@pytest.mark.parametrize("turns", [(0.0, 0.7, -1.9, 2.6), (0.0, 3.1, -3.1)])
def test_objects_turned_about_the_vertical_come_back_to_one(turns, generator):
    """Each is the same shape, turned and shifted: afterwards all are equal, about their centroids, and upright."""
    shape = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    items = []
    for angle in turns:
        items.append(shape @ turn(angle).T + torch.randn(3, generator=generator, dtype=torch.float64))
    found = canonical_points(torch.stack(items))
    torch.testing.assert_close(found, found[:1].expand_as(found))
    torch.testing.assert_close(found.mean(1), torch.zeros(len(turns), 3, dtype=torch.float64))
    torch.testing.assert_close(found[0, :, 2], shape[:, 2] - shape[:, 2].mean())
    torch.testing.assert_close(torch.cdist(found[0], found[0]), torch.cdist(shape, shape))


def test_the_middle_is_the_median_and_the_stray_a_root_mean_square():
    aligned = torch.tensor([[[0.0, 0.0, 0.0]], [[0.3, 0.0, 0.0]], [[0.0, 0.0, 0.0]], [[0.0, 0.4, 0.0]]])
    middle, stray = middle_and_stray(aligned[:3])
    assert middle.tolist() == [[0.0, 0.0, 0.0]]
    assert stray.item() == pytest.approx((0.09 / 3) ** 0.5)
    assert middle_and_stray(aligned)[1].item() == pytest.approx(((0.09 + 0.16) / 4) ** 0.5)


def test_mirror_images_are_paired():
    shape = torch.tensor([[0.3, 0.2, 0.0], [0.3, -0.2, 0.0], [-0.3, 0.2, 0.1], [-0.3, -0.2, 0.1], [0.1, 0.0, 0.4]])
    middle = shape @ turn(0.7).float().T
    assert sorted(symmetric_pairs(middle, torch.zeros(5))) == [(0, 1), (2, 3)]
    assert symmetric_pairs(middle, torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])) == [(2, 3)]
    assert symmetric_pairs(middle[:1], torch.zeros(1)) == []
