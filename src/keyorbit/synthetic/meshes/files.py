"""Mesh files: glTF read here, all others by trimesh, with what it does not check before and after it.

Files that a mesh names are read from its own folder alone, never from a network.
"""

import io
import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from PIL import Image, UnidentifiedImageError

from keyorbit.errors import InputError, first_line
from keyorbit.objects.paths import check_mesh
from keyorbit.objects.pictures import eight_bits
from keyorbit.storage.content import stand_in
from keyorbit.synthetic.meshes.archives import is_archive, unpacked
from keyorbit.synthetic.meshes.gltf.budget import LARGEST
from keyorbit.synthetic.meshes.gltf.read import gltf_parts
from keyorbit.synthetic.meshes.materials import Material
from keyorbit.synthetic.meshes.off import off_part
from keyorbit.synthetic.meshes.parts import Part, check_count, check_part
from keyorbit.synthetic.meshes.repairs import repaired, stl_colours

log = logging.getLogger(__name__)

_GLTF = (".glb", ".gltf", ".vrm")
# What trimesh reads with a library that need not be there.
_NEEDS = {".dae": "pycollada", ".3mf": "lxml networkx"}
# All pixels of the picture that trimesh gives what has texture coordinates and no texture.
_NO_TEXTURE = (100, 100, 100, 255)
_BOM = b"\xef\xbb\xbf"
# Between the names of several libraries of materials.
_NEXT_LIBRARY = re.compile(r"(?<=\.mtl)\s+", re.IGNORECASE)
_UP_AXIS = re.compile(rb"<up_axis>\s*([XYZ])_UP")


@dataclass(frozen=True)
class MeshFile:
    """What a mesh file holds.

    Attributes:
        parts: in the file's axes; at least one triangle.
        up: the upward axis that the file or its format tells. None where neither does.
    """

    parts: list[Part]
    up: str | None


def read_mesh(path: Path) -> MeshFile:
    """Read a mesh file: glTF and GLB, any format of trimesh, or an archive of such.

    What it names is read from its own folder; a file that is not there, or elsewhere, is left out with a warning where
    it is a material or a texture.

    Raises:
        InputError: the file is missing or damaged, has no triangles, has an index of no vertex or a coordinate that is
            no finite number, requires what is not read here, or needs more memory than the budgets.
    """
    check_mesh(path)
    if path.stat().st_size == 0:
        raise InputError(f"{path} is an empty file, not a mesh")
    if words := stand_in(path):
        raise InputError(f"{path} cannot be read as a mesh: {words}")
    if not is_archive(path):
        return _read(path, str(path))
    try:
        with unpacked(path) as files:
            named = [file for file in files if file.suffix.lower() in (*_GLTF, *_NEEDS, *_formats())]
            read = [_read(file, f"{path}: {file.name}") for file in named]
    except InputError:
        raise
    except Exception as error:  # whatever the archives' readers raise
        raise InputError(f"{path} cannot be read as a mesh: it is damaged ({first_line(error)[:300]})") from error
    if not read:
        raise InputError(f"{path} holds no mesh of a kind that is read here: .glb, .gltf, .obj, .off, .ply or .stl")
    axes = {one.up for one in read}
    return MeshFile([part for one in read for part in one.parts], axes.pop() if len(axes) == 1 else None)


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


def files_of_mesh(path: Path) -> list[Path]:
    """Return the files that a mesh file names and that are in its folder, each once.

    Raises:
        InputError: as :func:`read_mesh`.
    """
    check_mesh(path)
    beside = _Beside(path)
    _read(path, str(path), beside)
    return list(dict.fromkeys(beside.found))


def _read(path: Path, where: str, beside: "_Beside | None" = None) -> MeshFile:
    beside = beside or _Beside(path)
    kind = path.suffix.lower()
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{where} has more than {LARGEST:,} bytes: simplify it")
        if kind in _GLTF:
            with np.errstate(all="ignore"):  # what overflows is found where it is checked
                parts = gltf_parts(path.read_bytes(), beside.get, where)
        elif kind == ".off":
            parts = [off_part(path.read_bytes(), where)]
            check_part(parts[0], where)
        else:
            _check_numbering(path, where)
            parts = _other_parts(path, beside, where)
    except InputError:
        raise
    except Exception as error:  # trimesh's readers raise whatever their parsers raise, also MemoryError
        if beside.missing:
            reason = f"it names {beside.missing[0]!r}, which has to lie in its folder"
        elif kind not in (*_GLTF, *_formats()):
            reason = "give a file with one of the suffixes .glb, .gltf, .obj, .off, .ply or .stl"
            reason = f"that takes a library: pip install {_NEEDS[kind]}" if kind in _NEEDS else reason
        else:
            reason = f"it is damaged or cut ({first_line(error)[:300]})"
        raise InputError(f"{where} cannot be read as a mesh: {reason}") from error
    if beside.damaged:
        raise InputError(f"{where} cannot be read as a mesh: {beside.damaged[0]}")
    if not any(len(part.faces) for part in parts):
        words = "points and lines alone are no surface; or it is cut, and what it counts is not there"
        raise InputError(f"{where} holds no triangles: {words}")
    for name in dict.fromkeys(beside.missing):
        log.warning("%s names %r, which is not in its folder: the mesh is read without it", where, name)
    return MeshFile([part for part in parts if len(part.faces)], _stated_up(path, kind))


