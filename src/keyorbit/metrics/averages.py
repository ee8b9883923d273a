"""Distances of points, and means over those that are known."""

import torch
from torch import Tensor


def distance_between(first: Tensor, second: Tensor) -> Tensor:
    distance: Tensor = torch.linalg.vector_norm(first - second, dim=-1)
    return distance


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values.mean()
    if not bool(mask.any()):
        raise ValueError("the mask leaves nothing to average: at least one point must be known")
    return values[mask].mean()
