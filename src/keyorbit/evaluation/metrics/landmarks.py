"""Predict landmarks from keypoints that were found without them."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.evaluation.metrics.averages import distance_between, item_means, known_or_zero
from keyorbit.evaluation.metrics.points import point_error

# The fit that finds misfits. It is stiff, or it would bend itself to them; any ridge of 0.1 … 0.3 finds the same.
_STIFF, _ROUNDS = 0.3, 20
# A misfit is missed by more than so many times the median distance.
_MISSED = 3.0
# Of fewer items nobody can say which one is the misfit.
_FEWEST = 4


def fit_landmark_weights(
    keypoints: Float[Tensor, "item keypoint dim"],
    landmarks: Float[Tensor, "item landmark dim"],
    mask: Bool[Tensor, "item landmark"] | None = None,
    ridge: float = 1e-3,
) -> Float[Tensor, "landmark keypoint"]:
    """Fit weights, summing to 1, with which the keypoints' weighted mean comes nearest to each landmark.

    An affine combination rotates, moves and scales with the object. The solution is closed form, in any dimension.

    Args:
        keypoints: of every item.
        landmarks: of every item.
        mask: True for known landmarks. Default None: all.
        ridge: pulls towards equal weights 1/K, relative to the keypoints' own spread (no unit). Default 1e-3. Keypoints
            without information then predict their mean, as does a landmark that is never known.
    """
    known = torch.ones_like(landmarks[..., 0]) if mask is None else mask.to(landmarks.dtype)
    mean = keypoints.mean(dim=1, keepdim=True)
    offsets, wanted = keypoints - mean, known_or_zero(landmarks - mean, mask)
    # An item's offsets sum to 0, so the changes of a landmark's weights do too: they keep the sum 1.
    normal = torch.einsum("il,ikd,ijd->lkj", known, offsets, offsets)
    right = torch.einsum("il,ikd,ild->lk", known, offsets, wanted)
    count = keypoints.shape[1]
    diagonal = normal.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    floor = torch.finfo(keypoints.dtype).tiny
    eye = torch.eye(count, dtype=keypoints.dtype, device=keypoints.device)
    # Equal changes of all weights do not affect the fit. That direction is filled in, so that rounding stays small.
    filled = normal + diagonal / count
    change: Tensor = torch.linalg.solve(filled + (ridge * diagonal).clamp_min(floor) * eye, right[..., None])
    return 1 / count + change[..., 0]


def apply_landmark_weights(
    weights: Float[Tensor, "landmark keypoint"], keypoints: Float[Tensor, "*batch keypoint dim"]
) -> Float[Tensor, "*batch landmark dim"]:
    """Compute landmarks as weighted means of keypoints."""
    return torch.einsum("lk,...kd->...ld", weights, keypoints)


def without_misfits(
    fit: Callable[[Tensor, Tensor, Tensor, float], Tensor],
    apply: Callable[[Tensor, Tensor], Tensor],
    keypoints: Float[Tensor, "item keypoint dim"],
    landmarks: Float[Tensor, "item landmark dim"],
    mask: Bool[Tensor, "item landmark"] | None = None,
) -> Bool[Tensor, " item"]:
    """Compute which items agree with one another, so that a fit of these is not bent by the others.

    One wrongly turned object among 24 turns the least-squares weights of all. Here a stiff fit (ridge 0.3) of the half
    of the items that the fit before misses least is repeated until that half stays (concentration steps of least
    trimmed squares, Rousseeuw & Van Driessen 2006); then that of all items that it misses by no more than three times
    the median. What an item is missed by is the mean distance of its known landmarks from those predicted. Only the
    residuals decide; which items are wrong is not asked.

    Args:
        fit: such as `fit_landmark_weights`, called as ``fit(keypoints, landmarks, mask, ridge)``.
        apply: computes landmarks from what ``fit`` returns and keypoints.
        keypoints: of every item.
        landmarks: of every item.
        mask: True for known landmarks. Default None: all.

    Returns:
        False for misfits. All are True where fewer than four items have a known landmark.
    """
    known = torch.ones_like(landmarks[..., 0], dtype=torch.bool) if mask is None else mask
    told = known.any(dim=1)
    kept = told
    if int(told.sum()) < _FEWEST:
        return torch.ones_like(told)
    for times in (1.0, _MISSED):
        for _ in range(_ROUNDS):
            predicted = apply(fit(keypoints, landmarks, known & kept[:, None], _STIFF), keypoints)
            missed = item_means(distance_between(predicted, landmarks), known)
            before, kept = kept, told & (missed <= times * missed[told].median())
            if torch.equal(before, kept):
                break
    return kept | ~told


def landmark_regression_3d(
    train_keypoints: Float[Tensor, "train keypoint dim"],
    train_landmarks: Float[Tensor, "train landmark dim"],
    test_keypoints: Float[Tensor, "test keypoint dim"],
    test_landmarks: Float[Tensor, "test landmark dim"],
    train_mask: Bool[Tensor, "train landmark"] | None = None,
    test_mask: Bool[Tensor, "test landmark"] | None = None,
    ridge: float = 1e-3,
) -> Float[Tensor, ""]:
    """Compute the mean distance on the test items of landmarks predicted with weights fitted on the train items.

    See `fit_landmark_weights`: the prediction rotates with the object, as a regression on coordinates would not. The
    last axis may also be 2. The unit is that of the points. Raises ValueError when `test_mask` is empty.
    """
    weights = fit_landmark_weights(train_keypoints, train_landmarks, train_mask, ridge)
    return point_error(apply_landmark_weights(weights, test_keypoints), test_landmarks, test_mask)


def fit_landmark_map(
    keypoints: Float[Tensor, "item keypoint 2"],
    landmarks: Float[Tensor, "item landmark 2"],
    mask: Bool[Tensor, "item landmark"] | None = None,
    ridge: float | None = 1e-6,
) -> Float[Tensor, "landmark keypoint_coordinate 2"]:
    """Fit the literature's regressor: a linear map without bias from all 2K keypoint coordinates to each landmark.

    It is the least-squares solution of (landmark − ½) on (keypoints − ½), that is, about the picture's centre. Each
    landmark is fitted on the pictures where it is known (Thewlis et al. 2017; so StableKeypoints, Hedlin et al. 2024:
    github ubc-vision/StableKeypoints, keypoint_regressor.py). xy is in sides of the picture. `ridge` is relative and
    only prevents singularity; None is the original's pseudo-inverse, which wants float64.
    """
    inputs = (keypoints - 0.5).flatten(1)
    known = torch.ones_like(landmarks[..., 0]) if mask is None else mask.to(inputs.dtype)
    normal = torch.einsum("il,ia,ib->lab", known, inputs, inputs)
    right = torch.einsum("il,ia,ild->lad", known, inputs, known_or_zero(landmarks - 0.5, mask))
    if ridge is None:
        exact: Tensor = torch.linalg.pinv(normal, hermitian=True) @ right
        return exact
    diagonal = normal.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    floor = torch.finfo(inputs.dtype).tiny
    eye = torch.eye(inputs.shape[1], dtype=inputs.dtype, device=inputs.device)
    linear: Tensor = torch.linalg.solve(normal + (ridge * diagonal).clamp_min(floor) * eye, right)
    return linear


def apply_landmark_map(
    linear: Float[Tensor, "landmark keypoint_coordinate 2"], keypoints: Float[Tensor, "item keypoint 2"]
) -> Float[Tensor, "item landmark 2"]:
    """Compute landmarks from keypoints by the map of `fit_landmark_map`, in sides of the picture."""
    return torch.einsum("lad,ia->ild", linear, (keypoints - 0.5).flatten(1)) + 0.5


def landmark_regression_2d(
    train_keypoints: Float[Tensor, "train keypoint 2"],
    train_landmarks: Float[Tensor, "train landmark 2"],
    test_keypoints: Float[Tensor, "test keypoint 2"],
    test_landmarks: Float[Tensor, "test landmark 2"],
    train_mask: Bool[Tensor, "train landmark"] | None = None,
    test_mask: Bool[Tensor, "test landmark"] | None = None,
    ridge: float = 1e-6,
) -> Float[Tensor, ""]:
    """Compute the mean distance on the test pictures of landmarks predicted by the literature's linear regressor.

    See `fit_landmark_map`, which is fitted on the train pictures. Landmarks outside the mask do not count. The unit is
    sides of the picture. Raises ValueError when `test_mask` is empty.
    """
    linear = fit_landmark_map(train_keypoints, train_landmarks, train_mask, ridge)
    return point_error(apply_landmark_map(linear, test_keypoints), test_landmarks, test_mask)
