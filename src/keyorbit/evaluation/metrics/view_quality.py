"""Metrics of how near a generated view is to the true one. Pictures have values 0…1."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def psnr(
    views: Float[Tensor, "*batch channel height width"], truth: Float[Tensor, "*batch channel height width"]
) -> Float[Tensor, "*batch"]:
    """Compute the peak signal-to-noise ratio of each picture: −10 log₁₀ of the mean squared error, dB, at most 120."""
    return -10 * (views - truth).square().mean((-3, -2, -1)).clamp_min(1e-12).log10()


def ssim(
    views: Float[Tensor, "*batch channel height width"],
    truth: Float[Tensor, "*batch channel height width"],
    sigma: float = 1.5,
    side: int = 11,
) -> Float[Tensor, "*batch"]:
    """Compute the structural similarity of each picture, −1…1 (Wang et al. 2004, equation 13), mean over pixels.

    The window is Gaussian, with ``side`` pixels (odd) and standard deviation ``sigma``; K₁ = 0.01, K₂ = 0.03, range 1.
    Windows lie completely in the picture. Each channel is compared separately, as with scikit-image's ``channel_axis``,
    and averaged. Raises ValueError for a picture smaller than the window.
    """
    height, width = views.shape[-2:]
    if min(height, width) < side:
        raise ValueError(f"a picture of {height} × {width} is smaller than the window of {side} pixels")
    line = torch.arange(side, dtype=views.dtype, device=views.device) - side // 2
    weights = (-line.square() / (2 * sigma**2)).exp()
    weights = weights / weights.sum()

    def local_mean(x: Tensor) -> Tensor:
        flat = x.reshape(-1, 1, height, width)
        return F.conv2d(F.conv2d(flat, weights[None, None, :, None]), weights[None, None, None])

    mean, true = local_mean(views), local_mean(truth)
    variance = local_mean(views.square()) - mean.square()
    true_variance = local_mean(truth.square()) - true.square()
    covariance = local_mean(views * truth) - mean * true
    one, two = 0.01**2, 0.03**2
    similarity = (2 * mean * true + one) * (2 * covariance + two)
    similarity = similarity / ((mean.square() + true.square() + one) * (variance + true_variance + two))
    return similarity.reshape(*views.shape[:-2], -1).mean((-2, -1))
