"""KeypointNet (You et al. 2020): ShapeNet models with landmarks in space, seen by Zero123++'s cameras.

    FOLDER/annotations/chair.json
    FOLDER/ShapeNetCore.v2.ply/03001627/MODEL.ply       coloured meshes, or where one is missing
    FOLDER/pcds/03001627/MODEL.pcd                       coloured points
    FOLDER/splits/train.txt, val.txt, test.txt           lines CLASS-MODEL

ShapeNet's models have y up and look along −z; in our world z is up and they look along +x.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float, UInt8
from msgspec import Meta
from numpy import ndarray
from PIL import Image
from scipy.spatial import cKDTree

from keyorbit.errors import InputError
from keyorbit.evaluation.readers.base import check_split
from keyorbit.evaluation.readers.tables import Coordinate, below, json_rows_of, lines_of, rows_of
from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.objects.dataset import ObjectDataset, ObjectViews, Truth
from keyorbit.synthetic.meshes.files import fit_sphere, read_mesh
from keyorbit.synthetic.meshes.materials import face_colours
from keyorbit.synthetic.meshes.parts import joined
from keyorbit.synthetic.render import Surface, composite, render, sample_surface, visible

CLASSES = {
    "airplane": "02691156",
    "bathtub": "02808440",
    "bed": "02818832",
    "bottle": "02876657",
    "cap": "02954340",
    "car": "02958343",
    "chair": "03001627",
    "guitar": "03467517",
    "helmet": "03513137",
    "knife": "03624134",
    "laptop": "03642806",
    "motorcycle": "03790512",
    "mug": "03797390",
    "skateboard": "04225987",
    "table": "04379243",
    "vessel": "04530566",
}
LISTS = {"train": "train.txt", "validation": "val.txt", "test": "test.txt"}
SURFACE_POINTS = 2048
INPUT_ELEVATION_DEG = 20.0
# A point of a cloud is drawn as a ball that reaches its neighbour of this rank, or one would see through the surface.
_BALL_NEIGHBOUR = 5
# A landmark is hidden if something lies so much before it; with balls, their radius more.
_HIDDEN = 0.03
# Points of a cloud; each becomes a ball of 20 triangles.
_MOST_POINTS = 2**18


@dataclass(frozen=True)
class _Point:
    """A point of a cloud. Its colour is one number, with or without a sign."""

    x: Coordinate
    y: Coordinate
    z: Coordinate
    rgb: Annotated[float, Meta(ge=-(2**31), lt=2**32)]


Place = tuple[Coordinate, Coordinate, Coordinate]


@dataclass(frozen=True)
class _Landmark:
    semantic_id: int
    xyz: Place


@dataclass(frozen=True)
class _Model:
    model_id: int | str
    keypoints: tuple[_Landmark, ...]


def read_keypointnet(folder: Path, split: str, category: str, size: int) -> ObjectDataset:
    """Read the models of one category with landmarks in 2D and 3D. Views of ``size`` pixels are rendered on access.

    A landmark is a semantic id of the category. If a model has several points of one id, the first one counts.

    Raises:
        InputError: a file is missing, the category is unknown, or the ray caster is not installed.
    """
    check_split(split, LISTS, "KeypointNet")
    if category not in CLASSES:
        raise InputError(f"KeypointNet has no category {category!r}; known are {', '.join(CLASSES)}")
    number = CLASSES[category]
    path = folder / "annotations" / f"{category}.json"
    told = json_rows_of(path, _Model, "KeypointNet")
    landmarks = {str(model.model_id): {k.semantic_id: k.xyz for k in reversed(model.keypoints)} for model in told}
    listed = folder / "splits" / LISTS[split]
    lines = [line.strip().partition("-") for _, line in lines_of(listed, "KeypointNet")]
    models = [model for kind, _, model in lines if kind == number and model in landmarks]
    if not models:
        raise InputError(f"{listed} names no {category} that {path.name} has landmarks of")
    files = [_file(folder, number, model, str(listed)) for model in models]
    ids = sorted({i for points in landmarks.values() for i in points})
    return ObjectDataset(len(models), partial(_model_at, models, files, landmarks, ids, size))


def _file(folder: Path, number: str, model: str, where: str) -> Path:
    mesh = below(folder / "ShapeNetCore.v2.ply" / number, f"{model}.ply", where)
    cloud = below(folder / "pcds" / number, f"{model}.pcd", where)
    if not mesh.is_file() and not cloud.is_file():
        raise InputError(f"KeypointNet lacks the model {model}: there is neither {mesh} nor {cloud}")
    return mesh if mesh.is_file() else cloud


def _model_at(
    models: Sequence[str],
    files: Sequence[Path],
    landmarks: Mapping[str, dict[int, Place]],
    ids: list[int],
    size: int,
    i: int,
) -> ObjectViews:
    return _object(models[i], files[i], landmarks[models[i]], ids, size)


def _object(name: str, path: Path, places: dict[int, Place], ids: list[int], size: int) -> ObjectViews:
    import trimesh

    vertices, faces, colors = read_pcd(path) if path.suffix == ".pcd" else _read_mesh(path)
    vertices = _upright(vertices)
    centre, scale = fit_sphere(vertices, str(path))
    vertices = (vertices - centre) * scale
    known = np.array([i in places for i in ids])
    wanted = np.array([places.get(i, (0.0, 0.0, 0.0)) for i in ids], float).reshape(-1, 3)
    points = np.where(known[:, None], (_upright(wanted) - centre) * scale, 0.0)
    radius = 0.0
    if faces is None:
        radius = _ball_radius(vertices)
        surface, spread = _balls(vertices, colors, radius), vertices
    else:
        surface = Surface(trimesh.Trimesh(vertices, faces, process=False), colors)
        spread = sample_surface(surface, SURFACE_POINTS, 0)
    truth = (points, known, spread, tuple(f"semantic {i}" for i in ids))
    return _seen(name, surface, truth, size, _HIDDEN + radius)


def _seen(
    name: str, surface: Surface, told: tuple[ndarray, ndarray, ndarray, tuple[str, ...]], size: int, tolerance: float
) -> ObjectViews:
    points, known, spread, names = told
    front, around = orbit_cameras([0.0], [INPUT_ELEVATION_DEG]), zero123plus_cameras("v1.2")
    cameras = front.join(around)
    pictures = render(surface, cameras, size)
    places = torch.from_numpy(points).float()
    truth = Truth(
        names,
        (),
        places,
        torch.from_numpy(known),
        cameras.project(places),
        torch.from_numpy(visible(surface, points, cameras, tolerance) & known),
        surface=torch.from_numpy(spread).float(),
    )
    views = torch.from_numpy(composite(pictures[1:])).movedim(-1, 1).float() / 255
    masks = torch.from_numpy(pictures[1:, ..., 3] > 127)
    picture = Image.fromarray(composite(pictures[0]))
    return ObjectViews(name, picture, views, masks, around, "", truth, INPUT_ELEVATION_DEG)


def _upright(points: Float[ndarray, "point 3"]) -> Float[ndarray, "point 3"]:
    """Rotate (x, y, z) with y up and front −z so that z is up and the front is +x."""
    return np.stack([-points[:, 2], -points[:, 0], points[:, 1]], 1)


def _read_mesh(path: Path) -> tuple[ndarray, ndarray, ndarray]:
    """Read vertices, faces and the faces' colours, 0…1."""
    vertices, faces, look = joined(read_mesh(path).parts)
    return vertices, faces, face_colours(look)


