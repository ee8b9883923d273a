"""Errors of 3D points and of the rotation between them, before and after the best scale or similarity.

Points outside a `mask` do not count, neither in an alignment nor in a mean. Means are over all points of all batch
elements together, and raise ValueError when the mask is empty.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.evaluation.metrics.averages import distance_between, known_or_zero, masked_mean


def mpjpe(
    predicted: Float[Tensor, "*batch keypoint 3"],
    truth: Float[Tensor, "*batch keypoint 3"],
    mask: Bool[Tensor, "*batch keypoint"] | None = None,
) -> Float[Tensor, ""]:
    """Compute the mean distance of corresponding 3D points, without alignment (world units)."""
    return masked_mean(distance_between(predicted, truth), mask)


def n_mpjpe(
    predicted: Float[Tensor, "*batch keypoint 3"],
    truth: Float[Tensor, "*batch keypoint 3"],
    mask: Bool[Tensor, "*batch keypoint"] | None = None,
) -> Float[Tensor, ""]:
    """Compute `mpjpe` after the best scale about the origin, Σp·t / Σp·p per batch element (Rhodin et al. 2018)."""
    p, t = known_or_zero(predicted, mask), known_or_zero(truth, mask)
    own = p.square().sum(dim=(-2, -1), keepdim=True)
    scale = (p * t).sum(dim=(-2, -1), keepdim=True) / own.clamp_min(torch.finfo(own.dtype).tiny)
    return mpjpe(scale * predicted, truth, mask)


def procrustes_align(
    predicted: Float[Tensor, "*batch keypoint 3"],
    truth: Float[Tensor, "*batch keypoint 3"],
    mask: Bool[Tensor, "*batch keypoint"] | None = None,
) -> Float[Tensor, "*batch keypoint 3"]:
    """Rotate, scale and shift the predicted points (without mirroring) so that they lie nearest to the truth.

    Least squares over the known points, per batch element (Umeyama 1991). Unknown points are moved along.
    """
    mean_p, mean_t = _known_mean(predicted, mask), _known_mean(truth, mask)
    centred, target = known_or_zero(predicted - mean_p, mask), known_or_zero(truth - mean_t, mask)
    rotation, s = _best_rotation(centred, target)
    own = centred.square().sum(dim=(-2, -1)).clamp_min(torch.finfo(s.dtype).tiny)
    scale = (s.sum(-1) / own)[..., None, None]
    aligned: Tensor = scale * ((predicted - mean_p) @ rotation.transpose(-1, -2)) + mean_t
    return aligned


def pa_mpjpe(
    predicted: Float[Tensor, "*batch keypoint 3"],
    truth: Float[Tensor, "*batch keypoint 3"],
    mask: Bool[Tensor, "*batch keypoint"] | None = None,
) -> Float[Tensor, ""]:
    """Compute `mpjpe` after `procrustes_align`. It is also called P-MPJPE."""
    return mpjpe(procrustes_align(predicted, truth, mask), truth, mask)


def best_rotation(
    source: Float[Tensor, "*batch keypoint 3"],
    target: Float[Tensor, "*batch keypoint 3"],
    mask: Bool[Tensor, "*batch keypoint"] | None = None,
) -> Float[Tensor, "*batch 3 3"]:
    """Compute the rotation (without mirroring) that brings the centred source nearest to the target (Kabsch 1976).

    The rotation is arbitrary where the known points lie on one line or point, since these do not determine one.
    """
    centred = known_or_zero(source - _known_mean(source, mask), mask)
    return _best_rotation(centred, known_or_zero(target - _known_mean(target, mask), mask))[0]


def relative_pose_error(
    source: Float[Tensor, "*batch keypoint 3"],
    target: Float[Tensor, "*batch keypoint 3"],
    rotation: Float[Tensor, "*batch 3 3"],
    mask: Bool[Tensor, "*batch keypoint"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Compute the angle in degrees, 0…180, between the rotation given by the keypoints and the true one, per pair.

    `source` and `target` are keypoints with the same index of two poses or two objects. R is the rotation (without
    mirroring) that brings the centred source nearest to the centred target, by least squares, and the error is
    2·arcsin(‖R − `rotation`‖_F / (2√2)), the angle of R·rotationᵀ (SC3K, Zohaib & Del Bue 2023: github IIT-PAVIS/SC3K,
    metrics.py, `pose_loss`; it reports mean and median over pairs). `rotation` maps source to target; with poses R₁ and
    R₂ from one canonical frame it is R₂·R₁ᵀ. The error is NaN where the known keypoints lie on one line or point, since
    these do not determine a rotation.
    """
    centred = known_or_zero(source - _known_mean(source, mask), mask)
    goal = known_or_zero(target - _known_mean(target, mask), mask)
    found, s = _best_rotation(centred, goal)
    chord = torch.linalg.matrix_norm(found - rotation) / 8**0.5
    angle = torch.rad2deg(2 * torch.arcsin(chord.clamp(max=1)))
    told = s[..., 1].abs() > 100 * torch.finfo(s.dtype).eps * s[..., 0]
    return torch.where(told, angle, torch.nan)


def vertical_turn(
    source: Float[Tensor, "*batch keypoint 3"],
    target: Float[Tensor, "*batch keypoint 3"],
    mask: Bool[Tensor, "*batch keypoint"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Compute the angle in degrees, −180…180, of the rotation about +z that brings the source nearest to the target.

    Both are centred at the mean of their known points. It is atan2(Σ s×t, Σ s·t) of the horizontal parts, which is the
    least-squares rotation in the plane (Kabsch 1976). It is NaN where the points determine none: where they all lie on
    one vertical line.
    """
    s = known_or_zero(source - _known_mean(source, mask), mask)[..., :2]
    t = known_or_zero(target - _known_mean(target, mask), mask)[..., :2]
    along = (s * t).sum(dim=(-2, -1))
    across = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(-1)
    size = s.square().sum(dim=(-2, -1)) * t.square().sum(dim=(-2, -1))
    told = along.square() + across.square() > (100 * torch.finfo(s.dtype).eps) ** 2 * size
    return torch.where(told, torch.rad2deg(torch.atan2(across, along)), torch.nan)


def _best_rotation(centred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rotation of centred [… point 3] onto target (Kabsch), and the covariance's signed singular values."""
    u, s, vh = torch.linalg.svd(target.transpose(-1, -2) @ centred)
    # A negative determinant would be a mirror image: the weakest axis is inverted.
    sign = torch.ones_like(s)
    sign = torch.cat([sign[..., :2], torch.linalg.det(u @ vh).sign()[..., None]], dim=-1)
    return (u * sign[..., None, :]) @ vh, s * sign


def _known_mean(points: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return points.mean(-2, keepdim=True)
    count = mask.sum(-1).clamp_min(1)[..., None, None]
    return known_or_zero(points, mask).sum(-2, keepdim=True) / count
