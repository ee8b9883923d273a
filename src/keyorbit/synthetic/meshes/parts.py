"""Parts of a mesh file: triangles with one material each, and how they are joined."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from keyorbit.errors import InputError
from keyorbit.synthetic.meshes.materials import Appearance, Material

# Of all copies of all parts; the ray caster needs about 300 bytes for each.
MOST_TRIANGLES = 50_000_000


@dataclass(frozen=True)
class Part:
    """Triangles of one material, in the file's axes.

    Attributes:
        vertices: positions.
        faces: three vertices each; other corners come in the same order.
        material: what they look like.
        corner_uv: texture coordinates, with the origin at the bottom left. None without.
        corner_colors: red, green, blue, alpha, 0…1. None without.
    """

    vertices: Float[ndarray, "vertex 3"]
    faces: Int[ndarray, "face 3"]
    material: Material
    corner_uv: Float[ndarray, "face 3 2"] | None = None
    corner_colors: Float[ndarray, "face 3 4"] | None = None


def check_part(part: Part, where: str) -> None:
    """Check that every index is of a vertex, and every coordinate and colour of a face's a finite number.

    Raises:
        InputError: one is not.
    """
    vertices, faces = part.vertices, part.faces
    wrong = (faces < 0) | (faces >= len(vertices))
    if wrong.any():
        at = np.argwhere(wrong)[0].tolist()
        raise InputError(f"{where}: face {at[0]} has vertex {faces[tuple(at)]}; there are {len(vertices)}, from 0 on")
    if not np.isfinite(vertices).all() and not np.isfinite(vertices[faces]).all():
        used = np.isin(np.arange(len(vertices)), faces)
        at = np.argwhere(~np.isfinite(vertices) & used[:, None])[0].tolist()
        raise InputError(f"{where}: vertex {at[0]} has the coordinate {vertices[tuple(at)]}; it must be finite")
    if part.corner_uv is not None and not np.isfinite(part.corner_uv).all():
        raise InputError(f"{where} has texture coordinates that are not two finite numbers for each vertex")
    if part.corner_colors is not None and not np.isfinite(part.corner_colors).all():
        raise InputError(f"{where} has colours that are not finite numbers")


def check_count(triangles: int, where: str) -> None:
    """Raise InputError for more triangles than can be rendered."""
    if triangles > MOST_TRIANGLES:
        raise InputError(f"{where} holds {triangles:,} triangles; it may hold {MOST_TRIANGLES:,}: simplify it")


def joined(parts: Sequence[Part]) -> tuple[Float[ndarray, "vertex 3"], Int[ndarray, "face 3"], Appearance]:
    """Return the vertices and faces of all parts, and their colours. Vertices of no face are left out."""
    materials = list(dict.fromkeys(map(id, (part.material for part in parts))))
    by_id = {id(part.material): part.material for part in parts}
    sizes = [len(part.faces) for part in parts]
    firsts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    faces = np.concatenate([part.faces + first for part, first in zip(parts, firsts, strict=False)]).astype(np.int64)
    used, numbers = np.unique(faces, return_inverse=True)
    vertices = np.concatenate([part.vertices for part in parts])[used]
    which = np.repeat([materials.index(id(part.material)) for part in parts], sizes)
    uv = _corners([part.corner_uv for part in parts], sizes, 2, 0.0)
    colors = _corners([part.corner_colors for part in parts], sizes, 4, 1.0)
    look = Appearance(tuple(by_id[key] for key in materials), which, uv, colors)
    return vertices, numbers.reshape(-1, 3), look


def _corners(
    given: Sequence[Float[ndarray, "_ 3 _"] | None], sizes: Sequence[int], numbers: int, default: float
) -> Float[ndarray, "face 3 {numbers}"] | None:
    if all(one is None for one in given):
        return None
    empty = (np.full((size, 3, numbers), default, np.float32) for size in sizes)
    return np.concatenate([other if one is None else one for one, other in zip(given, empty, strict=True)])
