"""The triangles of a mesh file, with vertices and faces numbered as the file does."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from keyorbit.synthetic.meshes.parts import Part

Triangles = tuple[Float[ndarray, "vertex 3"], Int[ndarray, "face 3"]]
_BOM = b"\xef\xbb\xbf"


def numbered(path: Path, parts: Sequence[Part]) -> Triangles:
    """Return vertices and triangles as a file numbers them, from 0 on; those of several parts one after another.

    Reading an OBJ with its materials sorts its faces by these and doubles its vertices along the seams of textures. So
    its geometry is read once more here, and polygons are fans of their first corner; what cannot be read so has the
    numbers of its parts.
    """
    found = _obj(path) if path.suffix.lower() == ".obj" else None
    if found is not None and len(found[1]) == sum(len(part.faces) for part in parts):
        return found
    firsts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    faces = [part.faces + first for part, first in zip(parts, firsts, strict=False)]
    return np.concatenate([part.vertices for part in parts]), np.concatenate(faces).astype(np.int64)


def _obj(path: Path) -> Triangles | None:
    places, triangles = list[list[float]](), list[tuple[int, int, int]]()
    try:
        for line in path.read_bytes().removeprefix(_BOM).replace(b"\\\r\n", b" ").replace(b"\\\n", b" ").splitlines():
            words = line.partition(b"#")[0].split()
            if words[:1] == [b"v"]:
                places.append([float(word) for word in words[1:4]])
            elif words[:1] == [b"f"]:
                # Negative numbers count back from the last vertex so far.
                told = [int(word.split(b"/")[0]) for word in words[1:]]
                corners = [number - 1 if number > 0 else len(places) + number for number in told]
                triangles += [(corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1)]
    except ValueError:
        return None
    vertices, faces = np.array(places, float), np.array(triangles, np.int64)
    if vertices.ndim != 2 or vertices.shape[1:] != (3,) or faces.shape[1:] != (3,):
        return None
    inside = (faces >= 0).all() and (faces < len(vertices)).all()
    return (vertices, faces) if inside and np.isfinite(vertices[faces]).all() else None
