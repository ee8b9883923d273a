"""The five metrics with which StableKeypoints scores landmarks, one for each of its data sets.

Source of all: Hedlin et al. 2024; github ubc-vision/StableKeypoints, unsupervised_keypoints/eval.py, the values of
`evaluation_method`. Landmarks are first predicted from keypoints with `fit_landmark_map` (Human3.6M:
`fit_oriented_landmark_map`). xy is in sides of the picture. The original squeezes pictures to squares, so that for the
published numbers width and height both count as 1. Below, p and t are the predicted and true positions of a landmark,
and every metric is a mean over pictures. Landmarks outside `mask` do not count, and pictures without any are left out.
All raise ValueError when the mask is empty.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.evaluation.metrics.averages import distance_between, item_means, masked_mean, mean_of_means
from keyorbit.evaluation.metrics.landmarks import apply_landmark_map, fit_landmark_map
from keyorbit.evaluation.metrics.points import normalised_mean_error

# Right and left of Human3.6M's 32 joints: legs, then arms from the shoulder to the fingers.
HUMAN36M_SWAPS = (
    *((1, 6), (2, 7), (3, 8), (4, 9), (5, 10)),
    *((16, 24), (17, 25), (18, 26), (19, 27), (20, 28), (21, 29), (22, 30), (23, 31)),
)
# What each joint is exchanged for in the original, with which its number was computed: its table has (21, 28) for
# (21, 29) and no (16, 24). That is no exchange: two joints read 28, and none reads 20.
_READS = dict(pair for a, b in HUMAN36M_SWAPS if (a, b) not in ((16, 24), (21, 29)) for pair in ((a, b), (b, a)))
HUMAN36M_PUBLISHED = tuple({**_READS, 21: 28, 28: 21}.get(joint, joint) for joint in range(32))


def inter_eye_error(
    predicted: Float[Tensor, "item landmark 2"],
    truth: Float[Tensor, "item landmark 2"],
    eyes: tuple[int, int] = (0, 1),
    mask: Bool[Tensor, "item landmark"] | None = None,
) -> Float[Tensor, ""]:
    """Compute CelebA's "inter_eye_distance": mean over landmarks of |p − t| / |t_left eye − t_right eye|.

    It is `normalised_mean_error` with the true distance of the eyes' centres, CelebA's landmarks 0 and 1. Pictures in
    which an eye is unknown are left out.
    """
    left, right = eyes
    size = distance_between(truth[:, left], truth[:, right])
    if mask is not None:
        mask = mask & (mask[:, left] & mask[:, right])[:, None]
    return normalised_mean_error(predicted, truth, size, mask)


def visible_error(
    predicted: Float[Tensor, "item landmark 2"],
    truth: Float[Tensor, "item landmark 2"],
    mask: Bool[Tensor, "item landmark"] | None = None,
) -> Float[Tensor, ""]:
    """Compute CUB's "visible": mean over the visible landmarks of |p − t|, in sides of the picture.

    Every picture has the same weight; in `point_error` every landmark has.
    """
    return mean_of_means(distance_between(predicted, truth), mask)


def mean_average_error(
    predicted: Float[Tensor, "item landmark 2"],
    truth: Float[Tensor, "item landmark 2"],
    mask: Bool[Tensor, "item landmark"] | None = None,
    size: float = 256.0,
) -> Float[Tensor, ""]:
    """Compute Taichi-HD's "mean_average_error": the SUM over the visible landmarks of size·|p − t|, in pixels.

    The name is the original's, and so is the sum: it grows with the number of landmarks. It is 0 for a picture without
    a visible landmark, which counts as any other.
    """
    distance = size * distance_between(predicted, truth)
    if mask is None:
        return distance.sum(dim=1).mean()
    return masked_mean(distance, mask) * mask.sum() / len(mask)


def pck_at_pixels(
    predicted: Float[Tensor, "item landmark 2"],
    truth: Float[Tensor, "item landmark 2"],
    mask: Bool[Tensor, "item landmark"] | None = None,
    pixels: float = 6.0,
    size: float = 256.0,
) -> Float[Tensor, ""]:
    """Compute DeepFashion's "pck": share of the landmarks with size·|p − t| < `pixels`.

    The limit is a number of pixels and is excluded; in `pck_per_image` it is a share of the object's box and is
    included.
    """
    distance = size * distance_between(predicted, truth)
    return mean_of_means((distance < pixels).to(distance.dtype), mask)


def orientation_invariant_error(
    predicted: Float[Tensor, "item landmark 2"],
    truth: Float[Tensor, "item landmark 2"],
    swaps: Sequence[tuple[int, int]] = HUMAN36M_SWAPS,
    mask: Bool[Tensor, "item landmark"] | None = None,
    size: float = 128.0,
    order: Sequence[int] | None = None,
) -> Float[Tensor, ""]:
    """Compute Human3.6M's "orientation_invariant": the smaller of two mean distances, in pixels of a `size` picture.

    It is size · min(mean_l |p_l − t_l|, mean_l |p_σ(l) − t_l|), where σ exchanges the landmarks of each pair in
    `swaps`: left and right of a person seen from behind may be confused, but only all of them at once. `order` says in
    their place what each landmark is exchanged for, such as `HUMAN36M_PUBLISHED`. Raises ValueError also when `swaps`
    does not consist of pairs of different landmarks.
    """
    swapped = predicted[:, _permutation(swaps, predicted.shape[1]) if order is None else list(order)]
    both = torch.stack([item_means(distance_between(p, truth), mask) for p in (predicted, swapped)])
    return size * masked_mean(both.amin(dim=0), None if mask is None else mask.any(dim=1))


def fit_oriented_landmark_map(
    keypoints: Float[Tensor, "item keypoint 2"],
    landmarks: Float[Tensor, "item landmark 2"],
    swaps: Sequence[tuple[int, int]] = HUMAN36M_SWAPS,
    mask: Bool[Tensor, "item landmark"] | None = None,
    ridge: float | None = 1e-6,
    tolerated: int = 10,
    rounds: int = 100,
    order: Sequence[int] | None = None,
) -> Float[Tensor, "landmark keypoint_coordinate 2"]:
    """Fit `fit_landmark_map` for people whose keypoints cannot distinguish left and right: Human3.6M's fit.

    Fit; exchange left and right in the pictures whose mean distance is then smaller; and fit again. Stop when at most
    `tolerated` pictures change (10 in the original, keypoint_regressor.py), or after `rounds`, because the loop need
    not converge. `order` is as in `orientation_invariant_error`. Raises ValueError when `swaps` does not consist of
    pairs of different landmarks.
    """
    order = _permutation(swaps, landmarks.shape[1]) if order is None else list(order)
    known = torch.ones_like(landmarks[..., 0], dtype=torch.bool) if mask is None else mask
    for _ in range(rounds):
        linear = fit_landmark_map(keypoints, landmarks, known, ridge)
        predicted = apply_landmark_map(linear, keypoints)
        as_is = item_means(distance_between(predicted, landmarks), known)
        turned = item_means(distance_between(predicted, landmarks[:, order]), known[:, order])
        better = turned < as_is
        if int(better.sum()) <= tolerated:
            break
        landmarks = torch.where(better[:, None, None], landmarks[:, order], landmarks)
        known = torch.where(better[:, None], known[:, order], known)
    return linear


def _permutation(swaps: Sequence[tuple[int, int]], count: int) -> list[int]:
    members = [member for pair in swaps for member in pair]
    if len(set(members)) != len(members) or not all(0 <= member < count for member in members):
        raise ValueError(f"swaps must be pairs of different landmarks below {count}, each named once; given: {swaps}")
    order = list(range(count))
    for a, b in swaps:
        order[a], order[b] = b, a
    return order
