"""Metrics of whether a keypoint marks the same part on every object."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.evaluation.metrics.averages import all_distances, masked_mean, mean_of_means, nearest_distance


def dual_alignment_score(
    keypoints: Float[Tensor, "item keypoint dim"],
    landmarks: Float[Tensor, "item landmark dim"],
    mask: Bool[Tensor, "item landmark"] | None = None,
    references: int = 10,
) -> Float[Tensor, ""]:
    """Compute the DAS of Skeleton Merger (Shi et al. 2021): how often keypoints mark the same landmark. In [0, 1].

    On a reference item r each keypoint k is labelled with its nearest landmark, label_r(k). On item i ≠ r:
    a = share of the landmarks l whose nearest keypoint k has label_r(k) = l;
    b = share of the keypoints k whose nearest landmark is label_r(k).
    The score is the mean of (a + b)/2 over i ≠ r, averaged over the first `references` items as r. Landmarks unknown
    (`mask`) on r or i do not count in a, nor do keypoints whose label is unknown on i in b.

    It needs landmarks, and no common frame. What SC3K calls "DAS" is another metric: `label_free_correspondence`.
    Raises ValueError for fewer than two items or when no pair of items shares a known landmark.
    """
    items = len(keypoints)
    if items < 2:
        raise ValueError("the dual alignment score compares items: give two or more")
    known = torch.ones_like(landmarks[..., 0], dtype=torch.bool) if mask is None else mask
    distance = all_distances(keypoints, landmarks)
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
    return masked_mean((share_a + share_b) / 2, others & shared.any(-1) & known_label.any(-1))


def label_free_correspondence(
    keypoints: Float[Tensor, "item keypoint dim"],
    mask: Bool[Tensor, "item keypoint"] | None = None,
    reference: int = 0,
) -> Float[Tensor, ""]:
    """Compute SC3K's score without labels: whether keypoint k of every item is the nearest one to the reference's k.

    It is the share of the pairs (item i ≠ r, keypoint k) with argmin_j |x_rk − x_ij| = k, where r is the item
    `reference`, in [0, 1] (Zohaib & Del Bue 2023; github IIT-PAVIS/SC3K, metrics.py, `DAS_unsupervised`, in percent).
    All items must be in one frame: SC3K first rotates them back to their canonical pose. Keypoints unknown (`mask`) on
    r or i do not count, and those unknown on i are nobody's nearest.

    SC3K's paper calls it "DAS". Skeleton Merger's DAS, `dual_alignment_score`, uses landmarks: keypoints that all mark
    the same wrong position score low there, and 1 here. Raises ValueError for fewer than two items or when no item
    shares a known keypoint with the reference.
    """
    items, count = keypoints.shape[:2]
    if items < 2:
        raise ValueError("the label-free correspondence compares items: give two or more")
    known = torch.ones_like(keypoints[..., 0], dtype=torch.bool) if mask is None else mask
    others = torch.arange(items, device=keypoints.device) != reference % items
    own = keypoints[reference].expand(items, -1, -1)
    distance = all_distances(own, keypoints)
    nearest = distance.masked_fill(~known[:, None], torch.inf).argmin(dim=2)
    hit = (nearest == torch.arange(count, device=keypoints.device)).to(keypoints.dtype)
    return masked_mean(hit, known & known[reference] & others[:, None])


def repeatability(
    keypoints: Float[Tensor, "item keypoint 3"],
    moved_keypoints: Float[Tensor, "item moved_keypoint 3"],
    motion: Float[Tensor, "item 4 4"],
    threshold: float,
    mask: Bool[Tensor, "item keypoint"] | None = None,
    moved_mask: Bool[Tensor, "item moved_keypoint"] | None = None,
) -> Float[Tensor, ""]:
    """Compute the share of the moved object's keypoints that are where the object's keypoints moved to.

    For an item with the motion x ↦ Ax + b (`motion` = [A b; 0 1], rotation, shift and possibly scale) it is N_rep / N:
    the number of the moved object's keypoints q with min_p |q − (A·p + b)| < `threshold`, over their number; then the
    mean over items (relative repeatability, as in Li & Lee 2019, USIP). Any p may match q. Where equal indices must
    match, use `pck` of the moved p and q. Points outside the masks do not count: a q of an item without known p is not
    repeated, and an item without known q is left out. Raises ValueError when no q is known.
    """
    went = keypoints @ motion[:, :3, :3].mT + motion[:, None, :3, 3]
    distance = nearest_distance(moved_keypoints, went, mask)
    return mean_of_means((distance < threshold).to(distance.dtype), moved_mask)


def distinct_repeatability(
    keypoints: Float[Tensor, "item keypoint 3"],
    moved_keypoints: Float[Tensor, "item keypoint 3"],
    motion: Float[Tensor, "item 4 4"],
    threshold: float,
) -> Float[Tensor, ""]:
    """Compute the share of keypoints found again as themselves after a motion: near, and with no other nearer.

    With the motion x ↦ Ax + b as in `repeatability`, keypoint k of the moved object, q_k, counts if
    |q_k − (A·p_k + b)| ≤ `threshold` and no other keypoint's moved place A·p_j + b is nearer to q_k. In `repeatability`
    any keypoint answers for any other, and `pck` of q and the moved p is met by keypoints that all lie in one spot,
    since the object's middle is found again from everywhere; here these stand in one another's way. Ties go to the
    smaller index.
    """
    went = keypoints @ motion[:, :3, :3].mT + motion[:, None, :3, 3]
    distance = all_distances(moved_keypoints, went)
    own = distance.diagonal(dim1=1, dim2=2)
    nearest = distance.argmin(dim=2) == torch.arange(distance.shape[2], device=distance.device)
    return ((own <= threshold) & nearest).to(distance.dtype).mean()
