"""KeypointNet's benchmark: IoU, PCK and average precision of distances along the surface (You et al. 2020).

Source: github qq456cvb/KeypointNet, benchmark_scripts/metrics.py. There the surface is a point cloud, whose distances
are those of a graph of neighbours, and the unit is the diagonal of the model's box, as ShapeNet's models have it. Here
the distances are given, in any unit, such as those of :func:`keyorbit.geometry.geodesics.surface_distances`. `mask`
marks the known landmarks, `keypoint_mask` the keypoints that count. All raise ValueError when no landmark is known.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.evaluation.metrics.averages import mean_of_means
from keyorbit.evaluation.metrics.iou import pooled_iou


def keypointnet_iou(
    distance: Float[Tensor, "item keypoint landmark"],
    threshold: float = 0.1,
    mask: Bool[Tensor, "item landmark"] | None = None,
    keypoint_mask: Bool[Tensor, "item keypoint"] | None = None,
) -> Float[Tensor, ""]:
    """Compute the IoU of keypoints and landmarks as sets: (L − FN) / (L + FP) over all items together.

    FN are the landmarks with no keypoint within `threshold` (included), FP the keypoints with no landmark within it.
    `geodesic_iou` is the same from points of a sampled surface.
    """
    return pooled_iou(distance, threshold, mask, keypoint_mask)


def keypointnet_pck(
    distance: Float[Tensor, "item landmark"], threshold: float = 0.1, mask: Bool[Tensor, "item landmark"] | None = None
) -> Float[Tensor, ""]:
    """Compute the PCK: mean over items of the share of landmarks that are predicted nearer than `threshold` (excluded).

    `distance` is that of each landmark from its prediction.
    """
    return mean_of_means((distance < threshold).to(distance.dtype), mask)


def keypointnet_map(
    distance: Float[Tensor, "item keypoint landmark"],
    confidence: Float[Tensor, "item keypoint"],
    threshold: float = 0.1,
    mask: Bool[Tensor, "item landmark"] | None = None,
    keypoint_mask: Bool[Tensor, "item keypoint"] | None = None,
) -> Float[Tensor, ""]:
    """Compute the average precision of keypoints as detections of any landmark; items are of one class.

    Keypoints of all items are gone through by falling confidence. One is right if the landmark nearest to it is nearer
    than `threshold` (excluded) and no keypoint before it had that landmark; else it is wrong. The area below the
    envelope of precision over recall is that of PASCAL VOC 2010. The mean over classes is KeypointNet's mAP.
    """
    known = torch.ones_like(distance[:, 0], dtype=torch.bool) if mask is None else mask
    counted = torch.ones_like(distance[:, :, 0], dtype=torch.bool) if keypoint_mask is None else keypoint_mask
    if not bool(known.any()):
        raise ValueError("the mask leaves nothing to average: at least one landmark must be known")
    least, nearest = distance.masked_fill(~known[:, None], torch.inf).min(dim=2)
    taken, right = set[tuple[int, int]](), list[bool]()
    for flat in confidence.masked_fill(~counted, -torch.inf).flatten().argsort(descending=True, stable=True).tolist():
        item, keypoint = divmod(flat, distance.shape[1])
        if not bool(counted[item, keypoint]):
            break
        one = (item, int(nearest[item, keypoint]))
        right.append(bool(least[item, keypoint] < threshold) and one not in taken)
        taken |= {one} if right[-1] else set()
    hits = torch.tensor(right).to(distance)
    precision = hits.cumsum(0) / torch.arange(1, len(right) + 1).to(distance)
    envelope = precision.flip(0).cummax(0).values.flip(0) if right else precision
    return (envelope * hits).sum() / known.sum()
