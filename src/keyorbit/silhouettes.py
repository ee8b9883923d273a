"""Where the object is in its views, told from a plain background; and how far everything else is from it."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from keyorbit.heatmaps import resize


def silhouettes(
    views: Float[Tensor, "view 3 height width"], threshold: float = 0.06
) -> Bool[Tensor, "view height width"]:
    """Where a view differs from its background, which is taken to be the median colour of its border."""
    border = torch.cat([views[..., 0, :], views[..., -1, :], views[..., :, 0], views[..., :, -1]], dim=-1)
    ground = border.median(dim=-1).values[..., None, None]
    return (views - ground).abs().amax(1) > threshold


def silhouette_distance(masks: Bool[Tensor, "*batch height width"]) -> Float[Tensor, "*batch height width"]:
    """How far every pixel is from the nearest pixel of the silhouette, in sides of the view; 0 on it.

    A view without any silhouette is 0 everywhere: it says nothing of where the object is.
    """
    height, width = masks.shape[-2:]
    fields = [
        distance_transform_edt(~mask, sampling=(1 / height, 1 / width)) if mask.any() else np.zeros(mask.shape)
        for mask in masks.reshape(-1, height, width).cpu().numpy()
    ]
    return torch.from_numpy(np.stack(fields)).float().reshape(masks.shape).to(masks.device)


def grown_masks(
    masks: Bool[Tensor, "version view height width"], size: tuple[int, int]
) -> Float[Tensor, "version view new_height new_width"]:
    """Silhouettes at the maps' size, a pixel wider: a heatmap on an edge may lean over it."""
    return F.max_pool2d(resize(masks.float(), size), 3, stride=1, padding=1)
