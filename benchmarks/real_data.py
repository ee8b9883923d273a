"""Meshes that no generator of ours made, as objects with truth: ``python benchmarks/real_data.py MESHES OUT``.

MESHES holds a folder a kind, ``KIND/NAME.glb`` (any mesh format), and where joints or other landmarks are known
``KIND.keypoints.json``: {"keypoints": {NAME: {landmark: [x, y, z]}}} in the files' axes, y up and +z forward. Or it is
KeypointNet's folder (``annotations/KIND.json`` and ``ShapeNetCore.v2.ply/NUMBER/NAME.ply``). OUT gets object folders,
``OUT/KIND/discovery/NAME`` and ``OUT/KIND/test/NAME_HEADING``, which the commands read.

`recipes/tiny_model/meshes.json` says of the meshes of this project's data how each stands in its file, and which turns
look alike. A kind without known joints has its utmost points for truth: the places of the mesh that lie furthest in
named directions, such as the nose of an aeroplane.

A third of a kind's meshes, those with the lowest SHA-256 of their names, are for the test; the tiny model was not
trained on these either.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

import keyorbit as ko
from keyorbit.errors import InputError
from keyorbit.evaluation.readers.keypointnet import CLASSES
from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.objects.dataset import Truth, write_object
from keyorbit.objects.description import Symmetry
from keyorbit.objects.pictures import GREY
from keyorbit.synthetic.grids import LAYOUT, grid_of
from keyorbit.synthetic.meshes.objects import WHITE
from keyorbit.synthetic.meshes.surface import load_mesh
from keyorbit.synthetic.render import Surface, composite, render, sample_surface, visible
from keyorbit.synthetic.samples import SURFACE_POINTS, Sample
from keyorbit.synthetic.shapes import rotation_about
from tiny_model.meshes import SUFFIXES, about, held_out, standing

ELEVATION_DEG = 20.0
# The kinds whose tokens and phrases are nearest to a kind.
NEAREST: dict[str, str] = {kind: told["tokens"] for kind, told in about()["kinds"].items() if "tokens" in told}
# Vertices within this share of the box of the utmost one are one place: an edge has two or more.
_EDGE = 0.04


@dataclass(frozen=True)
class RealMesh:
    """A mesh of a kind.

    Attributes:
        heading: azimuth, degrees, from which it shows its front; 0 is the file's +z where y is up.
        symmetry: number of turns about the vertical that look alike; 0 is any turn.
        landmarks: places in the file's axes.
        utmost: directions (front, left, up) of further landmarks.
        names: of the landmarks of all meshes of the kind, in order.
    """

    kind: str
    name: str
    file: Path
    heading: float = 0.0
    symmetry: int = 1
    landmarks: Mapping[str, Sequence[float]] = field(default_factory=dict)
    utmost: Mapping[str, Sequence[float]] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @property
    def turns(self) -> Symmetry:
        """The symmetry as objects' folders tell it."""
        return self.symmetry or "round"


def meshes_of(folder: Path) -> dict[str, list[RealMesh]]:
    """All kinds of a folder of meshes, or of KeypointNet, by name."""
    if not folder.is_dir():
        raise SystemExit(f"there is no folder at {folder}")
    found = _keypointnet(folder) if (folder / "annotations").is_dir() else _by_kind(folder)
    if not found:
        raise SystemExit(f"{folder} holds no KIND/NAME.glb, nor KeypointNet's annotations")
    return {kind: [replace(mesh, names=_names(meshes)) for mesh in meshes] for kind, meshes in found.items()}


def split(meshes: Sequence[RealMesh]) -> tuple[list[RealMesh], list[RealMesh]]:
    """Two thirds for discovery; one third, on which the tiny model was never trained either, for the test."""
    ordered = sorted(meshes, key=lambda mesh: sha256(mesh.name.encode()).digest())
    kept = held_out([mesh.name for mesh in ordered])
    return [m for m in ordered if m.name not in kept], [m for m in ordered if m.name in kept]


def some_heading(mesh: RealMesh) -> float:
    """The heading at which discovery sees a mesh: any, but always the same."""
    return float(int.from_bytes(sha256(mesh.name.encode()).digest()[8:12], "big") % 360)


