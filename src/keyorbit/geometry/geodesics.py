"""Distances along the surface of a mesh, by shortest paths through points on its edges.

Paths go straight through faces from one point of an edge to another (Lanthier, Maheshwari & Sack 1997, "Approximating
weighted shortest paths on polyhedral surfaces"). They are never shorter than the shortest path on the surface, and a
little longer: see the tests for how much on a plane and a sphere.

Meshes that people draw are made of parts that touch or go through each other, without common vertices. So a path may
also cross from one part to another where both are near each other; straight, at its length.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from keyorbit.geometry.triangles import OnTriangles, nearest_on_triangles

# Shares of the diagonal of the mesh's box: vertices that are one, the longest edge, and the widest gap between parts.
_SAME, _EDGE, _GAP = 1e-6, 0.04, 0.02
# Numbers of parts that edges are cut in, and of faces up to which; above, paths are along whole edges.
_PARTS = {6: 12_000, 4: 60_000, 2: 400_000}
# Faces that a mesh of large ones may come to.
_MOST_FACES = 400_000
# Points of all parts between which gaps are looked for.
_MOST_BRIDGED = 40_000
# Lengths of 0 are no arcs to some versions of scipy.
_SHORTEST = 1e-12


def surface_distances(
    vertices: Float[ndarray, "vertex 3"],
    faces: Int[ndarray, "face 3"],
    starts: Float[ndarray, "start 3"],
    ends: Float[ndarray, "end 3"],
    limit: float = np.inf,
) -> Float[ndarray, "start end"]:
    """Compute the distances along a mesh between points on it; infinite beyond ``limit`` and where there is no way.

    Args:
        vertices: in any unit; those at one place count as one.
        faces: three vertices each, at least one face.
        starts: points on the mesh; others are moved to its nearest ones.
        ends: the same.
        limit: the longest distance of interest, in the mesh's unit; less takes less time. Default: none.
    """
    size = float(np.linalg.norm(np.ptp(vertices[faces].reshape(-1, 3), axis=0)))
    if size == 0:
        return np.zeros((len(starts), len(ends)))
    vertices, faces = _merged(vertices, faces, _SAME * size)
    vertices, faces = _refined(vertices, faces, _EDGE * size)
    part = _parts(vertices, faces)
    on = nearest_on_triangles(vertices[faces], np.concatenate([starts, ends]))
    # A way is no shorter than the straight one: what lies further off is on none.
    kept = _within(vertices[faces], on.places[: len(starts)], limit)
    kept[on.face] = True
    on, faces = replace(on, face=(np.cumsum(kept) - 1)[on.face]), faces[kept]
    net = _net(vertices, faces)
    bridges = _bridges(net, part, _GAP * size)
    arcs = np.concatenate([net.arcs, bridges, _ways_in(net, on)])
    places = np.concatenate([net.places, on.places])
    length = np.maximum(np.linalg.norm(places[arcs[:, 0]] - places[arcs[:, 1]], axis=1), _SHORTEST * size)
    graph = coo_matrix((length, (arcs[:, 0], arcs[:, 1])), shape=(len(places), len(places))).tocsr()
    first = len(net.places) + np.arange(len(starts))
    ways = dijkstra(graph, directed=False, indices=first, limit=limit)
    found: ndarray = ways[:, len(net.places) + len(starts) :]
    return found


@dataclass(frozen=True, eq=False)
class _Net:
    """Points on the edges of a mesh, and the straight ways between those of one face."""

    places: Float[ndarray, "node 3"]
    arcs: Int[ndarray, "arc 2"]
    around: Int[ndarray, "face corner_and_side_node"]  # the nodes on each face's border
    bridged: Int[ndarray, " chosen"]  # nodes that stand for their surroundings, and which vertex's part they are of
    vertex: Int[ndarray, " chosen"]


def _merged(vertices: ndarray, faces: ndarray, same: float) -> tuple[ndarray, ndarray]:
    """Return a mesh whose vertices at one place are one, without faces that are there twice or have no area."""
    _, first, number = np.unique(np.round(vertices / same), axis=0, return_index=True, return_inverse=True)
    faces = number.reshape(-1)[faces]
    kept = (faces != np.roll(faces, 1, axis=1)).all(1)
    # A mesh of nothing but needles keeps them: they are ways as well.
    faces = faces[kept] if kept.any() else faces
    _, once = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    return vertices[first], faces[np.sort(once)]


def _refined(vertices: ndarray, faces: ndarray, longest: float) -> tuple[ndarray, ndarray]:
    """Halve edges until none is longer than that, or than what leaves a number of faces that can be handled."""
    corners = vertices[faces]
    side = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(1)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    while (1 + 2 * side / longest + 4 * area / longest**2).sum() > max(_MOST_FACES, 2 * len(faces)):
        longest *= 1.5
    while True:
        edges, number = _edges(faces)
        length = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
        long = length > longest
        if not long.any():
            return vertices, faces
        middle = np.full(len(edges), -1)
        middle[long] = len(vertices) + np.arange(long.sum())
        vertices = np.concatenate([vertices, vertices[edges[long]].mean(1)])
        faces = _split(faces, middle[number])


def _edges(faces: ndarray) -> tuple[Int[ndarray, "edge 2"], Int[ndarray, "face 3"]]:
    """Return all edges, and the number of each face's: from its first corner to its second, and so on."""
    sides = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=2), axis=2)
    edges, number = np.unique(sides.reshape(-1, 2), axis=0, return_inverse=True)
    return edges, number.reshape(-1, 3)


