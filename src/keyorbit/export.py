"""Keypoints in the formats of other tools: JSON, COCO, GLB and PLY. Files are written whole or not at all."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float
from matplotlib.colors import to_rgb
from torch import Tensor

from keyorbit.cameras import Cameras
from keyorbit.errors import InputError
from keyorbit.keypoints import Keypoints2D, Keypoints3D
from keyorbit.plotting import palette
from keyorbit.pose import InputCamera

FORMAT = "keyorbit-keypoints-1"
# glTF is y-up: (x, y, z) of our z-up world is (x, z, -y) there.
TO_Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
_RADIUS = 0.012


def write_json(path: Path, data: Any) -> None:
    """Write JSON.

    Raises:
        InputError: the data holds a number that is not finite, or the disk refuses.
    """
    try:
        text = json.dumps(data, indent=1, allow_nan=False) + "\n"
    except ValueError as error:
        raise InputError(f"{path} would hold numbers that are not finite") from error
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        InputError: the disk refuses.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error}") from error


def keypoints_dict(
    name: str,
    flat: Keypoints2D,
    points: Keypoints3D | None,
    view_names: Sequence[str],
    input_camera: InputCamera | None = None,
) -> dict[str, Any]:
    """One object's keypoints: in every view (unit square), and in 3D (world units), with the cameras."""
    colors = palette(flat.xy.shape[1])
    keypoints: list[dict[str, Any]] = [{"index": i, "color": color} for i, color in enumerate(colors)]
    if points is not None:
        for i, entry in enumerate(keypoints):
            entry["xyz"] = _rounded(points.xyz[i])
            entry["score"] = _rounded(points.score[i])
            entry["reprojection_error"] = _rounded(points.reprojection_error[i])
    views = [
        {"name": view_names[i], "xy": _rounded(flat.xy[i]), "score": _rounded(flat.score[i])}
        | ({} if points is None else {"residual": _rounded(points.residual[i])})
        for i in range(len(flat.xy))
    ]
    given = None
    if flat.input_xy is not None and flat.input_score is not None:
        given = {"xy": _rounded(flat.input_xy), "score": _rounded(flat.input_score)}
    return {
        "format": FORMAT,
        "object": name,
        "coordinates": "xy: unit square of a view, x right, y down, pixel i of n centred at (i+0.5)/n; "
        "xyz: world, z up, the input view at azimuth 0; errors: fraction of a view's side",
        "keypoints": keypoints,
        "input": given,
        "input_camera": None if input_camera is None else input_camera.to_dict(),
        "views": views,
        "cameras": None if flat.cameras is None else flat.cameras.to_dict(),
    }


def coco_dict(
    items: Sequence[tuple[str, int, int, Float[Tensor, "keypoint 2"], Float[Tensor, " keypoint"]]],
    num_keypoints: int,
    threshold: float = 0.1,
) -> dict[str, Any]:
    """Pictures (file, width, height, xy, score) as a COCO keypoint file.

    COCO counts pixels from the picture's corner: x = xy·width, so the middle of the first pixel is 0.5. Keypoints of
    a score below ``threshold`` are not labelled (v = 0).
    """
    names = [f"keypoint_{i:02d}" for i in range(num_keypoints)]
    images, annotations = [], []
    for i, (file, width, height, xy, score) in enumerate(items, 1):
        images.append({"id": i, "file_name": file, "width": width, "height": height})
        pixels = xy.double().numpy() * [width, height]
        shown = score.numpy() >= threshold
        flat = [[*np.round(p, 3).tolist(), 2] if s else [0, 0, 0] for p, s in zip(pixels, shown, strict=True)]
        low, high = (pixels[shown].min(0), pixels[shown].max(0)) if shown.any() else (np.zeros(2), np.zeros(2))
        size = high - low
        annotations.append(
            {
                "id": i,
                "image_id": i,
                "category_id": 1,
                "keypoints": [value for point in flat for value in point],
                "num_keypoints": int(shown.sum()),
                "bbox": np.round([*low, *size], 3).tolist(),
                "area": round(float(size[0] * size[1]), 3),
                "iscrowd": 0,
            }
        )
    category = {"id": 1, "name": "object", "keypoints": names, "skeleton": []}
    return {"images": images, "annotations": annotations, "categories": [category]}


def write_points(path: Path, points: Keypoints3D, cameras: Cameras | None = None) -> None:
    """Write the 3D keypoints as ``.glb`` (named coloured spheres, camera frusta; y up) or ``.ply`` (points; z up).

    Points of score 0 are left out.

    Raises:
        InputError: another suffix, or the disk refuses.
    """
    kept = [i for i in range(len(points.score)) if float(points.score[i]) > 0]
    colors = [(*(np.array(to_rgb(color)) * 255).astype(int).tolist(), 255) for color in palette(len(points.score))]
    xyz = points.xyz.double().numpy()
    if path.suffix == ".ply":
        data = trimesh.PointCloud(xyz[kept], colors=[colors[i] for i in kept]).export(file_type="ply")
    elif path.suffix == ".glb":
        data = _scene(xyz, kept, colors, cameras).export(file_type="glb")
    else:
        raise InputError(f"{path} is neither .glb nor .ply")
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error}") from error


def _scene(xyz: Any, kept: Sequence[int], colors: Sequence[Any], cameras: Cameras | None) -> Any:
    scene = trimesh.Scene()
    for i in kept:
        ball = trimesh.creation.icosphere(subdivisions=1, radius=_RADIUS)
        ball.visual.face_colors = colors[i]
        place = np.eye(4)
        place[:3, 3] = xyz[i]
        name = f"keypoint_{i:02d}"
        scene.add_geometry(ball, node_name=name, geom_name=name, transform=TO_Y_UP @ place)
    for i in range(0 if cameras is None else len(cameras)):
        assert cameras is not None
        lines = trimesh.load_path(_frustum(cameras, i))
        scene.add_geometry(lines, node_name=f"camera_{i}", geom_name=f"camera_{i}", transform=TO_Y_UP)
    return scene


def _frustum(cameras: Cameras, index: int, depth: float = 0.15) -> Any:
    """Line segments [8 2 3] from the camera's centre to the corners of its picture, and round the picture."""
    corners = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], float)
    inverse = np.linalg.inv(cameras.intrinsics[index].double().numpy())
    to_world = np.linalg.inv(cameras.world_to_camera[index].double().numpy())
    rim = (depth * corners @ inverse.T) @ to_world[:3, :3].T + to_world[:3, 3]
    tip = np.broadcast_to(to_world[:3, 3], rim.shape)
    return np.concatenate([np.stack([tip, rim], 1), np.stack([rim, np.roll(rim, -1, 0)], 1)])


def _rounded(values: Tensor) -> Any:
    return np.round(values.detach().double().cpu().numpy(), 6).tolist()
