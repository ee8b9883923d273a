"""Where a glTF's vertices are as its nodes stand: transforms, skins, mixed forms and instances."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from keyorbit.errors import InputError
from keyorbit.synthetic.meshes.gltf.arrays import Arrays
from keyorbit.synthetic.meshes.gltf.document import Gltf, Node, Primitive, Skin
from keyorbit.values import Amount, from_values

_INSTANCES, _VISIBILITY = "EXT_mesh_gpu_instancing", "KHR_node_visibility"


@dataclass(frozen=True)
class _Instances:
    attributes: dict[str, Amount] = field(default_factory=dict)


def placed_nodes(arrays: Arrays) -> dict[int, Float[ndarray, "4 4"]]:
    """Return the nodes that the file's scene shows, with the matrices from their axes to the world's.

    Raises:
        InputError: a node or the scene names one that is not there.
    """
    told = arrays.told
    all_nodes = all_matrices(told)
    if told.scenes:
        left = list(arrays.get("scene", told.scenes, told.scene or 0).nodes)
    else:
        below = {child for node in told.nodes for child in node.children}
        left = [i for i in range(len(told.nodes)) if i not in below]
    found = {}
    for i in left:  # which grows on the way
        node = arrays.get("node", told.nodes, i)
        if i not in found and not _hidden(node):
            found[i] = all_nodes[i]
            left += node.children
    return found


def all_matrices(told: Gltf) -> dict[int, Float[ndarray, "4 4"]]:
    """Return the matrix of every node from its axes to the world's; they form a tree, as was checked before."""
    below = {child for node in told.nodes for child in node.children}
    found = {i: _local(told.nodes[i]) for i in range(len(told.nodes)) if i not in below}
    left = list(found)
    with np.errstate(all="ignore"):  # what overflows is found where vertices are checked
        for i in left:  # which grows on the way
            for child in told.nodes[i].children:
                if child < len(told.nodes) and child not in found:
                    found[child] = found[i] @ _local(told.nodes[child])
                    left.append(child)
    return found


def copies_of(arrays: Arrays, node: Node, matrix: Float[ndarray, "4 4"]) -> list[Float[ndarray, "4 4"]]:
    """Return the matrices with which a node's mesh is drawn: its own, or one for each instance.

    Raises:
        InputError: the instances' arrays cannot be read.
    """
    if _INSTANCES not in node.extensions:
        return [matrix]
    told = from_values(_Instances, node.extensions[_INSTANCES], f"{arrays.where}: {_INSTANCES}", others=True)
    given = {name: arrays.values(i).astype(float) for name, i in told.attributes.items()}
    rows = {name: value for name, value in given.items() if name in ("TRANSLATION", "ROTATION", "SCALE")}
    if not rows:
        return [matrix]
    count = min(map(len, rows.values()))
    moved, turned, scaled = (rows.get(name) for name in ("TRANSLATION", "ROTATION", "SCALE"))
    _check_width(arrays, rows)
    return [
        matrix
        @ _composed(
            np.zeros(3) if moved is None else moved[i],
            np.array([0.0, 0, 0, 1]) if turned is None else turned[i],
            np.ones(3) if scaled is None else scaled[i],
        )
        for i in range(count)
    ]


def formed(
    arrays: Arrays, primitive: Primitive, vertices: Float[ndarray, "vertex 3"], weights: Sequence[float]
) -> Float[ndarray, "vertex 3"]:
    """Return the vertices with the other forms mixed in by their weights.

    Raises:
        InputError: a form has other vertices.
    """
    for target, weight in zip(primitive.targets, weights, strict=False):
        if weight and "POSITION" in target:
            shift = arrays.values(target["POSITION"])
            if shift.shape != vertices.shape:
                raise InputError(f"{arrays.where}: a form has {len(shift)} vertices, and its mesh {len(vertices)}")
            vertices = vertices + weight * shift
    return vertices


