"""Write a detection as files: an overlay picture, and the requested formats."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from keyorbit.detection.found import Detection
from keyorbit.objects.background import CUT_OUT_FILE
from keyorbit.objects.pictures import square, to_uint8
from keyorbit.output.choices import DEFAULT_FORMATS, DETECTION, Edge, check_edges, parse_formats
from keyorbit.output.colmap import fill_colmap
from keyorbit.output.cvat import cvat_labels, cvat_xml
from keyorbit.output.formats import coco_dict, keypoints_dict, write_csv
from keyorbit.output.label_studio import label_studio_config, label_studio_tasks
from keyorbit.output.meshes import write_points
from keyorbit.output.on_mesh import write_on_mesh
from keyorbit.output.palette import keypoint_name, palette
from keyorbit.output.pictured import Pictured
from keyorbit.output.plotting import draw_keypoints, save_figure
from keyorbit.output.rerun_log import write_rerun
from keyorbit.output.skeleton import co_moving_skeleton
from keyorbit.storage.files import make_folder, write_json, write_text
from keyorbit.storage.folder_names import folder_names, readable
from keyorbit.storage.outputs import replaced_folder


def find_skeleton(detections: Sequence[Detection]) -> list[Edge]:
    """Return the edges between keypoints that keep their distance over the detections, in 3D or on the only view."""
    places, seen = [], []
    for detection in detections:
        flat, points = detection.keypoints_2d, detection.keypoints_3d
        places.append(flat.xy[0] if points is None else points.xyz)
        seen.append((flat.score[0] if points is None else points.score) > 0)
    return co_moving_skeleton(torch.stack(places), torch.stack(seen))


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
    :func:`write_annotations`. A single view has no 3D points: the files that hold them are not written, nor
    ``input.png``, which would be the view again. An object that was cut out is in ``cutout.png``, transparent
    elsewhere. Of an object that was rendered from a mesh, keypointnet: ``keypointnet.json``, and glb: also ``mesh.glb``
    (:mod:`keyorbit.output.on_mesh`). ``overwrite`` replaces what an earlier call wrote there.

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


def write_annotations(
    folder: Path, items: Sequence[Pictured], formats: Sequence[str], names: Sequence[str], skeleton: Sequence[Edge] = ()
) -> None:
    """Write what annotation tools import, of those formats that are theirs.

    cvat: ``cvat.xml``, "CVAT for images 1.1", and ``cvat_labels.json`` for the constructor of labels; labelstudio:
    ``label_studio.json``, the tasks, and ``label_studio.xml``, the labelling interface.

    Raises:
        InputError: a file cannot be written.
    """
    colors = palette(len(names))
    if "cvat" in formats:
        write_text(folder / "cvat.xml", cvat_xml(items, names, colors, skeleton))
        write_text(folder / "cvat_labels.json", cvat_labels(items, names, colors, skeleton))
    if "labelstudio" in formats:
        write_json(folder / "label_studio.json", label_studio_tasks(items, names))
        write_text(folder / "label_studio.xml", label_studio_config(names, colors))


def detection_dict(detection: Detection, view_names: Sequence[str], skeleton: Sequence[Edge] = ()) -> dict[str, Any]:
    """Return what :func:`keypoints_dict` does, with where the picture is from and what the keypoints were made with.

    ``photograph`` has the size of the whole input picture, and the keypoints in its pixels
    (:attr:`keyorbit.Detection.photograph_xy`).
    """
    flat, points = detection.keypoints_2d, detection.keypoints_3d
    told = keypoints_dict(
        detection.name,
        flat,
        points,
        view_names,
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
    return told


def _write_all(folder: Path, detection: Detection, formats: Sequence[str], skeleton: Sequence[Edge]) -> None:
    flat, points = detection.keypoints_2d, detection.keypoints_3d
    names = [f"view_{i}" for i in range(len(detection.views))]
    if "json" in formats:
        write_json(folder / "keypoints.json", detection_dict(detection, names, skeleton))
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
        items.append((f"{name}.png", picture.shape[1], picture.shape[0], xy, score))
    if "coco" in formats:
        write_json(folder / "coco.json", coco_dict(items, flat.xy.shape[1], skeleton, detection.names))
    annotated = [Pictured.detected(*item) for item in items]
    own_names = [keypoint_name(k, detection.names) for k in range(flat.xy.shape[1])]
    write_annotations(folder, annotated, formats, own_names, skeleton)
    titles = [name.replace("_", " ") for name in names]
    camera, crosses = detection.input_camera, None
    if camera is not None and points is not None and float(camera.score) > 0:
        crosses = camera.cameras.project(points.xyz)[0]
    heading = ("", "") if detection.confidence is None else (detection.confidence.words, detection.confidence.color)
    hollow, hidden = not detection.trusted, detection.withheld
    figure = draw_keypoints(pictures, places, scores, titles, crosses, heading, hollow, hidden)
    save_figure(figure, folder / "overlay.png")