def read_pcd(path: Path) -> tuple[Float[ndarray, "point 3"], None, Float[ndarray, "point 3"]]:
    """Read points and colours (0…1) of an ASCII .pcd file with the fields x y z rgb, as in KeypointNet; no faces.

    Raises:
        InputError: it is another kind of file.
    """
    lines = lines_of(path, "KeypointNet")
    starts = [i for i, (_, line) in enumerate(lines) if line.strip() == "DATA ascii"]
    if not starts or "FIELDS x y z rgb" not in (line.strip() for _, line in lines):
        raise InputError(f"{path} is no ASCII .pcd file with the fields x y z rgb")
    points = rows_of(path, _Point, "KeypointNet", skip=starts[0] + 1)
    if not points:
        raise InputError(f"{path} holds no points")
    if len(points) > _MOST_POINTS:
        raise InputError(f"{path} holds {len(points):,} points; it may hold {_MOST_POINTS:,}: thin them out")
    rows = np.array([(point.x, point.y, point.z, point.rgb) for point in points])
    return rows[:, :3], None, _unpacked(rows[:, 3].astype(np.int64)) / 255


def _unpacked(packed: ndarray) -> UInt8[ndarray, "point 3"]:
    """Unpack red, green and blue from one number each."""
    return np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], 1).astype(np.uint8)


def _ball_radius(points: ndarray) -> float:
    neighbours = min(_BALL_NEIGHBOUR + 1, len(points))
    return max(float(np.median(cKDTree(points).query(points, k=[neighbours])[0])), 1e-3)


def _balls(points: ndarray, colors: ndarray, radius: float) -> Surface:
    """Make a mesh from a point cloud: a small ball at each point."""
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=0, radius=radius)
    vertices = (points[:, None] + ball.vertices[None]).reshape(-1, 3)
    faces = (ball.faces[None] + len(ball.vertices) * np.arange(len(points))[:, None, None]).reshape(-1, 3)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    return Surface(mesh, np.repeat(colors, len(ball.faces), axis=0))
