"""Mesh files: read by trimesh, with what it does not check before and after it.

Before: what a glTF declares and what an archive unpacks to must fit a budget. After: every index is of a vertex, and
every coordinate is a finite number. Files that a mesh names are read from its own folder alone, never from a network.
"""

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from keyorbit.errors import InputError, first_line
from keyorbit.objects.paths import check_mesh
from keyorbit.synthetic.mesh_budgets import MOST_TRIANGLES, check_budgets

log = logging.getLogger(__name__)


def read_mesh(path: Path) -> Any:
    """Read a mesh file (any format of trimesh) as one trimesh.Trimesh, vertices and faces as they are in it.

    What it names is read from its own folder; a file that is not there, or elsewhere, is left out with a warning where
    it is a material or a texture.

    Raises:
        InputError: the file is missing or damaged, has no triangles, has an index of no vertex or a coordinate that is
            no finite number, or needs more memory than the budgets above.
    """
    import trimesh

    check_mesh(path)
    beside = _Beside(path)
    try:
        check_budgets(path)
        _check_numbering(path)
        with np.errstate(all="ignore"):  # what overflows is found below
            mesh = trimesh.load(path, force="mesh", process=False, resolver=beside)
    except InputError:
        raise
    except Exception as error:  # trimesh's readers raise whatever their parsers raise, also MemoryError
        if beside.missing:
            reason = f"it names {beside.missing[0]!r}, which has to lie in its folder"
        elif path.suffix.lower().lstrip(".") not in trimesh.available_formats():
            reason = "give a file with one of the suffixes .glb, .gltf, .obj, .off, .ply or .stl"
        else:
            reason = f"it is damaged or cut ({first_line(error)[:300]})"
        raise InputError(f"{path} cannot be read as a mesh: {reason}") from error
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
        raise InputError(f"{path} holds no triangles; or it is cut, and what it counts is not there")
    for name in beside.missing:
        log.warning("%s names %r, which is not in its folder: the mesh is read without it", path, name)
    _check(np.asarray(mesh.vertices), np.asarray(mesh.faces), str(path))
    return mesh


def fit_sphere(vertices: Float[ndarray, "vertex 3"], where: str) -> tuple[Float[ndarray, "3"], float]:
    """Return the middle of the box about points, and the factor that brings them into the sphere of radius 0.5.

    Raises:
        InputError: the points' extent is no positive number; ``where`` names them.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        centre = (vertices.min(0) + vertices.max(0)) / 2
        radius = float(np.linalg.norm(vertices - centre, axis=1).max())
        scale = 0.5 / radius if radius > 0 else math.inf
    if not (0 < scale < math.inf):
        raise InputError(f"{where} has an extent of {2 * radius:g}; it must be > 0, and its square a finite number")
    return centre, scale


def _check(vertices: ndarray, faces: ndarray, where: str) -> None:
    if len(faces) > MOST_TRIANGLES:
        raise InputError(f"{where} holds {len(faces):,} triangles; it may hold {MOST_TRIANGLES:,}: simplify it")
    wrong = (faces < 0) | (faces >= len(vertices))
    if wrong.any():
        at = np.argwhere(wrong)[0].tolist()
        raise InputError(f"{where}: face {at[0]} has vertex {faces[tuple(at)]}; there are {len(vertices)}, from 0 on")
    if not np.isfinite(vertices).all():
        at = np.argwhere(~np.isfinite(vertices))[0].tolist()
        raise InputError(f"{where}: vertex {at[0]} has the coordinate {vertices[tuple(at)]}; it must be finite")


def _check_numbering(path: Path) -> None:
    """Raise InputError for an OBJ face of vertex 0: they are counted from 1, and trimesh would take the last one."""
    if path.suffix.lower() != ".obj":
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.lstrip().startswith(b"f ") and any(word.split(b"/")[0] in _ZEROS for word in line.split()[1:]):
                raise InputError(f"{path}, line {number}: a face has vertex 0; an OBJ file counts them from 1")


_ZEROS = (b"0", b"-0", b"+0", b"00")


class _Beside:
    """What trimesh's readers call for the files that a mesh names; it gives those in the mesh's own folder.

    Attributes:
        missing: names that it gave nothing for.
    """

    def __init__(self, mesh: Path) -> None:
        self.folder = mesh.absolute().parent
        self.file_name = mesh.name
        self.missing = list[str]()

    def get(self, name: str) -> bytes:
        """Return the content of a file by its name, or by the last part of the name."""
        root = self.folder.resolve()
        for candidate in dict.fromkeys((name.strip(), name.strip().lstrip("/"), name.strip().split("/")[-1])):
            try:
                path = (root / candidate).resolve()
                if candidate and path.is_relative_to(root) and path.is_file():
                    return path.read_bytes()
            except (OSError, ValueError, RuntimeError):  # no file can have that name
                continue
        self.missing.append(name)
        raise FileNotFoundError(name)

    def __getitem__(self, name: str) -> bytes:
        return self.get(name)

    def keys(self) -> Iterator[str]:
        """Names of the files in the folder."""
        return (str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def __contains__(self, name: str) -> bool:
        return name in self.keys()

    def namespaced(self, namespace: str) -> "_Beside":
        """Return the same for a folder within: it is looked for in the folder itself."""
        return self
