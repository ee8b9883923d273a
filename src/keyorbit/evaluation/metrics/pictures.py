"""How keypoints lie in the views: where their 3D points are seen, and on the object's silhouette."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.evaluation.metrics.averages import distance_between, masked_mean
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.triangulation import reprojection_error


def mean_reprojection(
    points: Float[Tensor, "*batch keypoint 3"],
    xy: Float[Tensor, "*batch view keypoint 2"],
    cameras: Cameras,
    mask: Bool[Tensor, "*batch view keypoint"] | None = None,
) -> Float[Tensor, ""]:
    """Mean distance between projected 3D points and the 2D points in the mask, over views, in sides of the view.

    Raises ValueError when the mask is empty.
    """
    return masked_mean(reprojection_error(points, xy, cameras), mask)


def mean_reprojection_px(
    points: Float[Tensor, "*batch keypoint 3"],
    xy: Float[Tensor, "*batch view keypoint 2"],
    cameras: Cameras,
    height: int,
    width: int,
    mask: Bool[Tensor, "*batch view keypoint"] | None = None,
) -> Float[Tensor, ""]:
    """`mean_reprojection` in pixels of a view of `height` × `width`: mean of |((û − x)·width, (v̂ − y)·height)|.

    (û, v̂) is where a view sees the point, (x, y) its place there (Hartley & Zisserman 2004, §12.1). A pixel of a
    larger view is a smaller length: compare views of one size, or `mean_reprojection_percent`.
    """
    size = torch.tensor([width, height], dtype=xy.dtype, device=xy.device)
    return masked_mean(distance_between(cameras.project(points) * size, xy * size), mask)


def mean_reprojection_percent(
    points: Float[Tensor, "*batch keypoint 3"],
    xy: Float[Tensor, "*batch view keypoint 2"],
    cameras: Cameras,
    height: int,
    width: int,
    mask: Bool[Tensor, "*batch view keypoint"] | None = None,
) -> Float[Tensor, ""]:
    """100 · `mean_reprojection_px` / max(height, width): percent of a view's longer side, whatever its resolution."""
    return 100 * mean_reprojection_px(points, xy, cameras, height, width, mask) / max(height, width)


def on_object_rate(
    xy: Float[Tensor, "item view keypoint 2"],
    masks: Float[Tensor, "item view height width"] | Bool[Tensor, "item view height width"],
    tolerance: float = 0.02,
    mask: Bool[Tensor, "item view keypoint"] | None = None,
) -> Float[Tensor, ""]:
    """Share of the 2D points on the object's silhouette, or within `tolerance` (sides of the view) of it.

    `masks` are 1 on the object. The silhouette grows by whole pixels along both axes (a square, so up to
    √2·tolerance diagonally). Points outside the picture are off the object, points outside `mask` take no part.
    Raises ValueError when the mask is empty.
    """
    height, width = masks.shape[-2:]
    rows, cols = round(tolerance * height), round(tolerance * width)
    silhouette = masks.to(xy.dtype).flatten(0, 1)[:, None]
    silhouette = F.max_pool2d(silhouette, (2 * rows + 1, 2 * cols + 1), stride=1, padding=(rows, cols))
    size = torch.tensor([width, height], dtype=xy.dtype, device=xy.device)
    within = ((xy >= 0) & (xy <= 1)).all(-1)
    # NaN, as an unknown point may be, has no pixel.
    xy = xy.masked_fill(~within[..., None], 0)
    column, row = torch.minimum((xy * size).floor(), size - 1).long().unbind(-1)
    flat = silhouette.reshape(*masks.shape[:2], -1)
    hit = flat.gather(-1, row * width + column) > 0.5
    return masked_mean((hit & within).to(xy.dtype), mask)
