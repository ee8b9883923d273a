"""One map of an object from the maps of its versions."""

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.geometry.heatmaps import resize
from keyorbit.geometry.warps import Warp, inside, unwarp


def averaged(
    maps: Float[Tensor, "version view token height width"], warp: Warp
) -> Float[Tensor, "view token height width"]:
    """The versions' maps brought back; each pixel's mean is over the versions that show it, of which 0 always does."""
    shown = inside(warp, maps.shape[-2], maps.shape[-1])[:, :, None].to(maps)
    return (unwarp(maps, warp) * shown).sum(0) / shown.sum(0)


def averaged_as_published(
    maps: Float[Tensor, "version view token height width"], warp: Warp, still: int, side: int
) -> Float[Tensor, "view token {side} {side}"]:
    """The warped versions' maps, enlarged to ``side`` and brought back; the first ``still``, unwarped, are left out.

    Each pixel is weighted by how much of it a version shows, and is 0 where none shows it. Without a warped version
    the unwarped ones are averaged. Source: StableKeypoints, eval.py, `run_image_with_context_augmented`.
    """
    if len(maps) > still:
        maps, warp = maps[still:], Warp(warp.matrix[still:])
    large = resize(maps, (side, side))
    shown = unwarp(torch.ones_like(large[:, :, :1]), warp).sum(0)
    return torch.where(shown > 0, unwarp(large, warp).sum(0) / shown, 0.0)
