"""Keypoints as JSON and CSV."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from keyorbit.detection.confidence import Confidence
from keyorbit.detection.input_camera import InputCamera
from keyorbit.geometry.keypoints import Keypoints2D, Keypoints3D
from keyorbit.objects.framing import Framing
from keyorbit.output.choices import Edge
from keyorbit.output.palette import keypoint_name, palette
from keyorbit.storage.files import write_text
from keyorbit.storage.folder_names import readable

FORMAT = "keyorbit-keypoints-1"
# With these, also in full width, a cell begins that spreadsheets compute.
_FORMULA = tuple("=+-@＝＋－＠")


def keypoints_dict(
    name: str,
    flat: Keypoints2D,
    points: Keypoints3D | None,
    view_names: Sequence[str],
    skeleton: Sequence[Edge] = (),
    input_camera: InputCamera | None = None,
    pairs: Sequence[tuple[int, int]] = (),
    framing: Framing | None = None,
    confidence: Confidence | None = None,
    withheld: Sequence[int] = (),
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """Return one object's keypoints, in every view (unit square) and in 3D (world units), with the cameras.

    ``pairs`` are keypoints that mark mirror images of each other. ``framing`` tells which square of the input picture
    its places are in, and which one the model was shown. ``confidence`` tells how far to trust each keypoint and the
    whole object. ``withheld`` are keypoints of too little of it. ``names`` are the keypoints' own, if they have some.
    The other numbers are those of :class:`Keypoints3D`.
    """
    colors = palette(flat.xy.shape[1])
    keypoints: list[dict[str, Any]] = [
        {"index": i, "name": keypoint_name(i, names), "color": color} for i, color in enumerate(colors)
    ]
    if points is not None:
        for i, entry in enumerate(keypoints):
            entry["xyz"] = _rounded(points.xyz[i])
            entry["score"] = _rounded(points.score[i])
            entry["reprojection_error"] = _rounded(points.reprojection_error[i])
            # Without two views that agree the covariance is infinite, which JSON has no word for.
            if points.covariance is not None and points.covariance[i].isfinite().all():
                entry["covariance"] = points.covariance[i].cpu().double().tolist()
    if confidence is not None:
        for entry, value in zip(keypoints, confidence.keypoints, strict=True):
            entry["confidence"] = _rounded(value)
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
        if framing is not None:
            boxes = {"square": framing.shares(framing.shown), "seen": framing.shares(framing.seen)}
            given |= boxes | {"recentred": framing.recentred}
            given |= {} if framing.cut_out_by is None else {"cut_out_by": framing.cut_out_by}
    return {
        "format": FORMAT,
        "object": name,
        "coordinates": "xy: unit square of a view, x right, y down, pixel i of n centred at (i+0.5)/n; "
        "xyz: world, z up, the input view at azimuth 0; errors: fraction of a view's side; input: unit square of "
        "'square', which like 'seen' is left, top, right, bottom in widths and heights of the input picture; "
        "pixels: of the whole photograph, upright, from its corner, the middle of the first pixel at 0.5",
        "confidence": None if confidence is None else confidence.to_dict(),
        "withheld": list(withheld),
        "keypoints": keypoints,
        "skeleton": [list(edge) for edge in skeleton],
        "pairs": [list(pair) for pair in pairs],
        "input": given,
        "input_camera": None if input_camera is None else input_camera.to_dict(),
        "views": views,
        "cameras": None if flat.cameras is None else flat.cameras.to_dict(),
    }


def write_csv(
    folder: Path,
    name: str,
    flat: Keypoints2D,
    points: Keypoints3D | None,
    view_names: Sequence[str],
    names: Sequence[str] = (),
) -> None:
    """Write ``keypoints_2d.csv``, a row for each view and keypoint, and ``keypoints_3d.csv`` if there is 3D.

    A name that a spreadsheet would take for a formula begins with an apostrophe, which spreadsheets do not show.

    xy is in the unit square of the view, xyz in the world, and errors are in sides of the view, as in the JSON file.
    The input picture is the view ``input``. Where keypoints have ``names``, they are a last column.

    Raises:
        InputError: a file cannot be written.
    """
    views = list(zip(view_names, flat.xy, flat.score, strict=True))
    if flat.input_xy is not None and flat.input_score is not None:
        views.insert(0, ("input", flat.input_xy, flat.input_score))
    named = [[keypoint_name(k, names)] if names else [] for k in range(flat.xy.shape[1])]
    last = ["name"] if names else []
    rows = [
        [name, view, k, *_rounded(xy[k]), _rounded(score[k]), *named[k]]
        for view, xy, score in views
        for k in range(len(score))
    ]
    write_text(folder / "keypoints_2d.csv", _table(["object", "view", "keypoint", "x", "y", "score", *last], rows))
    if points is not None:
        columns = zip(points.xyz, points.score, points.reprojection_error, strict=True)
        rows = [
            [name, k, *_rounded(xyz), _rounded(score), _rounded(error), *named[k]]
            for k, (xyz, score, error) in enumerate(columns)
        ]
        header = ["object", "keypoint", "x", "y", "z", "score", "reprojection_error", *last]
        write_text(folder / "keypoints_3d.csv", _table(header, rows))


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *([_cell(value) for value in row] for row in rows)])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = readable(value)  # csv leaves a carriage return as it is
    return f"'{text}" if text.startswith(_FORMULA) else text


def _rounded(values: Tensor) -> Any:
    return np.round(values.detach().cpu().double().numpy(), 6).tolist()
