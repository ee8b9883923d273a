"""What a glTF declares, checked before its arrays are read."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain

from keyorbit.errors import InputError
from keyorbit.synthetic.meshes.gltf.arrays import NUMBERS
from keyorbit.synthetic.meshes.gltf.document import Accessor, Gltf, Node, Primitive
from keyorbit.synthetic.meshes.parts import MOST_TRIANGLES

# Bytes of all arrays.
LARGEST = 4 * 2**30
# From the root to all nodes.
_MOST_STEPS = 2_000_000


def check_declared(told: Gltf, where: str) -> None:
    """Check what a glTF declares.

    Raises:
        InputError: more than the budgets above, or nodes that are no tree or are very deep.
    """
    size = sum(view.byteLength for view in told.bufferViews)
    size += sum(4 * a.count * NUMBERS.get(a.type, 1) for a in told.accessors)
    if size > LARGEST:
        raise InputError(f"{where} declares {size:,} bytes of arrays; it may have {LARGEST:,}")
    depths = _depths(told.nodes)
    if len(depths) < len(told.nodes):
        raise InputError(f"{where}: nodes are children of each other in a circle; they must form a tree")
    if sum(depths.values()) > _MOST_STEPS:
        raise InputError(f"{where} has nodes up to {max(depths.values()):,} deep; it must be flatter")
    shown = [told.meshes[node.mesh] for node in told.nodes if node.mesh is not None and node.mesh < len(told.meshes)]
    triangles = sum(_triangles(p, told.accessors) for part in shown for p in part.primitives)
    if triangles > MOST_TRIANGLES:
        raise InputError(f"{where} declares {triangles:,} triangles; it may have {MOST_TRIANGLES:,}: simplify it")


def _triangles(primitive: Primitive, accessors: Sequence[Accessor]) -> int:
    which = primitive.attributes.get("POSITION", len(accessors)) if primitive.indices is None else primitive.indices
    return accessors[which].count // 3 if which < len(accessors) else 0


def _depths(nodes: Sequence[Node]) -> dict[int, int]:
    """How many nodes are above each; without those that are below themselves, or that are below such ones."""
    parents = Counter(chain.from_iterable(node.children for node in nodes))
    depths = {i: 0 for i in range(len(nodes)) if not parents[i]}
    left = list(depths)
    for i in left:  # which grows on the way
        for child in nodes[i].children:
            parents[child] -= 1
            if not parents[child] and child < len(nodes):
                depths[child] = depths[i] + 1
                left.append(child)
    return depths
