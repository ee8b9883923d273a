"""Write a detection as files: an overlay picture, and the requested formats."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from keyorbit.detection.found import Detection
from keyorbit.objects.background import CUT_OUT_FILE
from keyorbit.objects.pictures import square, to_uint8
from keyorbit.output.annotations import write_annotations
from keyorbit.output.choices import DEFAULT_FORMATS, DETECTION, Edge, check_edges, parse_formats
from keyorbit.output.coco import coco_dict
from keyorbit.output.colmap import fill_colmap
from keyorbit.output.formats import keypoints_dict, write_csv
from keyorbit.output.meshes import write_points
from keyorbit.output.on_mesh import write_on_mesh
from keyorbit.output.palette import keypoint_name
from keyorbit.output.pictured import Pictured
from keyorbit.output.plotting import draw_keypoints, save_figure
from keyorbit.output.rerun_log import write_rerun
from keyorbit.output.results import ONE
from keyorbit.output.skeleton import co_moving_skeleton
from keyorbit.storage.files import make_folder, write_json
from keyorbit.storage.folder_names import folder_names, readable
from keyorbit.storage.outputs import replaced_folder


def find_skeleton(detections: Sequence[Detection]) -> list[Edge]:
    """Return the edges between keypoints that keep their distance over the detections, in 3D or on the only view."""
    places, seen = zip(*map(skeleton_places, detections), strict=True)
    return co_moving_skeleton(torch.stack(places), torch.stack(seen))


def skeleton_places(detection: Detection) -> tuple[Float[Tensor, "keypoint dim"], Bool[Tensor, " keypoint"]]:
    """Return a detection's keypoints in 3D, or on its only view, and which of them are used for a skeleton."""
    flat, points = detection.keypoints_2d, detection.keypoints_3d
    return (flat.xy[0], flat.score[0] > 0) if points is None else (points.xyz, points.score > 0)


def write_detection(
    folder: Path,
    detection: Detection,
    formats: Sequence[str] = DEFAULT_FORMATS,
    skeleton: Sequence[Edge] = (),
    overwrite: bool = False,
) -> None:
    """Write ``overlay.png``, the pictures that the other files refer to, and the requested formats, or nothing.

    json: ``keypoints.json``; coco: ``coco.json``; glb, ply: ``points.glb``, ``points.ply``; colmap: a folder
    ``colmap``; csv: ``keypoints_2d.csv`` and ``keypoints_3d.csv``; rrd: ``keypoints.rrd``; cvat and labelstudio: as
    :func:`keyorbit.output.annotations.write_annotations`. A single view has no 3D points: the files that hold them
    are not written, nor ``input.png``, which would be the view again. An object that was cut out is in
    ``cutout.png``, transparent elsewhere. Of an object that was rendered from a mesh, keypointnet:
    ``keypointnet.json``, and glb: also ``mesh.glb`` (:mod:`keyorbit.output.on_mesh`). ``overwrite`` replaces what an
    earlier call wrote there.

    Raises:
        InputError: a format is unknown, an edge does not join two keypoints, COLMAP cannot express the cameras, or as
            :func:`keyorbit.storage.outputs.replaced_folder`.
    """
    write_detections(folder, [detection], formats, skeleton, overwrite)


def write_detections(
    folder: Path,
    detections: Sequence[Detection],
    formats: Sequence[str] = DEFAULT_FORMATS,
    skeleton: Sequence[Edge] = (),
    overwrite: bool = False,
) -> list[Path]:
    """Write any number of detections: one in ``folder`` itself, several in folders below it.

    These folders have the objects' names, changed where two would be the same or where some system does not allow the
    name.

    Returns:
        The folder of each detection.

    Raises:
        InputError: as :func:`write_detection`.
    """
    formats = parse_formats(",".join(formats))
    for detection in detections:
        check_edges(skeleton, detection.keypoints_2d.xy.shape[1])
    below = [""] if len(detections) == 1 else folder_names([detection.name for detection in detections])
    with replaced_folder(folder, DETECTION, overwrite) as partial:
        for name, detection in zip(below, detections, strict=True):
            _write_all(make_folder(partial / name), detection, formats, skeleton)
    return [folder / name for name in below]


