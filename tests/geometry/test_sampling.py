"""Sampling in the order of a GPU's choice, and in a fixed one, gives the same."""

import pytest
import torch

from keyorbit.geometry.sampling import bilinear, lower_median


def found(images, xy, edge):
    images, xy = images.clone().requires_grad_(), xy.clone().requires_grad_()
    sampled = bilinear(images, xy, edge)
    weight = torch.linspace(-1, 1, sampled.numel(), dtype=images.dtype).reshape(sampled.shape)
    (sampled * weight).sum().backward()
    return sampled.detach(), images.grad, xy.grad


@pytest.mark.parametrize("edge", ["zeros", "border"])
def test_values_and_gradients_are_the_same_in_a_fixed_order(edge, generator, request):
    images = torch.rand(2, 3, 5, 7, generator=generator, dtype=torch.float64)
    xy = 1.6 * torch.rand(2, 6, 9, 2, generator=generator, dtype=torch.float64) - 0.3  # also beside the picture
    free = found(images, xy, edge)
    request.getfixturevalue("deterministic")
    fixed = found(images, xy, edge)
    assert free[0].shape == (2, 3, 6, 9)
    for ours, theirs in zip(fixed, free, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_pixels_centre_gives_its_value(deterministic):
    images = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert bilinear(images, torch.tensor([[[0.5 / 3, 0.75], [2.5 / 3, 0.25]]])).tolist() == [[[3.0, 2.0]]]


@pytest.mark.parametrize("count", [1, 4, 7])
def test_the_median_is_torchs(count, generator):
    values = torch.rand(3, count, 2, generator=generator)
    assert torch.equal(lower_median(values, 1), values.median(dim=1).values)


def test_a_position_that_is_no_number_has_no_value(deterministic):
    images, xy = torch.rand(1, 2, 3, 3), torch.tensor([[[0.5, 0.5], [float("nan"), 0.5]]])
    found = bilinear(images, xy, "border")
    assert torch.equal(found[..., 0], images[:, :, 1, 1])
    assert found[..., 1].isnan().all()


@pytest.mark.parametrize("edge", ["zeros", "border"])
def test_a_gradient_at_a_position_that_is_no_number_leaves_the_process_alive(edge, generator):
    images = torch.randn(2, 3, 16, 16, generator=generator).requires_grad_()
    xy = torch.rand(2, 5, 2, generator=generator)
    xy[0, 0] = torch.nan
    xy.requires_grad_()
    found = bilinear(images, xy, edge)
    assert found[1].isfinite().all()
    found.sum().backward()
    assert images.grad[1].isfinite().all()
