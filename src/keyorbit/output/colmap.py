"""Write cameras and 3D keypoints as a COLMAP text model: cameras.txt, images.txt and points3D.txt."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.keypoints import Keypoints2D, Keypoints3D
from keyorbit.output.palette import palette, rgb
from keyorbit.storage.files import write_text
from keyorbit.storage.outputs import OutputKind, replaced_folder

COLMAP = OutputKind("COLMAP model")


def write_colmap(
    folder: Path,
    flat: Keypoints2D,
    points: Keypoints3D,
    width: int,
    height: int,
    image_names: Sequence[str],
) -> None:
    """Write a COLMAP text model of views of width × height pixels, in a folder of its own.

    Raises:
        InputError: as :func:`fill_colmap`, or as :func:`keyorbit.storage.outputs.replaced_folder`.
    """
    with replaced_folder(folder, COLMAP) as partial:
        fill_colmap(partial, flat, points, width, height, image_names)


def fill_colmap(
    folder: Path, flat: Keypoints2D, points: Keypoints3D, width: int, height: int, image_names: Sequence[str]
) -> None:
    """Write the model's three files into a folder.

    The middle of the first pixel is at (0.5, 0.5) in COLMAP, so that pixels are xy·n, as in COCO. POINT3D_ID and
    POINT2D_IDX are the keypoint's number; IMAGE_ID counts from 1. Every keypoint is listed in every image. Where its
    score is 0, in the view or in space, it has no 3D point there (−1). ERROR is the mean over the track, in pixels.
    Source: COLMAP's documentation, "Output Format".

    Raises:
        InputError: the cameras are unknown, orthographic or skewed, or a file cannot be written.
    """
    cameras = _pinholes(flat.cameras)
    rows, camera_ids = _cameras(cameras, width, height)
    tracked = ((flat.score > 0) & (points.score > 0)).cpu()
    size = torch.tensor([width, height], dtype=torch.float64)
    pixels = flat.xy.cpu().double() * size
    _write(folder / "cameras.txt", "CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]", rows)
    images = _images(cameras, camera_ids, pixels, tracked, image_names)
    _write(folder / "images.txt", "IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME\n# POINTS2D[]", images)
    away = cameras.project(points.xyz.cpu().double()) * size - pixels
    header = "POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)"
    _write(folder / "points3D.txt", header, _points(points, away.norm(dim=-1), tracked))


def _pinholes(cameras: Cameras | None) -> Cameras:
    if cameras is None:
        raise InputError("a COLMAP model needs cameras, and these keypoints have none; leave out the format colmap")
    if cameras.orthographic:
        raise InputError("COLMAP has no orthographic camera, and this rig is orthographic; leave out the format colmap")
    if (cameras.intrinsics[:, 0, 1].abs() > 1e-9).any():
        raise InputError("COLMAP's pinhole cameras have no skew, and these cameras do; leave out the format colmap")
    return cameras.to("cpu").to(dtype=torch.float64)


def _cameras(cameras: Cameras, width: int, height: int) -> tuple[list[str], list[int]]:
    """Return one row for each distinct camera, and the CAMERA_ID of every view."""
    ids: dict[str, int] = {}
    chosen = []
    for matrix in cameras.intrinsics:
        across, down = float(matrix[0, 0]) * width, float(matrix[1, 1]) * height
        middle = (float(matrix[0, 2]) * width, float(matrix[1, 2]) * height)
        if abs(across - down) <= 1e-9 * across:
            row = f"SIMPLE_PINHOLE {width} {height} {_numbers((across, *middle))}"
        else:
            row = f"PINHOLE {width} {height} {_numbers((across, down, *middle))}"
        chosen.append(ids.setdefault(row, len(ids) + 1))
    return [f"{number} {row}" for row, number in ids.items()], chosen


def _images(
    cameras: Cameras,
    camera_ids: Sequence[int],
    pixels: Float[Tensor, "view keypoint 2"],
    tracked: Bool[Tensor, "view keypoint"],
    names: Sequence[str],
) -> list[str]:
    rows = []
    for i, rigid in enumerate(cameras.world_to_camera.numpy()):
        x, y, z, w = Rotation.from_matrix(rigid[:3, :3]).as_quat(canonical=True)
        rows.append(f"{i + 1} {_numbers((w, x, y, z, *rigid[:3, 3]))} {camera_ids[i]} {names[i]}")
        found = zip(pixels[i].tolist(), tracked[i].tolist(), strict=True)
        rows.append(" ".join(f"{_numbers(xy)} {k if has else -1}" for k, (xy, has) in enumerate(found)))
    return rows


def _points(
    points: Keypoints3D, error: Float[Tensor, "view keypoint"], tracked: Bool[Tensor, "view keypoint"]
) -> list[str]:
    rows = []
    for k, color in enumerate(palette(len(points.score))):
        views = tracked[:, k].nonzero()[:, 0]
        if len(views):
            bytes_ = " ".join(map(str, rgb(color)))
            track = " ".join(f"{int(i) + 1} {k}" for i in views)
            rows.append(f"{k} {_numbers(points.xyz[k].tolist())} {bytes_} {float(error[views, k].mean()):.6g} {track}")
    return rows


def _write(path: Path, header: str, rows: Sequence[str]) -> None:
    write_text(path, "".join(f"{row}\n" for row in (f"# {header}", *rows)))


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{float(value):.12g}" for value in values)
