"""Keypoints as Label Studio's tasks: its JSON of tasks with results of type ``keypointlabels``, in percent.

The format is that of https://labelstud.io/tags/keypointlabels and https://labelstud.io/guide/predictions.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from keyorbit.output.pictured import Pictured
from keyorbit.storage.folder_names import readable

# The names of the two tags of `label_studio_config`.
_CONTROL, _OBJECT = "keypoints", "image"
# Of a keypoint's disc, in percent of the picture's width; only its looks.
_DISC = 1.0
# Where Label Studio serves files below its document root.
_LOCAL = "/data/local-files/?d="


def label_studio_tasks(items: Sequence[Pictured], names: Sequence[str], place: str = "") -> list[dict[str, Any]]:
    """Return a task for each picture: what was reviewed as an annotation, what a model found as a prediction.

    A keypoint without a place on the picture is left out. Pictures are named as files below Label Studio's document
    root (``LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT``), in its folder ``place``, which ends with a slash. Default: in the
    root itself.
    """
    shown = [readable(name) for name in names]
    return [_task(number, item, shown, place) for number, item in enumerate(items, 1)]


def label_studio_config(names: Sequence[str], colors: Sequence[str]) -> str:
    """Return the labelling interface of these tasks, for the project's settings; it numbers the labels for exports."""
    view = ElementTree.Element("View")
    control = ElementTree.SubElement(view, "KeyPointLabels", {"name": _CONTROL, "toName": _OBJECT})
    for number, (name, color) in enumerate(zip(names, colors, strict=True)):
        # The number is what Label Studio's own export of COCO keypoints goes by.
        label = {"value": readable(name), "background": color, "model_index": str(number)}
        ElementTree.SubElement(control, "Label", label)
    ElementTree.SubElement(view, "Image", {"name": _OBJECT, "value": f"${_OBJECT}", "zoom": "true"})
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _task(number: int, item: Pictured, names: Sequence[str], place: str) -> dict[str, Any]:
    results = []
    places = zip(names, (100 * item.shares).tolist(), item.found.tolist(), strict=True)
    for k, (name, (x, y), found) in enumerate(places):
        if not found:
            continue
        value = {"x": round(x, 6), "y": round(y, 6), "width": _DISC, "keypointlabels": [name]}
        result: dict[str, Any] = {"id": f"t{number}k{k}", "type": "keypointlabels", "value": value}
        result |= {"from_name": _CONTROL, "to_name": _OBJECT, "image_rotation": 0}
        result |= {"original_width": item.width, "original_height": item.height}
        if not item.reviewed:
            result["score"] = round(float(item.score[k]), 6)
        results.append(result)
    task: dict[str, Any] = {"id": number, "data": {_OBJECT: _LOCAL + quote(place + item.file)}}
    if item.reviewed:
        return task | {"annotations": [{"result": results}]}
    prediction: dict[str, Any] = {"model_version": f"keyorbit {version('keyorbit')}", "result": results}
    if results:
        prediction["score"] = round(float(item.score[item.found].mean()), 6)
    return task | {"predictions": [prediction]}
