"""Meshes that no generator of ours made, as training objects: from any heading, in many colours and lights.

A folder has one folder a kind, with mesh files in it. One third of a kind's meshes, by their names, is held out:
whoever judges the model on these judges it on meshes that it has never seen. Meshes have no names of parts, but it is
known how they stand, so that "front left of a fish" is known too, see :mod:`tiny_model.grounding`.

`meshes.json` says of the meshes of this project's data how each stands in its file, and which turns look alike. It was
found by looking at sheets of all of them.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from keyorbit.errors import InputError
from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.synthetic.meshes.files import fit_sphere
from keyorbit.synthetic.meshes.surface import load_mesh
from keyorbit.synthetic.render import Light, Surface, render, seen_places
from keyorbit.synthetic.samples import INPUT_ELEVATION_DEG
from keyorbit.synthetic.shapes import rotation_about
from tiny_model.variety import ground, light, recoloured

log = logging.getLogger(__name__)
SUFFIXES = (".glb", ".gltf", ".obj", ".off", ".ply", ".stl")
ABOUT = Path(__file__).with_name("meshes.json")


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
        up: the file's axis, as in `keyorbit dataset render --up`. Default "y", as in all of this project's data.
    """

    path: str
    kind: str
    seed: int
    size: int = 64
    heading_deg: float | None = None
    elevation_deg: float | None = None
    plain: bool = False
    up: str = "y"


@dataclass(frozen=True)
class Standing:
    """How a mesh stands in its file.

    Attributes:
        heading_deg: azimuth from which it shows its front; 0 is the file's +z where y is up.
        symmetry: number of turns about the vertical that look alike; 0 is any turn.
    """

    heading_deg: float = 0.0
    symmetry: int = 1

    def told(self, azimuth_deg: float) -> float:
        """An azimuth about the front, as a picture can tell it: of turns that look alike the one nearest to 0."""
        if self.symmetry == 0:
            return 0.0
        turn = 360 / self.symmetry
        return (azimuth_deg + turn / 2) % turn - turn / 2 if self.symmetry > 1 else azimuth_deg


@dataclass(frozen=True)
class Seen:
    """Pictures of an object, RGBA; the views are Zero123++'s.

    background: of the input picture, 0…1. azimuth_deg: of the input view about the front. position: for every second
    pixel of the input and the views where on the object it shows, in the object's frame (+x front, +y left, +z up),
    0…255 for -0.5…0.5; on: whether it shows the object. None where that is made elsewhere.
    """

    input_image: UInt8[ndarray, "size size 4"]
    views: UInt8[ndarray, "view size size 4"]
    background: Float[ndarray, "3"]
    captions: tuple[str, ...]
    azimuth_deg: float
    position: UInt8[ndarray, "all half half 3"] | None = None
    on: Bool[ndarray, "all half half"] | None = None


@cache
def about() -> dict[str, Any]:
    """What `meshes.json` says."""
    found: dict[str, Any] = json.loads(ABOUT.read_text(encoding="utf-8"))
    return found


def standing(kind: str, name: str) -> Standing:
    """How a mesh stands that is named so; of one that nobody knows what its kind says, and the front to +z."""
    own, of_kind = about()["meshes"].get(name, {}), about()["kinds"].get(kind, {})
    return Standing(float(own.get("heading", 0)), own.get("symmetry", of_kind.get("symmetry", 1)))


def held_out(names: Sequence[str]) -> set[str]:
    """Which of a kind's meshes are never trained on: a third, by the hash of a name, so that order tells nothing."""
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    return set(ordered[: max(1, round(len(ordered) / 3))])


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
    files = {}
    for kind, paths in mesh_files(folder, kinds).items():
        kept = held_out([path.stem for path in paths])
        files[kind] = [path for path in paths if path.stem not in kept]
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
    return standing(spec.kind, Path(spec.path).stem).told(_drawn(spec)[0])


def see_mesh(spec: MeshSpec) -> Seen:
    """Render a mesh: drawn are its heading and elevation, its proportions, colours, light and background.

    Raises:
        InputError: as :func:`keyorbit.synthetic.meshes.surface.load_mesh`.
    """
    azimuth, rng = _drawn(spec)
    drawn = float(rng.uniform(*INPUT_ELEVATION_DEG))
    elevation = drawn if spec.elevation_deg is None else spec.elevation_deg
    surface = load_mesh(Path(spec.path), spec.up).surface
    lamp = None
    if not spec.plain:
        surface, lamp = recoloured(surface, rng), light(rng)
    stands = standing(spec.kind, Path(spec.path).stem)
    placed = _placed(surface, stands.heading_deg, azimuth, rng, spec)
    cameras = orbit_cameras([0.0], [elevation]).join(zero123plus_cameras("v1.2"))
    pictures = render(placed, cameras, spec.size, lamp or Light())
    article = "an" if spec.kind[0] in "aeiou" else "a"
    background = np.full(3, 1.0) if spec.plain else ground(rng)
    face, at = seen_places(placed, cameras, spec.size // 2)
    told = stands.told(azimuth)
    position = np.clip(np.round((at @ rotation_about("z", told).T + 0.5) * 255), 0, 255).astype(np.uint8)
    captions = ("", f"{article} {spec.kind}")
    return Seen(pictures[0], pictures[1:], background, captions, told, position, face >= 0)


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
