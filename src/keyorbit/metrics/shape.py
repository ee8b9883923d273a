"""How keypoints lie on an object: near its landmarks, on its silhouette, on its views."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.cameras import Cameras
from keyorbit.metrics.averages import masked_mean
from keyorbit.triangulation import reprojection_error


def coverage(
    keypoints: Float[Tensor, "item keypoint dim"],
    landmarks: Float[Tensor, "item landmark dim"],
    threshold: float,
    mask: Bool[Tensor, "item landmark"] | None = None,
) -> Float[Tensor, ""]:
    """Share of the known landmarks with some keypoint within `threshold` (unit of the points)."""
    distance = torch.cdist(keypoints, landmarks, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
    return masked_mean((distance <= threshold).to(distance.dtype), mask)


def mean_reprojection(
    points: Float[Tensor, "*batch keypoint 3"],
    xy: Float[Tensor, "*batch view keypoint 2"],
    cameras: Cameras,
) -> Float[Tensor, ""]:
    """Mean distance between projected 3D points and the 2D points, over views, in sides of the view."""
    return reprojection_error(points, xy, cameras).mean()


def on_object_rate(
    xy: Float[Tensor, "item view keypoint 2"],
    masks: Float[Tensor, "item view height width"] | Bool[Tensor, "item view height width"],
    tolerance: float = 0.02,
) -> Float[Tensor, ""]:
    """Share of the 2D points on the object's silhouette, or within `tolerance` (sides of the view) of it.

    `masks` are 1 on the object. The silhouette grows by whole pixels along both axes (a square, so up to
    √2·tolerance diagonally). Points outside the picture are off the object.
    """
    height, width = masks.shape[-2:]
    rows, cols = round(tolerance * height), round(tolerance * width)
    silhouette = masks.to(xy.dtype).flatten(0, 1)[:, None]
    silhouette = F.max_pool2d(silhouette, (2 * rows + 1, 2 * cols + 1), stride=1, padding=(rows, cols))
    size = torch.tensor([width, height], dtype=xy.dtype, device=xy.device)
    within = ((xy >= 0) & (xy <= 1)).all(-1)
    column, row = torch.minimum((xy * size).floor().clamp_min(0), size - 1).long().unbind(-1)
    flat = silhouette.reshape(*masks.shape[:2], -1)
    hit = flat.gather(-1, row * width + column) > 0.5
    return (hit & within).to(xy.dtype).mean()
