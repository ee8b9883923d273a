"""Where a heatmap marks its place, and how much of it is there."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from keyorbit.detection.choices import Peak
from keyorbit.geometry.heatmaps import argmax_rowcol, argmax_xy, soft_argmax_xy, windowed_soft_argmax_xy


def peak_xy(heatmaps: Float[Tensor, "*batch height width"], peak: Peak, window: float) -> Float[Tensor, "*batch 2"]:
    """The place of each heatmap, xy in the unit square; ``window`` in sides of the view, see :class:`DetectConfig`."""
    if peak == "soft":
        return soft_argmax_xy(heatmaps)
    if peak == "argmax":
        return argmax_xy(heatmaps)
    return windowed_soft_argmax_xy(heatmaps, round(window * int(heatmaps.shape[-1])))


def peak_score(
    heatmaps: Float[Tensor, "*batch height width"],
    looked: Float[Tensor, "*batch height width"],
    window: float,
    covered: Float[Tensor, "height width"] | None = None,
) -> Float[Tensor, "*batch"]:
    """The heatmap's mass in the window round the peak, beyond what a flat map has there: 1 for a spot, 0 flat.

    Args:
        heatmaps: each sums to 1.
        looked: the maps whose peak that is.
        window: half its side, in sides of the view.
        covered: 1 on the object, 0 beside it, where mass does not count: a spot on the background is no keypoint.
            Default None: all of it counts.
    """
    height, width = heatmaps.shape[-2:]
    radius = round(window * width)
    row, col = rearrange(argmax_rowcol(looked), "... c -> c ... 1")
    near_row = (torch.arange(height, device=heatmaps.device) - row).abs() <= radius
    near_col = (torch.arange(width, device=heatmaps.device) - col).abs() <= radius
    inside = near_row[..., :, None] & near_col[..., None, :]
    flat = inside.to(heatmaps.dtype).mean((-2, -1))
    mass = (heatmaps * inside if covered is None else heatmaps * inside * covered).sum((-2, -1))
    score: Tensor = ((mass - flat) / (1 - flat)).clamp(0, 1)
    return score
