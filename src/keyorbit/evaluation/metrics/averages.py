"""Distances of points, and means over known points."""

import torch
from torch import Tensor


def distance_between(first: Tensor, second: Tensor) -> Tensor:
    """Compute the distance between corresponding points: [… dim] twice → […]."""
    distance: Tensor = torch.linalg.vector_norm(first - second, dim=-1)
    return distance


def all_distances(first: Tensor, second: Tensor) -> Tensor:
    """Compute the distance between each point of the first and each of the second, exact also for near points.

    [item first dim], [item second dim] → [item first second].
    """
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def nearest_distance(points: Tensor, others: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute the distance from each point to the nearest known one of the others, infinite if none is: [item point].

    points [item point dim], others [item other dim]; `mask` [item other] is True for the known ones.
    """
    distance = all_distances(points, others)
    if mask is not None:
        distance = distance.masked_fill(~mask[:, None], torch.inf)
    return distance.amin(dim=2)


def known_or_zero(points: Tensor, mask: Tensor | None) -> Tensor:
    """Set points [… point dim] that `mask` marks as unknown to 0: they may be NaN, and 0 · NaN is not 0."""
    return points if mask is None else points.masked_fill(~mask[..., None], 0)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Compute the mean of the known values. `values` and `mask` have the same shape; without a mask all are known.

    Raises ValueError when none is known.
    """
    if mask is None:
        return values.mean()
    if not bool(mask.any()):
        raise ValueError("the mask leaves nothing to average: at least one point must be known")
    return values[mask].mean()


def mean_of_means(values: Tensor, mask: Tensor | None) -> Tensor:
    """Compute the mean over items of each item's mean over its known points; `values` and `mask` are [item point].

    Items without a known point are left out. Raises ValueError when none is known anywhere.
    """
    return masked_mean(item_means(values, mask), None if mask is None else mask.any(dim=1))


def item_means(values: Tensor, mask: Tensor | None) -> Tensor:
    """Compute each item's mean over its known points, 0 if it has none: [item point] → [item]."""
    if mask is None:
        return values.mean(dim=1)
    # Values at unknown points may be NaN or infinite: they are put out, not multiplied by 0.
    return values.masked_fill(~mask, 0).sum(dim=1) / mask.sum(dim=1).clamp_min(1)