def _stated_up(path: Path, kind: str) -> str | None:
    """The upward axis that a format has (glTF y, 3MF z), or that a COLLADA file tells."""
    if kind == ".dae":
        found = _UP_AXIS.search(path.read_bytes())
        return found[1].decode().lower() if found else "y"
    return "y" if kind in _GLTF else "z" if kind == ".3mf" else None


def _formats() -> list[str]:
    import trimesh

    return [f".{name}" for name in trimesh.available_formats()]


def _other_parts(path: Path, beside: "_Beside", where: str) -> list[Part]:
    """Read a file by trimesh, each material's triangles for themselves."""
    import trimesh

    kind, content = path.suffix.lower(), repaired(path.read_bytes(), path.suffix.lower())
    with np.errstate(all="ignore"), _quiet():  # what overflows is found below
        loaded = trimesh.load(io.BytesIO(content), file_type=kind[1:], process=False, resolver=beside)
        if isinstance(loaded, trimesh.Scene):
            placed = [(loaded.geometry[name], matrix) for matrix, name in map(loaded.graph.get, _nodes(loaded))]
        else:
            placed = [(loaded, np.eye(4))]
        placed = [(mesh, matrix) for mesh, matrix in placed if isinstance(mesh, trimesh.Trimesh)]
        check_count(sum(len(mesh.faces) for mesh, _ in placed), where)
        parts = [_part(mesh, matrix, where) for mesh, matrix in placed]
    for part in parts:
        check_part(part, where)
    colours = stl_colours(content) if kind == ".stl" else None
    if colours is not None and [len(part.faces) for part in parts] == [len(colours)]:
        return [replace(parts[0], material=Material(), corner_colors=np.repeat(colours[:, None], 3, axis=1))]
    return parts


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep trimesh from printing tracebacks of what is told here in a sentence."""
    theirs = logging.getLogger("trimesh")
    level = theirs.level
    theirs.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        theirs.setLevel(level)


def _nodes(scene: Any) -> list[str]:
    return sorted(scene.graph.nodes_geometry, key=str)  # else their order differs from run to run


def _part(mesh: Any, matrix: Float[ndarray, "4 4"], where: str) -> Part:
    vertices, faces = np.asarray(mesh.vertices, float), np.asarray(mesh.faces, np.int64)
    if not np.array_equal(matrix, np.eye(4)):
        vertices = vertices @ matrix[:3, :3].T + matrix[:3, 3]
    bare = Part(vertices, faces, Material())
    check_part(bare, where)
    try:
        return _coloured(bare, mesh.visual, where)
    except InputError:
        raise
    except Exception as error:  # trimesh and Pillow decode only now
        raise InputError(f"the colours or the texture of {where} cannot be read: {first_line(error)}") from error


def _coloured(bare: Part, visual: Any, where: str) -> Part:
    """Return the part with its colours as they are in the file: sRGB."""
    import trimesh

    vertices, faces = bare.vertices, bare.faces
    material = getattr(visual, "material", None)
    image = getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
    if image is not None and image.size == (2, 2) and (np.asarray(image.convert("RGBA")) == _NO_TEXTURE).all():
        image, material = None, None
    uv = getattr(visual, "uv", None)
    if image is not None and uv is not None:
        texture = np.array(eight_bits(image, f"the texture of {where}").convert("RGB").convert("RGBA"))
        uv = np.asarray(uv, np.float32)
        if uv.ndim != 2 or len(uv) != len(vertices) or uv.shape[1] < 2:
            raise InputError(f"{where} has texture coordinates that are not two finite numbers for each vertex")
        return Part(vertices, faces, Material(texture=texture), uv[:, :2][faces])
    if visual.kind in ("face", "vertex"):
        given = visual.face_colors if visual.kind == "face" else visual.vertex_colors
        colors = np.asarray(given, np.float32)[:, :4] / 255
        if colors.shape != (len(faces if visual.kind == "face" else vertices), 4):
            raise InputError(f"{where} has colours that are not one for each vertex or face")
        corners = np.repeat(colors[:, None], 3, axis=1) if visual.kind == "face" else colors[faces]
        return Part(vertices, faces, Material(), None, corners)
    grey = trimesh.visual.DEFAULT_COLOR
    color = np.asarray(getattr(material, "main_color", grey), float)[:3]
    stated = not np.array_equal(color, np.asarray(grey, float)[:3])
    red, green, blue = (float(value) / 255 for value in color)
    return Part(vertices, faces, Material((red, green, blue, 1.0), stated=stated))


def _check_numbering(path: Path, where: str) -> None:
    """Raise InputError for an OBJ face of vertex 0: they are counted from 1, and trimesh would take the last one."""
    if path.suffix.lower() != ".obj":
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.lstrip().startswith(b"f ") and any(word.split(b"/")[0] in _ZEROS for word in line.split()[1:]):
                raise InputError(f"{where}, line {number}: a face has vertex 0; an OBJ file counts them from 1")


_ZEROS = (b"0", b"-0", b"+0", b"00")


def _problems(data: bytes, path: Path) -> list[str]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except UnidentifiedImageError:
        return [f"the texture {path} is of a kind that is not read here: save it as PNG or JPEG"]
    except Exception as error:  # whatever Pillow's decoders raise
        return [f"the texture {path} cannot be read: {first_line(error)[:200]}"]
    return []


def _as_named(root: Path, name: str) -> Path | None:
    """Return a file by its name; None where there is none in the folder."""
    try:
        path = (root / name).resolve()
        return path if name and path.is_relative_to(root) and path.is_file() else None
    except (OSError, ValueError, RuntimeError):  # no file can have that name
        return None


def _in_any_case(root: Path, name: str) -> Path | None:
    """Return a file by its name with other small and capital letters, as Windows finds it; None where there is none."""
    place = root
    try:
        for part in Path(name).parts:
            alike = [path for path in place.iterdir() if path.name.casefold() == part.casefold()]
            if not alike:
                return None
            place = min(alike)
    except (OSError, ValueError):
        return None
    return _as_named(root, str(place.relative_to(root)))


class _Beside:
    """What readers call for the files that a mesh names; it gives those in the mesh's own folder.

    Attributes:
        found: files that it gave.
        missing: names that it gave nothing for.
        damaged: sentences about pictures that cannot be decoded; trimesh would leave them out without a word.
    """

    def __init__(self, mesh: Path) -> None:
        self.folder = mesh.absolute().parent
        self.checks_pictures = mesh.suffix.lower() not in _GLTF  # whose reader decodes them itself
        self.file_name = mesh.name
        self.found = list[Path]()
        self.missing = list[str]()
        self.damaged = list[str]()

    def get(self, name: str) -> bytes:
        """Return the content of a file by its name, or by the last part of the name.

        A name may have Windows' backslashes, and before it the options that an MTL file gives a texture.

        Raises:
            FileNotFoundError: it is not there.
        """
        names = _NEXT_LIBRARY.split(name.strip())
        whole = self._content(name)
        found = [whole] if whole is not None or len(names) < 2 else [self._content(one) for one in names]
        asked = names if len(found) > 1 else [name]
        self.missing += [one for one, data in zip(asked, found, strict=True) if data is None]
        if not any(data is not None for data in found):
            raise FileNotFoundError(name)
        return b"\n".join(data for data in found if data is not None)

    def _content(self, name: str) -> bytes | None:
        """Return the content of one file; None where it is not there."""
        words = name.strip().split(" ")
        plain = [" ".join(words[i:]) for i in range(len(words) if name.strip().startswith("-") else 1)]
        slashed = [one.replace("\\", "/") for one in plain]
        tried = [way for one in (*plain, *slashed) for way in (one, one.lstrip("/"), one.split("/")[-1])]
        tried = list(dict.fromkeys(one.strip('"') for one in tried))
        for find in (_as_named, _in_any_case):
            for candidate in tried:
                path = find(self.folder.resolve(), candidate)
                if path is None:
                    continue
                data = path.read_bytes()
                self.found.append(path)
                if path.suffix.lower() == ".mtl":
                    return data.removeprefix(_BOM)
                if self.checks_pictures:
                    self.damaged += _problems(data, path)
                return data
        return None

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
