"""Keypoints as a file of COCO, which most annotation tools read."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from keyorbit.output.choices import Edge, check_edges
from keyorbit.output.palette import keypoint_name, palette
from keyorbit.output.pictured import Pictured


def coco_dict(
    items: Sequence[Pictured], num_keypoints: int, skeleton: Sequence[Edge] = (), names: Sequence[str] = ()
) -> dict[str, Any]:
    """Return pictures with their keypoints as the content of a COCO keypoint file.

    COCO counts pixels from the picture's corner: x = xy·width, so that the middle of the first pixel is 0.5. Keypoints
    without a place are not labelled (v = 0), hidden ones have v = 1. Box and area are those of the other keypoints, at
    least a pixel a side, and the annotation's score is their mean, unless a person has reviewed them; a picture without
    any has no annotation. The skeleton counts keypoints from 1, as COCO does. ``keypoint_colors`` is an addition of
    ours.

    Raises:
        InputError: an edge of the skeleton does not join two keypoints.
    """
    check_edges(skeleton, num_keypoints)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, item in enumerate(items, 1):
        images.append({"id": i, "file_name": item.file, "width": item.width, "height": item.height})
        pixels, shown = item.xy.astype(np.float64) * [item.width, item.height], item.found
        if not shown.any():
            continue
        seen = np.where(item.hidden, 1, 2).tolist()
        flat = [[*np.round(p, 3).tolist(), v] if s else [0, 0, 0] for p, s, v in zip(pixels, shown, seen, strict=True)]
        low, size = _box(pixels[shown], item.width, item.height)
        annotation = {
            "id": i,
            "image_id": i,
            "category_id": 1,
            "segmentation": [],  # which Datumaro and CVAT ask for
            "keypoints": [value for point in flat for value in point],
            "num_keypoints": int(shown.sum()),
            "bbox": np.round([*low, *size], 3).tolist(),
            "area": round(float(size[0] * size[1]), 3),
            "iscrowd": 0,
        }
        if not item.reviewed:
            annotation["score"] = round(float(item.score[shown].mean()), 6)
        annotations.append(annotation)
    category = {
        "id": 1,
        "name": "object",
        "supercategory": "",  # with one, Datumaro takes it for a part of another category
        "keypoints": [keypoint_name(k, names) for k in range(num_keypoints)],
        "skeleton": [[first + 1, second + 1] for first, second in skeleton],
        "keypoint_colors": palette(num_keypoints),
    }
    info = {"description": "keypoints found without labels", "version": version("keyorbit"), "contributor": "keyorbit"}
    return {"info": info, "licenses": [], "images": images, "annotations": annotations, "categories": [category]}


def _box(
    pixels: Float64[ndarray, "keypoint 2"], width: int, height: int
) -> tuple[Float64[ndarray, "2"], Float64[ndarray, "2"]]:
    """Return the corner and the size of the keypoints' box, at least a pixel a side and within the picture."""
    low, high = pixels.min(0), pixels.max(0)
    size = np.maximum(high - low, 1.0)
    return np.clip((low + high - size) / 2, 0, np.maximum([width, height] - size, 0)), size
