"""Meshes that no generator of ours made, as training objects: from any heading, in many colours and lights.

A folder has one folder a kind, with mesh files in it. One third of the meshes, by their names, is held out: whoever
judges the model on these judges it on meshes that it has never seen. Meshes have no names of parts, so nothing is
grounded on them.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from keyorbit.errors import InputError
from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.synthetic.meshes.files import fit_sphere
from keyorbit.synthetic.meshes.surface import load_mesh
from keyorbit.synthetic.render import Light, Surface, render
from keyorbit.synthetic.samples import INPUT_ELEVATION_DEG
from keyorbit.synthetic.shapes import rotation_about
from tiny_model.variety import ground, light, recoloured

log = logging.getLogger(__name__)
SUFFIXES = (".glb", ".gltf", ".obj", ".off", ".ply", ".stl")
# Where a file's front is, in degrees about its vertical axis, for files that do not face +z; found by looking at them.
FRONTS_DEG = {
    **dict.fromkeys(("kenney_bench", "kenney_benchCushion", "kenney_chair", "kenney_chairCushion"), 180.0),
    **dict.fromkeys(("kenney_chairRounded", "kenney_loungeChair", "qplane_Private_plane", "qvol1_Red_Fox"), 180.0),
    **dict.fromkeys(("qf17_ChairCushioned", "qf17_ChairHandle", "qvol2_Dog", "qvol2_Wolf"), 90.0),
    **dict.fromkeys(("qpub_SchoolBus", "qplane_Commercial_Airplane"), 270.0),
}


@dataclass(frozen=True)
class MeshSpec:
    """Which pictures of which mesh to make.

    Attributes:
        path: the file.
        kind: what it is, the name of its folder.
        seed: of everything that is drawn.
        size: pixels a side of a view. Default 64.
        heading_deg: azimuth of the input view about the object's front. Default None: drawn.
        elevation_deg: of the input view. Default None: drawn.
        plain: whether its form, colours and light are those of the file. Default False: drawn.
    """

    path: str
    kind: str
    seed: int
    size: int = 64
    heading_deg: float | None = None
    elevation_deg: float | None = None
    plain: bool = False


@dataclass(frozen=True)
class Seen:
    """Pictures of an object, RGBA; the views are Zero123++'s. background: of the input picture, 0…1."""

    input_image: UInt8[ndarray, "size size 4"]
    views: UInt8[ndarray, "view size size 4"]
    background: Float[ndarray, "3"]
    captions: tuple[str, ...]
    azimuth_deg: float


def held_out(path: Path) -> bool:
    """Whether a mesh is never trained on: one third of all, by the file's name."""
    return hashlib.sha256(path.stem.encode()).digest()[0] % 3 == 0


def mesh_files(folder: Path, kinds: Sequence[str] = ()) -> dict[str, list[Path]]:
    """The mesh files of each kind (default: of each folder that has some), in the order of their names.

    Raises:
        InputError: there is no such folder, or a kind has no meshes.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give one that has a folder of meshes for each kind")
    names = kinds or sorted(path.name for path in folder.iterdir() if path.is_dir())
    found = {
        kind: sorted(path for path in (folder / kind).glob("*") if path.suffix.lower() in SUFFIXES) for kind in names
    }
    found = {kind: paths for kind, paths in found.items() if paths or kind in kinds}
    empty = [kind for kind, paths in found.items() if not paths]
    if empty or not found:
        raise InputError(f"{folder} has no meshes of: {', '.join(empty) or 'any kind'} ({', '.join(SUFFIXES)})")
    return found


def mesh_specs(folder: Path, views: int, seed: int, size: int, kinds: Sequence[str] = ()) -> list[MeshSpec]:
    """``views`` specs of each kind, in turn; each kind's meshes that are not held out, in turn.

    Raises:
        InputError: as :func:`mesh_files`, or all meshes are held out.
    """
    files = {kind: [p for p in paths if not held_out(p)] for kind, paths in mesh_files(folder, kinds).items()}
    files = {kind: paths for kind, paths in files.items() if paths}
    if not files:
        raise InputError(f"all meshes of {folder} are held out, by their names: there is none to train on")
    return [
        MeshSpec(str(paths[i % len(paths)]), kind, seed * 10**6 + i, size)
        for i in range(views)
        for kind, paths in files.items()
    ]


def mesh_azimuth(spec: MeshSpec) -> float:
    """Azimuth of the input view about the object's front, in degrees, without a look at the mesh."""
    return _drawn(spec)[0]


def see_mesh(spec: MeshSpec) -> Seen:
    """Render a mesh: drawn are its heading and elevation, its proportions, colours, light and background.

    Raises:
        InputError: as :func:`keyorbit.synthetic.meshes.surface.load_mesh`.
    """
    azimuth, rng = _drawn(spec)
    drawn = float(rng.uniform(*INPUT_ELEVATION_DEG))
    elevation = drawn if spec.elevation_deg is None else spec.elevation_deg
    surface = load_mesh(Path(spec.path)).surface
    lamp = None
    if not spec.plain:
        surface, lamp = recoloured(surface, rng), light(rng)
    placed = _placed(surface, FRONTS_DEG.get(Path(spec.path).stem, 0.0), azimuth, rng, spec)
    cameras = orbit_cameras([0.0], [elevation]).join(zero123plus_cameras("v1.2"))
    pictures = render(placed, cameras, spec.size, lamp or Light())
    article = "an" if spec.kind[0] in "aeiou" else "a"
    background = np.full(3, 1.0) if spec.plain else ground(rng)
    return Seen(pictures[0], pictures[1:], background, ("", f"{article} {spec.kind}"), azimuth)


def _drawn(spec: MeshSpec) -> tuple[float, np.random.Generator]:
    name = hashlib.sha256(Path(spec.path).stem.encode()).digest()
    rng = np.random.default_rng([2, spec.seed, int.from_bytes(name[:4], "little")])
    azimuth = float(rng.uniform(0, 360))
    return azimuth if spec.heading_deg is None else spec.heading_deg, rng


def _placed(surface: Surface, front: float, azimuth: float, rng: np.random.Generator, spec: MeshSpec) -> Surface:
    """With its front at azimuth 0, stretched, then turned as the input view sees it; in the sphere of radius 0.5."""
    mesh = surface.mesh.copy()
    vertices = np.asarray(mesh.vertices, float) @ rotation_about("z", -front).T
    if not spec.plain:
        vertices = vertices * rng.uniform(0.85, 1.18, 3)
        if rng.random() < 0.5:
            vertices = vertices * np.array([1.0, -1.0, 1.0])  # both sides of a face are lit alike
    centre, scale = fit_sphere(vertices, spec.path)
    mesh.vertices = ((vertices - centre) * scale) @ rotation_about("z", -azimuth).T
    return replace(surface, mesh=mesh)
