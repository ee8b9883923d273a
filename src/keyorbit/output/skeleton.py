"""Edges between keypoints that belong together: neighbours whose distance is the same on all objects."""

import torch
from jaxtyping import Bool, Float
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import minimum_spanning_tree
from torch import Tensor

from keyorbit.output.choices import Edge

# Weight of nearness against steadiness: it orders pairs that keep their distance equally well, as in a rigid part.
_NEARNESS = 0.02


def co_moving_skeleton(
    points: Float[Tensor, "object keypoint dim"], seen: Bool[Tensor, "object keypoint"] | None = None
) -> list[Edge]:
    """Compute the minimum spanning tree over how much the distance of two keypoints varies, as edges (smaller, larger).

    The cost of an edge is the coefficient of variation (standard deviation over mean) of its length over the objects
    that have both ends, plus 0.02 times its mean length as a share of the longest one. Of a single object, all
    variation is 0 and the tree is that of nearest neighbours. Of several objects, an edge needs two objects that have
    both ends: keypoints without such an edge are left out, and groups without a common edge stay apart.

    Args:
        points: in world units, or of one view.
        seen: which of them are used. Default: all.
    """
    objects, count = points.shape[:2]
    points = points.cpu()
    seen = torch.ones(objects, count, dtype=torch.bool) if seen is None else seen.cpu()
    both = (seen[:, :, None] & seen[:, None, :]).double()
    # Not a product: it would make a keypoint that lies nowhere (NaN) spoil the others.
    places = points.double().masked_fill(~seen[..., None], 0.0)
    length = (places[:, :, None] - places[:, None, :]).norm(dim=-1)
    together = both.sum(0)
    mean = (both * length).sum(0) / together.clamp_min(1)
    deviation = ((both * (length - mean).square()).sum(0) / together.clamp_min(1)).sqrt()
    tiny = torch.finfo(mean.dtype).tiny
    cost = deviation / mean.clamp_min(tiny) + _NEARNESS * mean / mean.max().clamp_min(tiny)
    return _spanning_forest(cost.masked_fill(together < min(2, objects), torch.inf))


def _spanning_forest(cost: Float[Tensor, "keypoint keypoint"]) -> list[Edge]:
    """Compute the minimum spanning tree of each group. Edges of infinite cost join nothing; ties go to the first."""
    rows, cols = torch.triu_indices(len(cost), len(cost), 1)
    values = cost[rows, cols]
    # Ranks instead of costs: they give the same tree, have no ties, and no 0, which means no edge to scipy.
    rank = torch.empty(len(values)).scatter(0, values.argsort(stable=True), torch.arange(1.0, len(values) + 1))
    some = values.isfinite()
    graph = coo_matrix((rank[some].numpy(), (rows[some].numpy(), cols[some].numpy())), shape=(len(cost), len(cost)))
    tree = minimum_spanning_tree(graph).tocoo()
    return sorted(zip(tree.row.tolist(), tree.col.tolist(), strict=True))
