"""Write a detection as a rerun recording (``.rrd``): points in space, cameras, and pictures with keypoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from keyorbit.errors import InputError
from keyorbit.geometry.keypoints import Keypoints2D, Keypoints3D
from keyorbit.output.choices import RERUN, Edge
from keyorbit.output.palette import keypoint_name, palette, rgb
from keyorbit.storage.files import whole_file


def write_rerun(
    path: Path,
    flat: Keypoints2D,
    points: Keypoints3D | None,
    pictures: Sequence[UInt8[ndarray, "height width 3"]],
    skeleton: Sequence[Edge] = (),
) -> None:
    """Write a recording, all of it or nothing. It needs ``pip install 'keyorbit[rerun]'``.

    The world has z up. ``world/keypoints`` has a label and a colour for each keypoint; ``world/view_2/image`` is the
    picture with its keypoints, in pixels from the picture's corner, as in COCO. Keypoints of score 0 are left out.

    Raises:
        InputError: rerun is not installed, or the file cannot be written.
    """
    try:
        import rerun as rr
    except ImportError as error:
        raise InputError(RERUN) from error
    with whole_file(path) as partial:
        recording = rr.RecordingStream("keyorbit", recording_id=path.stem, send_properties=False)
        recording.save(partial)
        recording.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        if points is not None:
            _log_points(rr, recording, points, skeleton)
        for i, picture in enumerate(pictures):
            _log_view(rr, recording, i, flat, picture)
        recording.flush()
        recording.disconnect()


def _log_points(rr: Any, recording: Any, points: Keypoints3D, skeleton: Sequence[Edge]) -> None:
    xyz, kept = points.xyz.cpu().numpy(), _kept(points.score)
    look = _look(len(xyz), kept)
    recording.log("world/keypoints", rr.Points3D(xyz[kept], radii=0.012, **look), static=True)
    bones = [xyz[list(edge)] for edge in skeleton if set(edge) <= set(kept)]
    if bones:
        recording.log("world/skeleton", rr.LineStrips3D(bones), static=True)


def _log_view(
    rr: Any, recording: Any, index: int, flat: Keypoints2D, picture: UInt8[ndarray, "height width 3"]
) -> None:
    entity, (height, width) = f"world/view_{index}", picture.shape[:2]
    cameras = flat.cameras
    if cameras is not None and not cameras.orthographic:
        to_world = np.linalg.inv(cameras.world_to_camera[index].cpu().double().numpy())
        recording.log(entity, rr.Transform3D(translation=to_world[:3, 3], mat3x3=to_world[:3, :3]), static=True)
        matrix = cameras.intrinsics[index].cpu().double().numpy() * [[width], [height], [1]]
        size = [width, height]
        pinhole = rr.Pinhole(image_from_camera=matrix, resolution=size, camera_xyz=rr.ViewCoordinates.RDF)
        recording.log(f"{entity}/image", pinhole, static=True)
    recording.log(f"{entity}/image", rr.Image(picture), static=True)
    kept = _kept(flat.score[index])
    pixels = flat.xy[index].cpu().numpy()[kept] * [width, height]
    look = _look(flat.xy.shape[1], kept)
    recording.log(f"{entity}/image/keypoints", rr.Points2D(pixels, radii=-4.0, **look), static=True)


def _kept(score: Any) -> list[int]:
    return [k for k in range(len(score)) if float(score[k]) > 0]


def _look(count: int, kept: Sequence[int]) -> dict[str, Any]:
    colors = palette(count)
    return {"colors": [rgb(colors[k]) for k in kept], "labels": [keypoint_name(k) for k in kept], "show_labels": False}
