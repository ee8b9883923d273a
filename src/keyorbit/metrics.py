"""Numbers to judge keypoints by. Names that the literature uses twice are told apart in the docstrings.

Lengths are in the unit of the points given: sides of the view for xy, world units for 3D.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.cameras import Cameras
from keyorbit.triangulation import reprojection_error


def fit_landmark_weights(
    keypoints: Float[Tensor, "item keypoint dim"],
    landmarks: Float[Tensor, "item landmark dim"],
    mask: Bool[Tensor, "item landmark"] | None = None,
    ridge: float = 1e-3,
) -> Float[Tensor, "landmark keypoint"]:
    """Weights, summing to 1, with which the keypoints' weighted mean comes nearest to each landmark.

    An affine combination turns, moves and scales with the object. `mask` says which landmarks are known.
    `ridge` (relative to the keypoints' own spread, so without unit) pulls towards equal weights 1/K:
    keypoints that say nothing answer their mean, as does a landmark never seen. Closed form, any dimension.
    """
    known = torch.ones_like(landmarks[..., 0]) if mask is None else mask.to(landmarks.dtype)
    mean = keypoints.mean(dim=1, keepdim=True)
    offsets, wanted = keypoints - mean, landmarks - mean
    # An item's offsets sum to 0, so the changes of a landmark's weights do too: they keep the sum 1.
    normal = torch.einsum("il,ikd,ijd->lkj", known, offsets, offsets)
    right = torch.einsum("il,ikd,ild->lk", known, offsets, wanted)
    count = keypoints.shape[1]
    diagonal = normal.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    floor = torch.finfo(keypoints.dtype).tiny
    eye = torch.eye(count, dtype=keypoints.dtype, device=keypoints.device)
    # Equal changes of all weights have no say in the fit: filled in, lest rounding be blown up along them.
    filled = normal + diagonal / count
    change: Tensor = torch.linalg.solve(filled + (ridge * diagonal).clamp_min(floor) * eye, right[..., None])
    return 1 / count + change[..., 0]


def apply_landmark_weights(
    weights: Float[Tensor, "landmark keypoint"], keypoints: Float[Tensor, "*batch keypoint dim"]
) -> Float[Tensor, "*batch landmark dim"]:
    """Landmarks as weighted means of keypoints."""
    return torch.einsum("lk,...kd->...ld", weights, keypoints)


def landmark_regression_3d(
    train_keypoints: Float[Tensor, "train keypoint dim"],
    train_landmarks: Float[Tensor, "train landmark dim"],
    test_keypoints: Float[Tensor, "test keypoint dim"],
    test_landmarks: Float[Tensor, "test landmark dim"],
    train_mask: Bool[Tensor, "train landmark"] | None = None,
    test_mask: Bool[Tensor, "test landmark"] | None = None,
    ridge: float = 1e-3,
    size: float = 1.0,
) -> Float[Tensor, ""]:
    """Mean distance / `size` on the test items, of landmarks predicted with weights fitted on others.

    See `fit_landmark_weights`: it turns with the object, as a regression on coordinates would not. The last
    axis may also be 2. Raises ValueError when `test_mask` is empty.
    """
    weights = fit_landmark_weights(train_keypoints, train_landmarks, train_mask, ridge)
    return point_error(apply_landmark_weights(weights, test_keypoints), test_landmarks, test_mask, size)


def landmark_regression_2d(
    train_keypoints: Float[Tensor, "train keypoint 2"],
    train_landmarks: Float[Tensor, "train landmark 2"],
    test_keypoints: Float[Tensor, "test keypoint 2"],
    test_landmarks: Float[Tensor, "test landmark 2"],
    train_mask: Bool[Tensor, "train landmark"] | None = None,
    test_mask: Bool[Tensor, "test landmark"] | None = None,
    ridge: float = 1e-6,
    size: float = 1.0,
) -> Float[Tensor, ""]:
    """Mean distance / `size` on the test pictures, by the literature's linear regressor.

    One linear map without bias from all 2K keypoint coordinates, about the picture's centre, to all 2L
    landmark coordinates, fitted on the train pictures (Thewlis et al. 2017; so StableKeypoints, Hedlin et
    al. 2024). Landmarks outside the mask take no part. `ridge` is relative and only guards against
    singularity.
    Raises ValueError when `test_mask` is empty.
    """
    inputs = (train_keypoints - 0.5).flatten(1)
    known = torch.ones_like(train_landmarks[..., 0]) if train_mask is None else train_mask.to(inputs.dtype)
    normal = torch.einsum("il,ia,ib->lab", known, inputs, inputs)
    right = torch.einsum("il,ia,ild->lad", known, inputs, train_landmarks - 0.5)
    diagonal = normal.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    floor = torch.finfo(inputs.dtype).tiny
    eye = torch.eye(inputs.shape[1], dtype=inputs.dtype, device=inputs.device)
    linear: Tensor = torch.linalg.solve(normal + (ridge * diagonal).clamp_min(floor) * eye, right)
    predicted = torch.einsum("lad,ia->ild", linear, (test_keypoints - 0.5).flatten(1)) + 0.5
    return point_error(predicted, test_landmarks, test_mask, size)


def point_error(
    predicted: Float[Tensor, "*batch landmark dim"],
    truth: Float[Tensor, "*batch landmark dim"],
    mask: Bool[Tensor, "*batch landmark"] | None = None,
    size: float = 1.0,
) -> Float[Tensor, ""]:
    """Mean distance / `size` over the points in the mask. ValueError when the mask is empty."""
    return _masked_mean(_distance(predicted, truth), mask) / size


def pck(
    predicted: Float[Tensor, "*batch landmark dim"],
    truth: Float[Tensor, "*batch landmark dim"],
    threshold: float,
    mask: Bool[Tensor, "*batch landmark"] | None = None,
) -> Float[Tensor, ""]:
    """Share of correct keypoints: those within `threshold` (unit of the points), of the points in the mask.

    Yang & Ramanan 2013. Raises ValueError when the mask is empty.
    """
    distance = _distance(predicted, truth)
    return _masked_mean((distance <= threshold).to(distance.dtype), mask)


def mpjpe(
    predicted: Float[Tensor, "*batch keypoint 3"], truth: Float[Tensor, "*batch keypoint 3"]
) -> Float[Tensor, ""]:
    """Mean distance of corresponding 3D points, without any alignment (world units)."""
    return _distance(predicted, truth).mean()


def n_mpjpe(
    predicted: Float[Tensor, "*batch keypoint 3"], truth: Float[Tensor, "*batch keypoint 3"]
) -> Float[Tensor, ""]:
    """As `mpjpe` after the best scale about the origin, per batch element (Rhodin et al. 2018)."""
    own = predicted.square().sum(dim=(-2, -1), keepdim=True)
    scale = (predicted * truth).sum(dim=(-2, -1), keepdim=True) / own.clamp_min(torch.finfo(own.dtype).tiny)
    return mpjpe(scale * predicted, truth)


def procrustes_align(
    predicted: Float[Tensor, "*batch keypoint 3"], truth: Float[Tensor, "*batch keypoint 3"]
) -> Float[Tensor, "*batch keypoint 3"]:
    """The predicted points, turned, scaled and shifted (not mirrored) to lie nearest to the truth.

    Least squares, per batch element (Umeyama 1991).
    """
    mean_p, mean_t = predicted.mean(-2, keepdim=True), truth.mean(-2, keepdim=True)
    centred, target = predicted - mean_p, truth - mean_t
    u, s, vh = torch.linalg.svd(target.transpose(-1, -2) @ centred)
    # A negative determinant would be a mirror image: the weakest axis is turned round.
    sign = torch.ones_like(s)
    sign = torch.cat([sign[..., :2], torch.linalg.det(u @ vh).sign()[..., None]], dim=-1)
    rotation = (u * sign[..., None, :]) @ vh
    own = centred.square().sum(dim=(-2, -1)).clamp_min(torch.finfo(s.dtype).tiny)
    scale = ((s * sign).sum(-1) / own)[..., None, None]
    aligned: Tensor = scale * (centred @ rotation.transpose(-1, -2)) + mean_t
    return aligned


def pa_mpjpe(
    predicted: Float[Tensor, "*batch keypoint 3"], truth: Float[Tensor, "*batch keypoint 3"]
) -> Float[Tensor, ""]:
    """As `mpjpe` after `procrustes_align`."""
    return mpjpe(procrustes_align(predicted, truth), truth)


def dual_alignment_score(
    keypoints: Float[Tensor, "item keypoint dim"],
    landmarks: Float[Tensor, "item landmark dim"],
    mask: Bool[Tensor, "item landmark"] | None = None,
    references: int = 10,
) -> Float[Tensor, ""]:
    """DAS of Skeleton Merger (Shi et al. 2021): do keypoints mark the same landmark everywhere? In [0, 1].

    On a reference item r each keypoint k is labelled with its nearest landmark, label_r(k). On item i ≠ r:
    a = share of the landmarks l whose nearest keypoint k has label_r(k) = l;
    b = share of the keypoints k whose nearest landmark is label_r(k).
    The score is the mean of (a + b)/2 over i ≠ r, averaged over the first `references` items as r. Landmarks
    unknown (`mask`) on r or i take no part in a, nor keypoints whose label is unknown on i in b.
    It needs landmarks; SC3K (Zohaib & Del Bue 2023) calls a label-free score "DAS" that is something else.
    Raises ValueError for fewer than two items or when no pair of items shares a known landmark.
    """
    items = len(keypoints)
    if items < 2:
        raise ValueError("the dual alignment score compares items: give two or more")
    known = torch.ones_like(landmarks[..., 0], dtype=torch.bool) if mask is None else mask
    distance = torch.cdist(keypoints, landmarks, compute_mode="donot_use_mm_for_euclid_dist")
    nearest_landmark = distance.masked_fill(~known[:, None], torch.inf).argmin(dim=2)
    nearest_keypoint = distance.argmin(dim=1)
    labels = nearest_landmark[:references]
    refs = len(labels)
    carried = labels[:, nearest_keypoint]  # reference item landmark
    shared = known[:refs, None] & known[None]
    hit_a = (carried == torch.arange(landmarks.shape[1], device=carried.device)) & shared
    known_label = known[:, labels].transpose(0, 1) & known[:refs].any(-1)[:, None, None]
    hit_b = (labels[:, None] == nearest_landmark[None]) & known_label
    share_a = hit_a.sum(-1) / shared.sum(-1).clamp_min(1)
    share_b = hit_b.sum(-1) / known_label.sum(-1).clamp_min(1)
    others = ~torch.eye(items, dtype=torch.bool, device=carried.device)[:refs]
    return _masked_mean((share_a + share_b) / 2, others & shared.any(-1) & known_label.any(-1))


def coverage(
    keypoints: Float[Tensor, "item keypoint dim"],
    landmarks: Float[Tensor, "item landmark dim"],
    threshold: float,
    mask: Bool[Tensor, "item landmark"] | None = None,
) -> Float[Tensor, ""]:
    """Share of the known landmarks with some keypoint within `threshold` (unit of the points)."""
    distance = torch.cdist(keypoints, landmarks, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
    return _masked_mean((distance <= threshold).to(distance.dtype), mask)


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


def _distance(first: Tensor, second: Tensor) -> Tensor:
    distance: Tensor = torch.linalg.vector_norm(first - second, dim=-1)
    return distance


def _masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values.mean()
    if not bool(mask.any()):
        raise ValueError("the mask leaves nothing to average: at least one point must be known")
    return values[mask].mean()