def write_one_of_several(
    folder: Path, detection: Detection, formats: Sequence[str], skeleton: Sequence[Edge] = (), pictures: bool = True
) -> None:
    """Write a detection's folder among those of others, over what is there of the same object.

    Without ``pictures`` it holds ``keypoints.json`` alone.

    Raises:
        InputError: as :func:`write_detection`.
    """
    with replaced_folder(folder, ONE, overwrite=True) as partial:
        if pictures:
            _write_all(partial, detection, formats, skeleton)
        else:
            write_json(partial / "keypoints.json", detection_dict(detection, skeleton))


def detection_dict(detection: Detection, skeleton: Sequence[Edge] = ()) -> dict[str, Any]:
    """Return what :func:`keypoints_dict` does, with where the picture is from and what the keypoints were made with.

    ``photograph`` has the size of the whole input picture, and the keypoints in its pixels
    (:attr:`keyorbit.Detection.photograph_xy`). Where the kind of object was looked for, it is told too.
    """
    told = keypoints_dict(
        detection.name,
        detection.keypoints_2d,
        detection.keypoints_3d,
        _view_names(detection),
        skeleton,
        detection.input_camera,
        detection.pairs,
        detection.framing,
        detection.confidence,
        detection.withheld,
        detection.names,
    )
    made, source, pixels = detection.made_with, detection.source, detection.photograph_xy
    (width, height), crop = detection.photograph_size, detection.crop
    sides = detection.input_image.size
    told["photograph"] = {
        "file": None if source is None else readable(source.file),
        "width": width,
        "height": height,
        "square": [round(value / sides[i % 2], 6) for i, value in enumerate(crop)],
        "pixels": None if pixels is None else [[round(x, 3) for x in place] for place in pixels.tolist()],
    }
    told["made_with"] = None if made is None else made.to_dict()
    if detection.kinds:
        told["kind"], told["kinds"] = detection.kinds[0][0], {kind: round(p, 6) for kind, p in detection.kinds}
    return told


def _view_names(detection: Detection) -> list[str]:
    return [f"view_{i}" for i in range(len(detection.views))]


def _write_all(folder: Path, detection: Detection, formats: Sequence[str], skeleton: Sequence[Edge]) -> None:
    flat, points = detection.keypoints_2d, detection.keypoints_3d
    names = _view_names(detection)
    if "json" in formats:
        write_json(folder / "keypoints.json", detection_dict(detection, skeleton))
    if "csv" in formats:
        write_csv(folder, detection.name, flat, points, names, detection.names)
    if points is not None:
        for suffix in [name for name in ("glb", "ply") if name in formats]:
            write_points(folder / f"points.{suffix}", points, flat.cameras, skeleton, detection.names)
        if detection.mesh is not None:
            write_on_mesh(folder, detection.mesh, points, formats, detection.names, detection.pairs)
        if "colmap" in formats:
            height, width = detection.views.shape[-2:]
            pictured = [f"{name}.png" for name in names]
            fill_colmap(make_folder(folder / "colmap"), flat, points, width, height, pictured)
    pictures = [to_uint8(view) for view in detection.views]
    if "rrd" in formats:
        write_rerun(folder / "keypoints.rrd", flat, points, pictures, skeleton)
    places, scores = [*flat.xy], [*flat.score]
    if flat.input_xy is not None and flat.input_score is not None:
        names, pictures = ["input", *names], [square(detection.input_square), *pictures]
        places, scores = [flat.input_xy, *places], [flat.input_score, *scores]
    if detection.framing is not None and detection.framing.cut_out_by is not None:
        detection.input_image.save(folder / CUT_OUT_FILE)
    items = []
    for name, picture, xy, score in zip(names, pictures, places, scores, strict=True):
        Image.fromarray(picture).save(folder / f"{name}.png")
        items.append(Pictured.detected(f"{name}.png", picture.shape[1], picture.shape[0], xy, score))
    if "coco" in formats:
        write_json(folder / "coco.json", coco_dict(items, flat.xy.shape[1], skeleton, detection.names))
    own_names = [keypoint_name(k, detection.names) for k in range(flat.xy.shape[1])]
    write_annotations(folder, items, formats, own_names, skeleton)
    titles = [name.replace("_", " ") for name in names]
    camera, crosses = detection.input_camera, None
    if camera is not None and points is not None and float(camera.score) > 0:
        crosses = camera.cameras.project(points.xyz)[0]
    heading = ("", "") if detection.confidence is None else (detection.confidence.words, detection.confidence.color)
    hollow, hidden = not detection.trusted, detection.withheld
    figure = draw_keypoints(pictures, places, scores, titles, crosses, heading, hollow, hidden)
    save_figure(figure, folder / "overlay.png")
