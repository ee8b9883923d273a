"""Whether a keypoint means the same place on every object."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.metrics.averages import masked_mean


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
    return masked_mean((share_a + share_b) / 2, others & shared.any(-1) & known_label.any(-1))