def sample(mesh: RealMesh, heading: float, size: int) -> Sample:
    """A mesh seen from the input camera and the six others, ``heading`` degrees round from its front; with truth."""
    surface, spread, places, known = _loaded(mesh)
    turn = rotation_about("z", -heading)
    shown = _turned(surface, turn)
    input_camera, cameras = orbit_cameras([0.0], [ELEVATION_DEG]), zero123plus_cameras("v1.2")
    everything = input_camera.join(cameras)
    pictures, points = render(shown, everything, size, supersample=3), places @ turn.T
    return Sample(
        mesh.kind,
        0,
        pictures[0],
        pictures[1:],
        points,
        known,
        everything.project(torch.from_numpy(points).float()).numpy(),
        # A joint lies within the body.
        visible(shown, points, everything, 0.12 if mesh.landmarks else 0.03) & known,
        mesh.names,
        (),
        "",
        (),
        np.full(3, WHITE),
        heading % 360,
        ELEVATION_DEG,
        input_camera,
        cameras,
        spread @ turn.T,
    )


def write(folder: Path, mesh: RealMesh, heading: float, size: int) -> None:
    """Write the same as an object folder."""
    made = sample(mesh, heading, size)
    meta = {
        "mesh": mesh.file.name,
        "category": mesh.kind,
        "cameras": made.cameras.to_dict(),
        "input_camera": made.input_camera.to_dict(),
        "input_azimuth_deg": made.input_azimuth_deg,
        "input_elevation_deg": made.input_elevation_deg,
        "symmetry": mesh.turns,
        "surface": made.surface.round(4).tolist(),
    }
    if mesh.names:
        meta |= {"keypoint_names": list(mesh.names), "pairs": []}
        meta |= {name: getattr(made, name).tolist() for name in ("known", "keypoints_3d", "keypoints_2d", "visible")}
    write_object(folder, Image.fromarray(composite(made.input_image, WHITE)), grid_of(made.views), LAYOUT, meta)


def seen(mesh: RealMesh, heading: float, size: int) -> ko.ObjectViews:
    """The same as the object that :func:`keyorbit.load_dataset` would read."""
    made = sample(mesh, heading, size)
    floats = [torch.from_numpy(x).float() for x in (made.keypoints_3d, made.keypoints_2d, made.surface)]
    known, visibility = torch.from_numpy(made.known), torch.from_numpy(made.visible)
    truth = Truth(mesh.names, (), floats[0], known, floats[1], visibility, surface=floats[2]) if mesh.names else None
    return ko.ObjectViews(
        f"{mesh.name}_{heading % 360:03.0f}",
        Image.fromarray(composite(made.input_image, made.background)),
        torch.from_numpy(composite(made.views, GREY)).movedim(-1, 1).float() / 255,
        torch.from_numpy(made.views[..., 3] > 127),
        made.cameras,
        truth=truth,
        input_elevation_deg=ELEVATION_DEG,
        symmetry=mesh.turns,
    )


def landmarks_of(mesh: RealMesh, heading: float) -> tuple[Float[Tensor, "landmark 3"], Bool[Tensor, " landmark"]]:
    """The landmarks of a mesh at a heading, and which are known."""
    _, _, places, known = _loaded(mesh)
    return torch.from_numpy(places @ rotation_about("z", -heading).T).float(), torch.from_numpy(known)


def unseen(mesh: RealMesh, heading: float) -> ko.ObjectViews:
    """A mesh's landmarks in space without any picture of it."""
    points, known = landmarks_of(mesh, heading)
    nowhere = torch.zeros(1, len(points), 2)
    return ko.ObjectViews(
        mesh.name, Image.new("RGB", (1, 1)), truth=Truth(mesh.names, (), points, known, nowhere, nowhere[..., 0] > 0)
    )


@lru_cache(maxsize=64)
def _read(file: Path) -> tuple[Surface, np.ndarray, float]:
    """The surface, and the middle and the factor with which it was brought into the unit sphere."""
    upright = load_mesh(file, "y")
    return upright.surface, upright.centre, upright.scale


@lru_cache(maxsize=64)
def _placed(file: Path, heading: float) -> Surface:
    """The surface with its front towards +x."""
    surface, _, _ = _read(file)
    return _turned(surface, rotation_about("z", -heading))


def _turned(surface: Surface, turn: np.ndarray) -> Surface:
    mesh, homogeneous = surface.mesh.copy(), np.eye(4)
    homogeneous[:3, :3] = turn
    mesh.apply_transform(homogeneous)
    return replace(surface, mesh=mesh)


