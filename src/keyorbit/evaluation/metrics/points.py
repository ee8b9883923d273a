"""Metrics of how far predicted points are from the truth."""

from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.evaluation.metrics.averages import distance_between, masked_mean, mean_of_means


def point_error(
    predicted: Float[Tensor, "*batch landmark dim"],
    truth: Float[Tensor, "*batch landmark dim"],
    mask: Bool[Tensor, "*batch landmark"] | None = None,
    size: float = 1.0,
) -> Float[Tensor, ""]:
    """Compute the mean distance / `size` over the points in the mask. Raises ValueError when the mask is empty."""
    return masked_mean(distance_between(predicted, truth), mask) / size


def pck(
    predicted: Float[Tensor, "*batch landmark dim"],
    truth: Float[Tensor, "*batch landmark dim"],
    threshold: float,
    mask: Bool[Tensor, "*batch landmark"] | None = None,
) -> Float[Tensor, ""]:
    """Compute the share of correct keypoints: those within `threshold` (unit of the points), of those in the mask.

    Yang & Ramanan 2013. Raises ValueError when the mask is empty.
    """
    distance = distance_between(predicted, truth)
    return masked_mean((distance <= threshold).to(distance.dtype), mask)


def pck_per_image(
    predicted: Float[Tensor, "item landmark 2"],
    truth: Float[Tensor, "item landmark 2"],
    box_size: Float[Tensor, "item 2"],
    alpha: float = 0.1,
    mask: Bool[Tensor, "item landmark"] | None = None,
) -> Float[Tensor, ""]:
    """Compute PCK@α as in SPair-71k, averaged within each picture first: every picture has the same weight.

    It is the mean over pictures i of the share of i's known landmarks with distance ≤ α·max(width_i, height_i).
    `box_size` is the width and height of the object's box in the target picture, in the unit of the points (Min et al.
    2019; github Visual-AI/Semantic-Correspondence, utils/evaluator.py). Pictures without a known landmark are left out.
    The literature's PCK@α is often `pck_per_point`, which is another number. Raises ValueError when the mask is empty.
    """
    return mean_of_means(_within_box(predicted, truth, box_size, alpha), mask)


def pck_per_point(
    predicted: Float[Tensor, "item landmark 2"],
    truth: Float[Tensor, "item landmark 2"],
    box_size: Float[Tensor, "item 2"],
    alpha: float = 0.1,
    mask: Bool[Tensor, "item landmark"] | None = None,
) -> Float[Tensor, ""]:
    """Compute PCK@α as in SPair-71k, over all pictures together: every known landmark has the same weight.

    It is the share of all known landmarks with distance ≤ α·max(width, height) of their picture's box. `pck_per_image`
    averages within pictures first. Raises ValueError when the mask is empty.
    """
    return masked_mean(_within_box(predicted, truth, box_size, alpha), mask)


def normalised_mean_error(
    predicted: Float[Tensor, "item landmark dim"],
    truth: Float[Tensor, "item landmark dim"],
    size: Float[Tensor, " item"],
    mask: Bool[Tensor, "item landmark"] | None = None,
) -> Float[Tensor, ""]:
    """Compute the NME: mean over items of (mean distance over the item's known landmarks) / the item's `size`.

    `size`, in the unit of the points, is what the data set divides by: the distance between the eyes' outer corners
    (300-W, Sagonas et al. 2013), the box's diagonal or √(width·height). Items without a known landmark are left out.
    Raises ValueError when the mask is empty.
    """
    return mean_of_means(distance_between(predicted, truth) / size[:, None], mask)


def _within_box(predicted: Tensor, truth: Tensor, box_size: Tensor, alpha: float) -> Tensor:
    distance = distance_between(predicted, truth)
    return (distance <= alpha * box_size.amax(dim=-1, keepdim=True)).to(distance.dtype)
