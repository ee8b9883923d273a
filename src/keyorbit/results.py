"""A detection as files: JSON, COCO, the points as GLB, and a picture that shows them."""

import shutil
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from keyorbit.backends.base import on_grey
from keyorbit.detect import Detection
from keyorbit.errors import InputError
from keyorbit.export import coco_dict, keypoints_dict, write_json, write_points
from keyorbit.plotting import draw_keypoints, save_figure


def write_detection(folder: Path, detection: Detection) -> None:
    """Write ``keypoints.json``, ``coco.json``, ``points.glb``, ``overlay.png`` and the pictures they speak of.

    Of a single view there are no 3D points: no ``points.glb``, and no ``input.png``, which would be the view again.

    Everything is written beside ``folder`` first and moved in at the end.

    Raises:
        InputError: the disk refuses.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _write_all(partial, detection)
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(partial.iterdir()):
            path.replace(folder / path.name)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_all(folder: Path, detection: Detection) -> None:
    flat, points = detection.keypoints_2d, detection.keypoints_3d
    names = [f"view_{i}" for i in range(len(detection.views))]
    write_json(folder / "keypoints.json", keypoints_dict(detection.name, flat, points, names, detection.input_camera))
    pictures = [to_uint8(view) for view in detection.views]
    places, scores = [*flat.xy], [*flat.score]
    if flat.input_xy is not None and flat.input_score is not None:
        names, pictures = ["input", *names], [_square(detection.input_image), *pictures]
        places, scores = [flat.input_xy, *places], [flat.input_score, *scores]
    items = []
    for name, picture, xy, score in zip(names, pictures, places, scores, strict=True):
        Image.fromarray(picture).save(folder / f"{name}.png")
        items.append((f"{name}.png", picture.shape[1], picture.shape[0], xy, score))
    write_json(folder / "coco.json", coco_dict(items, flat.xy.shape[1]))
    if points is not None:
        write_points(folder / "points.glb", points, cameras=flat.cameras)
    titles = [name.replace("_", " ") for name in names]
    camera, crosses = detection.input_camera, None
    if camera is not None and points is not None and float(camera.score) > 0:
        crosses = camera.cameras.project(points.xyz)[0]
    save_figure(draw_keypoints(pictures, places, scores, titles, crosses=crosses), folder / "overlay.png")


def to_uint8(view: Tensor) -> UInt8[ndarray, "height width 3"]:
    """A 0…1 picture ``[3 height width]`` as bytes ``[height width 3]``."""
    pixels: ndarray = (view.permute(1, 2, 0).cpu().numpy() * 255).round().clip(0, 255).astype(np.uint8)
    return pixels


def _square(image: Image.Image) -> UInt8[ndarray, "side side 3"]:
    """The middle square of the input picture on grey: what the model sees, and what its input_xy refer to."""
    rgb = on_grey(image)
    side = min(rgb.size)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    return np.asarray(rgb.crop((left, top, left + side, top + side)))
