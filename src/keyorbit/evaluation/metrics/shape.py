"""Metrics of keypoints on a shape: near its landmarks, near its surface, over its whole extent."""

from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.evaluation.metrics.averages import distance_between, masked_mean, mean_of_means, nearest_distance


def coverage(
    keypoints: Float[Tensor, "item keypoint dim"],
    landmarks: Float[Tensor, "item landmark dim"],
    threshold: float,
    mask: Bool[Tensor, "item landmark"] | None = None,
    keypoint_mask: Bool[Tensor, "item keypoint"] | None = None,
) -> Float[Tensor, ""]:
    """Compute the share of the known landmarks, of all items, with a keypoint within `threshold` (unit of the points).

    It needs landmarks. What SC3K calls "coverage" compares extents: `extent_coverage`. Raises ValueError when no
    landmark is known.
    """
    distance = nearest_distance(landmarks, keypoints, keypoint_mask)
    return masked_mean((distance <= threshold).to(distance.dtype), mask)


def extent_coverage(
    keypoints: Float[Tensor, "item keypoint dim"],
    surface: Float[Tensor, "item point dim"],
    mask: Bool[Tensor, "item keypoint"] | None = None,
) -> Float[Tensor, ""]:
    """Compute SC3K's coverage, in [0, 1]: how near the extent of the keypoints is to that of the shape.

    It is the mean over items of max(0, 1 − |D_s − D_k| / D_s). D is the diagonal of the axis-aligned box around the
    points of the surface or the known keypoints (Zohaib & Del Bue 2023; github IIT-PAVIS/SC3K, metrics.py, `coverage`,
    in percent, after Fernandez-Labrador et al. 2020). The box follows the axes, so that the value changes a little when
    the object rotates. `coverage` uses landmarks instead. Items without a known keypoint are left out; surfaces with
    fewer points repeat one. Raises ValueError when no keypoint is known.
    """
    whole = distance_between(surface.amax(dim=1), surface.amin(dim=1))
    low, high = keypoints, keypoints
    if mask is not None:
        low = keypoints.masked_fill(~mask[..., None], float("inf"))
        high = keypoints.masked_fill(~mask[..., None], -float("inf"))
    spanned = distance_between(high.amax(dim=1), low.amin(dim=1))
    share = (1 - (whole - spanned).abs() / whole).clamp_min(0)
    return masked_mean(share, None if mask is None else mask.any(dim=1))


def inclusivity(
    keypoints: Float[Tensor, "item keypoint dim"],
    surface: Float[Tensor, "item point dim"],
    threshold: float = 0.05,
    mask: Bool[Tensor, "item keypoint"] | None = None,
) -> Float[Tensor, ""]:
    """Compute SC3K's inclusivity: share of the keypoints that are on the shape, not beside it or inside.

    It is the mean over items of the share of the item's known keypoints k with min_p |k − p| < `threshold` over the
    points p of the surface (Zohaib & Del Bue 2023; github IIT-PAVIS/SC3K, metrics.py, `inclusivity`, in percent; its
    test.py uses 0.05 for shapes of unit size). `on_object_rate` is the same in the views. Items without a known
    keypoint are left out; surfaces with fewer points repeat one. Raises ValueError when no keypoint is known.
    """
    distance = nearest_distance(keypoints, surface)
    return mean_of_means((distance < threshold).to(distance.dtype), mask)
