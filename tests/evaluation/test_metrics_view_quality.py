"""PSNR and SSIM against their formulas, written out slowly."""

import math

import pytest
import torch

from keyorbit.evaluation import metrics


@pytest.fixture
def pair(generator):
    truth = torch.rand(2, 3, 13, 14, generator=generator, dtype=torch.float64)
    return (truth + 0.1 * torch.randn(truth.shape, generator=generator, dtype=torch.float64)).clamp(0, 1), truth


def slow_ssim(a, b):
    """Window by window: weighted means, variances and covariance."""
    weights = [[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / 4.5) for j in range(11)] for i in range(11)]
    w = torch.tensor(weights, dtype=torch.float64)
    w /= w.sum()
    found = []
    for row in range(a.shape[0] - 10):
        for col in range(a.shape[1] - 10):
            x, y = (p[row : row + 11, col : col + 11] for p in (a, b))
            mx, my = (w * x).sum(), (w * y).sum()
            vx, vy, cov = (w * (x - mx) ** 2).sum(), (w * (y - my) ** 2).sum(), (w * (x - mx) * (y - my)).sum()
            top = (2 * mx * my + 1e-4) * (2 * cov + 9e-4)
            found.append(top / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    return torch.stack(found).mean()


def test_ssim_is_wangs(pair):
    views, truth = pair
    expected = torch.tensor([[slow_ssim(views[i, c], truth[i, c]) for c in range(3)] for i in range(2)]).mean(1)
    torch.testing.assert_close(metrics.ssim(views, truth), expected.double())
    assert metrics.ssim(truth, truth).tolist() == pytest.approx([1, 1])
    # One picture, and any number of axes before it.
    torch.testing.assert_close(metrics.ssim(views[0], truth[0]), metrics.ssim(views, truth)[0])
    torch.testing.assert_close(metrics.ssim(views[None], truth[None]), metrics.ssim(views, truth)[None])
    with pytest.raises(ValueError, match="smaller than the window"):
        metrics.ssim(views[..., :10], truth[..., :10])


def test_psnr_by_hand(pair):
    _, truth = pair
    assert metrics.psnr(truth * 0, truth * 0 + 0.1).tolist() == pytest.approx([20, 20])
    assert metrics.psnr(truth, truth).tolist() == pytest.approx([120, 120])