def _loaded(mesh: RealMesh) -> tuple[Surface, np.ndarray, np.ndarray, np.ndarray]:
    """Surface, points on it, landmarks and which are known, all with the front towards +x."""
    _, centre, scale = _read(mesh.file)
    surface, turn = _placed(mesh.file, mesh.heading), rotation_about("z", -mesh.heading)
    told = {
        name: turn @ ((np.asarray(at, float)[[2, 0, 1]] - centre) * scale) for name, at in mesh.landmarks.items()
    } | {name: utmost(surface.mesh.vertices, direction) for name, direction in mesh.utmost.items()}
    known = np.array([name in told for name in mesh.names], bool)
    places = np.array([told.get(name, np.zeros(3)) for name in mesh.names]).reshape(-1, 3)
    return surface, sample_surface(surface, SURFACE_POINTS, 0), places, known


def utmost(vertices: np.ndarray, direction: Sequence[float]) -> np.ndarray:
    """The place that lies furthest in a direction, whose parts are in halves of the box about all vertices."""
    low, high = vertices.min(0), vertices.max(0)
    towards = np.asarray(direction, float)
    reach = ((vertices - (low + high) / 2) / np.maximum((high - low) / 2, 1e-9)) @ towards
    best = vertices[reach >= reach.max() - 2 * _EDGE * np.abs(towards).sum()]
    return (best.min(0) + best.max(0)) / 2


def _names(meshes: Sequence[RealMesh]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for mesh in meshes for name in (*mesh.landmarks, *mesh.utmost)))


def _by_kind(folder: Path) -> dict[str, list[RealMesh]]:
    found = {}
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        joints = folder / f"{place.name}.keypoints.json"
        told = json.loads(joints.read_text(encoding="utf-8"))["keypoints"] if joints.is_file() else {}
        of_kind = about()["kinds"].get(place.name, {})
        meshes = []
        for file in sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES):
            stands = standing(place.name, file.stem)
            turned, symmetry = stands.heading_deg, stands.symmetry
            # A round mesh has no utmost corner, nor has a kind with joints use for one.
            directions = {} if told or symmetry == 0 else of_kind.get("utmost", {})
            meshes.append(RealMesh(place.name, file.stem, file, turned, symmetry, told.get(file.stem, {}), directions))
        if meshes:
            found[place.name] = meshes
    return found


def _keypointnet(folder: Path) -> dict[str, list[RealMesh]]:
    """KeypointNet's models look along −z."""
    found = {}
    for path in sorted((folder / "annotations").glob("*.json")):
        meshes = []
        for model in json.loads(path.read_text(encoding="utf-8")) if path.stem in CLASSES else ():
            file = folder / "ShapeNetCore.v2.ply" / CLASSES[path.stem] / f"{model['model_id']}.ply"
            points = {f"semantic {point['semantic_id']}": point["xyz"] for point in reversed(model["keypoints"])}
            if file.is_file():
                meshes.append(RealMesh(path.stem, str(model["model_id"]), file, 180.0, 1, points))
        if meshes:
            found[path.stem] = meshes
    return found


def headings(count: int) -> list[float]:
    """That many, all round."""
    return [360 * i / count for i in range(count)]


def _planned(kinds: Mapping[str, list[RealMesh]], count: int) -> Iterator[tuple[Path, RealMesh, float]]:
    for kind, meshes in kinds.items():
        discovery, test = split(meshes)
        yield from ((Path(kind, "discovery", mesh.name), mesh, some_heading(mesh)) for mesh in discovery)
        for mesh in test:
            yield from ((Path(kind, "test", f"{mesh.name}_{turn:03.0f}"), mesh, turn) for turn in headings(count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("meshes", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kinds", nargs="+", help="only these")
    parser.add_argument("--headings", type=int, default=12, help="of each mesh for the test")
    parser.add_argument("--size", type=int, default=64, help="pixels of a view")
    args = parser.parse_args()
    kinds = meshes_of(args.meshes)
    if unknown := [kind for kind in args.kinds or () if kind not in kinds]:
        raise SystemExit(f"{args.meshes} holds no {unknown[0]}; it holds {', '.join(kinds)}")
    chosen = {kind: kinds[kind] for kind in args.kinds or kinds}
    for folder, mesh, heading in _planned(chosen, args.headings):
        try:
            write(args.out / folder, mesh, heading, args.size)
        except InputError as error:
            raise SystemExit(str(error)) from None
        print(args.out / folder, flush=True)


if __name__ == "__main__":
    main()