def skinned(
    arrays: Arrays,
    skin: Skin,
    matrices: dict[int, Float[ndarray, "4 4"]],
    vertices: Float[ndarray, "vertex 3"],
    attributes: dict[str, ndarray],
) -> Float[ndarray, "vertex 3"]:
    """Return the vertices where the skin's nodes move them, in the world's axes.

    Args:
        arrays: of the file.
        skin: its nodes and matrices.
        matrices: of all nodes, as by :func:`all_matrices`.
        vertices: as they are in the file.
        attributes: ``JOINTS_0``, ``WEIGHTS_0`` and so on, four nodes for each vertex each.

    Raises:
        InputError: one names a node that is not there, or their numbers do not fit each other.
    """
    joints = [matrices[arrays.get("node", range(len(arrays.told.nodes)), i)] for i in skin.joints]
    if not joints:
        raise InputError(f"{arrays.where} has a skin without joints")
    own = np.stack(joints)
    if skin.inverseBindMatrices is not None:
        inverse = arrays.values(skin.inverseBindMatrices).astype(float)
        if inverse.shape[1] != 16 or len(inverse) < len(own):
            raise InputError(f"{arrays.where} has a skin of {len(own)} joints with {len(inverse)} matrices")
        own = own @ inverse[: len(own)].reshape(-1, 4, 4).transpose(0, 2, 1)
    sets = [i for i in range(len(attributes)) if f"JOINTS_{i}" in attributes and f"WEIGHTS_{i}" in attributes]
    told = [attributes[f"{kind}_{i}"] for kind in ("JOINTS", "WEIGHTS") for i in sets]
    if any(value.shape != (len(vertices), 4) for value in told):
        raise InputError(f"{arrays.where}: joints and weights of a skin are not four for each vertex")
    which = np.concatenate(told[: len(sets)], axis=1).astype(np.int64)
    share = np.concatenate(told[len(sets) :], axis=1).astype(float)
    which = np.where(share == 0, 0, which)  # exporters leave any number there
    if which.size and which.max() >= len(own):
        raise InputError(f"{arrays.where}: a vertex is moved by joint {which.max()}; there are {len(own)}, from 0 on")
    total = share.sum(1, keepdims=True)
    share = np.where(total > 0, share / np.where(total > 0, total, 1), np.eye(1, share.shape[1]))
    homogeneous = np.concatenate([vertices, np.ones((len(vertices), 1))], axis=1)
    found = np.zeros((len(vertices), 3))
    with np.errstate(all="ignore"):  # what overflows is found where vertices are checked
        for column in range(which.shape[1]):
            moved = np.einsum("vij,vj->vi", own[which[:, column], :3], homogeneous)
            found += share[:, column : column + 1] * moved
    return found


def _hidden(node: Node) -> bool:
    told: Any = node.extensions.get(_VISIBILITY)
    return isinstance(told, dict) and told.get("visible") is False


def _check_width(arrays: Arrays, rows: dict[str, ndarray]) -> None:
    for name, value in rows.items():
        if value.shape[1] != (4 if name == "ROTATION" else 3):
            raise InputError(f"{arrays.where}: {name} of instances has {value.shape[1]} numbers each")


def _local(node: Node) -> Float[ndarray, "4 4"]:
    if node.matrix is not None:
        return np.array(node.matrix, float).reshape(4, 4).T  # column by column
    return _composed(np.array(node.translation), np.array(node.rotation), np.array(node.scale))


def _composed(
    translation: Float[ndarray, "3"], rotation: Float[ndarray, "4"], scale: Float[ndarray, "3"]
) -> Float[ndarray, "4 4"]:
    """Return the matrix that scales, then rotates by a quaternion (real part last), then moves."""
    length = float(np.linalg.norm(rotation))
    x, y, z, w = rotation / length if length > 0 else np.array([0.0, 0, 0, 1])
    found = np.eye(4)
    found[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    found[:3, :3] *= scale
    found[:3, 3] = translation
    return found