def _split(faces: Int[ndarray, "face 3"], middle: Int[ndarray, "face 3"]) -> Int[ndarray, "more 3"]:
    """Cut faces at the middles of their edges, −1 where an edge is not cut."""
    cut = middle >= 0
    count = cut.sum(1)
    found = [faces[count == 0]]
    for number, first in ((1, cut), (2, ~np.roll(cut, -2, axis=1)), (3, cut)):
        chosen = np.flatnonzero(count == number)
        # Turned so that the only edge that is cut is the first, or the only one that is not is the last.
        turn = (first[chosen].argmax(1)[:, None] + np.arange(3)) % 3
        a, b, c = np.take_along_axis(faces[chosen], turn, 1).T
        p, q, r = np.take_along_axis(middle[chosen], turn, 1).T
        pieces = {
            1: ((a, p, c), (p, b, c)),
            2: ((p, b, q), (a, p, q), (a, q, c)),
            3: ((a, p, r), (p, b, q), (r, q, c), (p, q, r)),
        }[number]
        found += [np.stack(piece, 1) for piece in pieces]
    return np.concatenate(found)


def _net(vertices: ndarray, faces: ndarray) -> _Net:
    parts = next((parts for parts, most in _PARTS.items() if len(faces) <= most), 1)
    edges, number = _edges(faces)
    inner = parts - 1
    share = (np.arange(1, parts) / parts)[None, :, None]
    between = vertices[edges[:, :1]] * (1 - share) + vertices[edges[:, 1:]] * share
    nodes = len(vertices) + np.arange(len(edges) * inner).reshape(len(edges), inner)
    along = np.concatenate([edges[:, :1], nodes, edges[:, 1:]], axis=1)
    steps = np.stack([along[:, :-1], along[:, 1:]], axis=2).reshape(-1, 2)
    around = np.concatenate([faces, nodes[number].reshape(len(faces), -1)], axis=1)
    # Of a node on a face's border, the sides that it is on: two of a corner.
    sides = [{0, 2}, {1, 0}, {2, 1}, *({i // inner} for i in range(3 * inner))]
    across = [(i, j) for j in range(len(sides)) for i in range(j) if not sides[i] & sides[j]]
    through = [around[:, pair] for pair in map(list, across)]
    used, half = np.unique(faces), nodes[:, inner // 2] if inner else nodes.reshape(-1)
    return _Net(
        np.concatenate([vertices, between.reshape(-1, 3)]),
        np.concatenate([steps, *through]),
        around,
        np.concatenate([used, half]),
        np.concatenate([used, edges[: len(half), 0]]),
    )


def _parts(vertices: ndarray, faces: ndarray) -> Int[ndarray, " vertex"]:
    """Return the number of the part that each vertex is of."""
    edges, _ = _edges(faces)
    graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(len(vertices), len(vertices)))
    label: ndarray = connected_components(graph, directed=False)[1]
    return label


def _within(corners: Float[ndarray, "face 3 3"], starts: ndarray, limit: float) -> Bool[ndarray, " face"]:
    """Return which faces may be no further from a start than the limit."""
    middles = corners.mean(1)
    away = cKDTree(starts).query(middles)[0] - np.linalg.norm(corners - middles[:, None], axis=2).max(1)
    within: ndarray = away <= limit
    return within


def _bridges(net: _Net, label: Int[ndarray, " vertex"], gap: float) -> Int[ndarray, "bridge 2"]:
    """Return pairs of nodes of different parts that are no further from each other than ``gap``.

    Each node is joined to the nearest of every other part.
    """
    every = -(-len(net.bridged) // _MOST_BRIDGED)
    nodes, part = net.bridged[::every], label[net.vertex[::every]]
    places, found = net.places[nodes], [np.zeros((0, 2), np.int64)]
    order = np.argsort(part, kind="stable")
    for own in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
        near = _in_box(places, places[own], gap) & (part != part[own[0]])
        away, which = cKDTree(places[own]).query(places[near], distance_upper_bound=gap)
        there = np.isfinite(away)
        found.append(np.stack([nodes[near][there], nodes[own[which[there]]]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs, axis=0)  # what is there twice would count twice


def _in_box(places: ndarray, own: ndarray, gap: float) -> Bool[ndarray, " node"]:
    inside: ndarray = ((places >= own.min(0) - gap) & (places <= own.max(0) + gap)).all(1)
    return inside


def _ways_in(net: _Net, on: OnTriangles) -> Int[ndarray, "way 2"]:
    """Return the ways from points on faces to the faces' borders, and between points on one face."""
    numbers = len(net.places) + np.arange(len(on.face))
    border = net.around[on.face]
    ways = np.stack([np.broadcast_to(numbers[:, None], border.shape), border], axis=2).reshape(-1, 2)
    first, second = np.triu_indices(len(on.face), 1)
    same = on.face[first] == on.face[second]
    return np.concatenate([ways, np.stack([numbers[first[same]], numbers[second[same]]], axis=1)])
