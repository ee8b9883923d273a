"""Distances along a surface that is known by points only: shortest ways through a graph of near neighbours."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from torch import Tensor


def geodesic_distances(
    landmarks: Float[Tensor, "landmark 3"], surface: Float[Tensor, "point 3"], neighbours: int = 8
) -> Float[Tensor, "landmark point"]:
    """From each landmark to every point of the surface, infinite where there is no way; for `geodesic_iou`.

    Every point is joined to its nearest ``neighbours`` and each landmark starts at its nearest point, the distance to
    that counted in (as Isomap's graph; Tenenbaum et al. 2000). A way through the graph is a little longer than one on
    the surface.
    """
    points, wanted = surface.double().cpu().numpy(), landmarks.double().cpu().numpy()
    tree = cKDTree(points)
    length, other = tree.query(points, k=min(neighbours + 1, len(points)))
    start = np.repeat(np.arange(len(points)), length.shape[1])
    graph = coo_matrix((length.ravel(), (start, other.ravel())), shape=(len(points), len(points)))
    offset, first = tree.query(wanted)
    ways = dijkstra(graph.tocsr(), directed=False, indices=first)
    return torch.from_numpy(ways + offset[:, None]).to(landmarks)
