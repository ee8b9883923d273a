"""Keypoints in the formats of other tools: JSON, COCO and CSV. Files are written whole or not at all."""

import csv
import io
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from keyorbit.errors import InputError
from keyorbit.keypoints import Keypoints2D, Keypoints3D
from keyorbit.palette import keypoint_name, palette
from keyorbit.pose import InputCamera
from keyorbit.skeleton import Edge, check_edges

FORMAT = "keyorbit-keypoints-1"
log = logging.getLogger(__name__)


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
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        InputError: the disk refuses.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        InputError: the disk refuses.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error}") from error
    if not any(parent.suffix == ".partial" for parent in path.parents):  # `whole_folder` tells where those end
        log.info("wrote %s", path)


def make_folder(folder: Path) -> Path:
    """The folder, made if it is not there.

    Raises:
        InputError: the disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error}") from error
    return folder


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write in, which becomes ``folder`` at the end of the block, or is removed if the block fails.

    Where ``folder`` is there already, the new files are moved into it and others stay.

    Raises:
        InputError: the disk refuses.
    """
    target = folder.resolve()
    partial = target.with_name(target.name + ".partial")
    missing = [parent for parent in partial.parents if not parent.exists()]
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        names = sorted(path.name for path in partial.iterdir())
        _move(partial, target)
        log.info("wrote %s: %s", folder, ", ".join(names))
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in missing:
            with suppress(OSError):  # it holds what was written
                parent.rmdir()


def _move(source: Path, target: Path) -> None:
    if source.is_dir() and target.is_dir():
        for path in sorted(source.iterdir()):
            _move(path, target / path.name)
    else:
        source.replace(target)


def keypoints_dict(
    name: str,
    flat: Keypoints2D,
    points: Keypoints3D | None,
    view_names: Sequence[str],
    skeleton: Sequence[Edge] = (),
    input_camera: InputCamera | None = None,
    pairs: Sequence[tuple[int, int]] = (),
) -> dict[str, Any]:
    """One object's keypoints: in every view (unit square), and in 3D (world units), with the cameras.

    ``pairs``: keypoints that mark mirror images of each other. See :class:`Keypoints3D` for what the numbers mean.
    """
    colors = palette(flat.xy.shape[1])
    keypoints: list[dict[str, Any]] = [
        {"index": i, "name": keypoint_name(i), "color": color} for i, color in enumerate(colors)
    ]
    if points is not None:
        for i, entry in enumerate(keypoints):
            entry["xyz"] = _rounded(points.xyz[i])
            entry["score"] = _rounded(points.score[i])
            entry["reprojection_error"] = _rounded(points.reprojection_error[i])
            # Without two views that agree the covariance is infinite, which JSON has no word for.
            if points.covariance is not None and points.covariance[i].isfinite().all():
                entry["covariance"] = points.covariance[i].double().tolist()
    views = []
    for i in range(len(flat.xy)):
        view = {"name": view_names[i], "xy": _rounded(flat.xy[i]), "score": _rounded(flat.score[i])}
        if points is not None:
            view["residual"] = _rounded(points.residual[i])
            if points.visible is not None:
                view["visible"] = points.visible[i].tolist()
        views.append(view)
    given = None
    if flat.input_xy is not None and flat.input_score is not None:
        given = {"xy": _rounded(flat.input_xy), "score": _rounded(flat.input_score)}
    return {
        "format": FORMAT,
        "object": name,
        "coordinates": "xy: unit square of a view, x right, y down, pixel i of n centred at (i+0.5)/n; "
        "xyz: world, z up, the input view at azimuth 0; errors: fraction of a view's side",
        "keypoints": keypoints,
        "skeleton": [list(edge) for edge in skeleton],
        "pairs": [list(pair) for pair in pairs],
        "input": given,
        "input_camera": None if input_camera is None else input_camera.to_dict(),
        "views": views,
        "cameras": None if flat.cameras is None else flat.cameras.to_dict(),
    }


def coco_dict(
    items: Sequence[tuple[str, int, int, Float[Tensor, "keypoint 2"], Float[Tensor, " keypoint"]]],
    num_keypoints: int,
    threshold: float = 0.1,
    skeleton: Sequence[Edge] = (),
) -> dict[str, Any]:
    """Pictures (file, width, height, xy, score) as a COCO keypoint file.

    COCO counts pixels from the picture's corner: x = xy·width, so the middle of the first pixel is 0.5. Keypoints of
    a score below ``threshold`` are not labelled (v = 0); box and area are those of the others, and the annotation's
    score is their mean. The skeleton counts keypoints from 1, as COCO does. ``keypoint_colors`` is our addition.

    Raises:
        InputError: an edge of the skeleton joins no two keypoints.
    """
    check_edges(skeleton, num_keypoints)
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
                "score": round(float(score.numpy()[shown].mean()), 6) if shown.any() else 0.0,
            }
        )
    category = {
        "id": 1,
        "name": "object",
        "supercategory": "object",
        "keypoints": [keypoint_name(k) for k in range(num_keypoints)],
        "skeleton": [[first + 1, second + 1] for first, second in skeleton],
        "keypoint_colors": palette(num_keypoints),
    }
    info = {"description": "keypoints found without labels", "version": version("keyorbit"), "contributor": "keyorbit"}
    return {"info": info, "licenses": [], "images": images, "annotations": annotations, "categories": [category]}


def write_csv(
    folder: Path, name: str, flat: Keypoints2D, points: Keypoints3D | None, view_names: Sequence[str]
) -> None:
    """Write ``keypoints_2d.csv``, one row a view and keypoint, and where there is 3D ``keypoints_3d.csv``.

    xy in the unit square of the view, xyz in the world, errors as fractions of a view's side, as in the JSON file. The
    input picture is the view ``input``.

    Raises:
        InputError: the disk refuses.
    """
    views = list(zip(view_names, flat.xy, flat.score, strict=True))
    if flat.input_xy is not None and flat.input_score is not None:
        views.insert(0, ("input", flat.input_xy, flat.input_score))
    rows = [
        [name, view, k, *_rounded(xy[k]), _rounded(score[k])] for view, xy, score in views for k in range(len(score))
    ]
    write_text(folder / "keypoints_2d.csv", _table(["object", "view", "keypoint", "x", "y", "score"], rows))
    if points is not None:
        columns = zip(points.xyz, points.score, points.reprojection_error, strict=True)
        rows = [
            [name, k, *_rounded(xyz), _rounded(score), _rounded(error)] for k, (xyz, score, error) in enumerate(columns)
        ]
        header = ["object", "keypoint", "x", "y", "z", "score", "reprojection_error"]
        write_text(folder / "keypoints_3d.csv", _table(header, rows))


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def _rounded(values: Tensor) -> Any:
    return np.round(values.detach().double().cpu().numpy(), 6).tolist()
