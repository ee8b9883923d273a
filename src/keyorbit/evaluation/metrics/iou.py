"""Three metrics called IoU, of keypoints and landmarks as sets: none considers which keypoint is which landmark.

`geodesic_iou` uses distances along the surface, `snapped_iou` straight distances from the nearest points of the
surface. Both let one keypoint match many landmarks, and count over all items together. `hungarian_iou` uses straight
distances from the keypoints themselves, pairs one to one, and averages over items. `mask` marks the known landmarks,
`keypoint_mask` the keypoints that count. Lengths are in the unit of the points.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from torch import Tensor

from keyorbit.evaluation.metrics.averages import all_distances


def geodesic_iou(
    keypoints: Float[Tensor, "item keypoint 3"],
    surface: Float[Tensor, "item point 3"],
    geodesic: Float[Tensor, "item landmark point"],
    threshold: float = 0.1,
    mask: Bool[Tensor, "item landmark"] | None = None,
    keypoint_mask: Bool[Tensor, "item keypoint"] | None = None,
) -> Float[Tensor, ""]:
    """Compute KeypointNet's IoU: keypoints at points of the surface, distances along the surface.

    It is (L − FN) / (L + FP) over all items together. L is the number of landmarks, FN of those with no keypoint within
    `threshold` (included), and FP of the keypoints with no landmark within it. Every keypoint is replaced by the
    nearest point of `surface` (You et al. 2020; github qq456cvb/KeypointNet, tasks/saliency/evaluate_iou.py, which
    starts from point numbers). `geodesic` are the distances from each landmark to each point, along a mesh or a
    neighbour graph, infinite where they are not connected. Surfaces with fewer points repeat one.

    `snapped_iou` has straight distances instead, `hungarian_iou` straight ones and pairs. Raises ValueError when no
    landmark is known.
    """
    nearest = _nearest(keypoints, surface)
    distance = geodesic.gather(2, nearest[:, None].expand(-1, geodesic.shape[1], -1)).mT
    return pooled_iou(distance, threshold, mask, keypoint_mask)


def snapped_iou(
    keypoints: Float[Tensor, "item keypoint 3"],
    surface: Float[Tensor, "item point 3"],
    landmarks: Float[Tensor, "item landmark 3"],
    threshold: float = 0.1,
    mask: Bool[Tensor, "item landmark"] | None = None,
    keypoint_mask: Bool[Tensor, "item keypoint"] | None = None,
) -> Float[Tensor, ""]:
    """Compute Skeleton Merger's IoU: keypoints at points of the surface, straight distances.

    It is `geodesic_iou`'s (L − FN) / (L + FP) with the Euclidean distances between the landmarks and the point of
    `surface` nearest to each keypoint (Shi et al. 2021; github eliphatfs/SkeletonMerger, eval_keypointnet.py, `mIoU`).
    It is never less than the geodesic one, and more across a gap. `hungarian_iou` does not move keypoints and lets a
    keypoint match only once. Raises ValueError when no landmark is known.
    """
    nearest = _nearest(keypoints, surface)
    snapped = surface.gather(1, nearest[..., None].expand(-1, -1, 3))
    return pooled_iou(all_distances(snapped, landmarks), threshold, mask, keypoint_mask)


def hungarian_iou(
    keypoints: Float[Tensor, "item keypoint dim"],
    landmarks: Float[Tensor, "item landmark dim"],
    threshold: float = 0.1,
    mask: Bool[Tensor, "item landmark"] | None = None,
    keypoint_mask: Bool[Tensor, "item keypoint"] | None = None,
) -> Float[Tensor, ""]:
    """Compute KeypointDETR's IoU: keypoints and landmarks paired one to one, straight distances.

    It is the mean over items of TP / (L + K − TP). Of the pairs with the least total distance, TP are those within
    `threshold` (included); L and K are the numbers of known landmarks and keypoints (Jin et al. 2024; github
    bibi547/KeypointDETR, utils/metrics.py, `hungary_iou`, whose limit is threshold + 0.001, excluded). Items without a
    known landmark are left out. The pairing does not consider the threshold: a far landmark can take a near one's
    keypoint.

    `geodesic_iou` and `snapped_iou` do not pair: a keypoint near two landmarks matches both there, and one here. Raises
    ValueError when no landmark is known.
    """
    known, counted = _all_true(landmarks, mask), _all_true(keypoints, keypoint_mask)
    scores = []
    for item, distance in enumerate(all_distances(keypoints, landmarks)):
        if not bool(known[item].any()):
            continue
        between = distance[counted[item]][:, known[item]]
        hits = int((between[linear_sum_assignment(between.cpu())] <= threshold).sum())
        scores.append(hits / (sum(between.shape) - hits))
    _require(len(scores) > 0)
    return keypoints.new_tensor(scores).mean()


def pooled_iou(distance: Tensor, threshold: float, mask: Tensor | None, keypoint_mask: Tensor | None) -> Tensor:
    """Compute (L − FN) / (L + FP) from distances; see :func:`geodesic_iou`."""
    known, counted = _all_true(distance.mT, mask), _all_true(distance, keypoint_mask)
    near = (distance <= threshold) & known[:, None] & counted[..., None]
    _require(bool(known.any()))
    false = (counted & ~near.any(dim=2)).sum()
    return (near.any(dim=1).sum() / (known.sum() + false)).to(distance.dtype)


def _nearest(keypoints: Tensor, surface: Tensor) -> Tensor:
    return all_distances(keypoints, surface).argmin(dim=2)


def _all_true(points: Tensor, mask: Tensor | None) -> Tensor:
    return torch.ones_like(points[..., 0], dtype=torch.bool) if mask is None else mask


def _require(known: bool) -> None:
    if not known:
        raise ValueError("the mask leaves nothing to average: at least one landmark must be known")


def geodesic_distances(
    landmarks: Float[Tensor, "landmark 3"], surface: Float[Tensor, "point 3"], neighbours: int = 8
) -> Float[Tensor, "landmark point"]:
    """Compute distances from each landmark to every point of the surface, infinite if not connected.

    Every point is connected to its nearest ``neighbours``. A landmark starts at its nearest point, and the distance to
    it is added (as in Isomap's graph; Tenenbaum et al. 2000). A path through the graph is a little longer than one on
    the surface. It is the input of `geodesic_iou`.
    """
    points, wanted = surface.cpu().double().numpy(), landmarks.cpu().double().numpy()
    tree = cKDTree(points)
    length, other = tree.query(points, k=min(neighbours + 1, len(points)))
    start = np.repeat(np.arange(len(points)), length.shape[1])
    graph = coo_matrix((length.ravel(), (start, other.ravel())), shape=(len(points), len(points)))
    offset, first = tree.query(wanted)
    ways = dijkstra(graph.tocsr(), directed=False, indices=first)
    return torch.from_numpy(ways + offset[:, None]).to(landmarks)
