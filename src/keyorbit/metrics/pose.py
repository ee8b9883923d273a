"""Errors of 3D points, before and after the best scale or similarity."""

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.metrics.averages import distance_between


def mpjpe(
    predicted: Float[Tensor, "*batch keypoint 3"], truth: Float[Tensor, "*batch keypoint 3"]
) -> Float[Tensor, ""]:
    """Mean distance of corresponding 3D points, without any alignment (world units)."""
    return distance_between(predicted, truth).mean()


def n_mpjpe(
    predicted: Float[Tensor, "*batch keypoint 3"], truth: Float[Tensor, "*batch keypoint 3"]
) -> Float[Tensor, ""]:
    """As `mpjpe` after the best scale about the origin, per batch element (Rhodin et al. 2018)."""
    own = predicted.square().sum(dim=(-2, -1), keepdim=True)
    scale = (predicted * truth).sum(dim=(-2, -1), keepdim=True) / own.clamp_min(torch.finfo(own.dtype).tiny)
    return mpjpe(scale * predicted, truth)


def procrustes_align(
    predicted: Float[Tensor, "*batch keypoint 3"], truth: Float[Tensor, "*batch keypoint 3"]
) -> Float[Tensor, "*batch keypoint 3"]:
    """The predicted points, turned, scaled and shifted (not mirrored) to lie nearest to the truth.

    Least squares, per batch element (Umeyama 1991).
    """
    mean_p, mean_t = predicted.mean(-2, keepdim=True), truth.mean(-2, keepdim=True)
    centred, target = predicted - mean_p, truth - mean_t
    u, s, vh = torch.linalg.svd(target.transpose(-1, -2) @ centred)
    # A negative determinant would be a mirror image: the weakest axis is turned round.
    sign = torch.ones_like(s)
    sign = torch.cat([sign[..., :2], torch.linalg.det(u @ vh).sign()[..., None]], dim=-1)
    rotation = (u * sign[..., None, :]) @ vh
    own = centred.square().sum(dim=(-2, -1)).clamp_min(torch.finfo(s.dtype).tiny)
    scale = ((s * sign).sum(-1) / own)[..., None, None]
    aligned: Tensor = scale * (centred @ rotation.transpose(-1, -2)) + mean_t
    return aligned


def pa_mpjpe(
    predicted: Float[Tensor, "*batch keypoint 3"], truth: Float[Tensor, "*batch keypoint 3"]
) -> Float[Tensor, ""]:
    """As `mpjpe` after `procrustes_align`."""
    return mpjpe(procrustes_align(predicted, truth), truth)
