"""Keypoints as CVAT's XML, "CVAT for images 1.1": a skeleton for each picture.

The format is that of https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/; a skeleton's points each have
``outside`` (1: not on the picture, or not found) and ``occluded`` (1: hidden).
"""

import json
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from keyorbit.output.choices import Edge, check_edges
from keyorbit.output.pictured import Pictured
from keyorbit.storage.folder_names import readable

# What the skeleton is called in CVAT, as in the COCO files.
OBJECT = "object"


def cvat_xml(
    items: Sequence[Pictured], names: Sequence[str], colors: Sequence[str], skeleton: Sequence[Edge] = ()
) -> str:
    """Return pictures with their keypoints as the content of an ``annotations.xml``.

    Coordinates are pixels from the picture's corner, as CVAT counts them: x = xy·width.

    Args:
        items: the pictures.
        names: of the keypoints.
        colors: of the keypoints, as hex.
        skeleton: edges between keypoints, counted from 0.

    Raises:
        InputError: an edge of the skeleton does not join two keypoints.
    """
    check_edges(skeleton, len(names))
    names = [readable(name) for name in names]
    root = ElementTree.Element("annotations")
    _leaf(root, "version", "1.1")
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    for tag, text in (("name", "keyorbit"), ("size", str(len(items))), ("mode", "annotation"), ("overlap", "0")):
        _leaf(task, tag, text)
    labels = ElementTree.SubElement(task, "labels")
    _label(labels, OBJECT, "#0072b2", "skeleton", svg=_drawing(items, names, skeleton))
    for name, color in zip(names, colors, strict=True):
        _label(labels, name, color, "points", parent=OBJECT)
    for number, item in enumerate(items):
        size = {"width": str(item.width), "height": str(item.height)}
        image = ElementTree.SubElement(root, "image", {"id": str(number), "name": item.file, **size})
        if not item.found.any():
            continue
        source = "manual" if item.reviewed else "auto"
        whole = ElementTree.SubElement(image, "skeleton", {"label": OBJECT, "source": source, "z_order": "0"})
        for name, (x, y), found, hidden in zip(
            names, item.pixels.tolist(), item.found.tolist(), item.hidden.tolist(), strict=True
        ):
            state = {"source": source, "occluded": str(int(found and hidden)), "outside": str(int(not found))}
            ElementTree.SubElement(whole, "points", {"label": name, **state, "points": f"{x:.4f},{y:.4f}"})
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def cvat_labels(
    items: Sequence[Pictured], names: Sequence[str], colors: Sequence[str], skeleton: Sequence[Edge] = ()
) -> str:
    """Return the skeleton's label for the field *Raw* of CVAT's constructor of labels, as JSON."""
    names = [readable(name) for name in names]
    points: list[dict[str, Any]] = [
        {"name": name, "type": "points", "color": color, "attributes": []}
        for name, color in zip(names, colors, strict=True)
    ]
    label = {"name": OBJECT, "type": "skeleton", "color": "#0072b2", "attributes": [], "sublabels": points}
    return json.dumps([label | {"svg": _drawing(items, names, skeleton)}], indent=1) + "\n"


def _label(labels: ElementTree.Element, name: str, color: str, kind: str, svg: str = "", parent: str = "") -> None:
    label = ElementTree.SubElement(labels, "label")
    for tag, text in (("name", name), ("color", color.lower()), ("type", kind)):
        _leaf(label, tag, text)
    ElementTree.SubElement(label, "attributes")
    if svg:
        _leaf(label, "svg", svg)
    if parent:
        _leaf(label, "parent", parent)


def _leaf(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text


def _drawing(items: Sequence[Pictured], names: Sequence[str], skeleton: Sequence[Edge]) -> str:
    """Return the skeleton's template, a drawing of 100 x 100: its points as on the picture that shows most of them."""
    best = max(items, key=lambda item: int(item.found.sum()), default=None)
    places = [(50.0, 50.0)] * len(names) if best is None else [(100 * x, 100 * y) for x, y in best.shares.tolist()]
    lines = [
        f'<line x1="{places[a][0]:.3f}" y1="{places[a][1]:.3f}" x2="{places[b][0]:.3f}" y2="{places[b][1]:.3f}" '
        f'stroke="black" data-type="edge" data-node-from="{a + 1}" data-node-to="{b + 1}" stroke-width="0.5"></line>'
        for a, b in skeleton
    ]
    circles = [
        f'<circle r="1.5" stroke="black" fill="#b3b3b3" cx="{x:.3f}" cy="{y:.3f}" stroke-width="0.1" '
        f'data-type="element node" data-element-id="{i}" data-node-id="{i}" data-label-name={_quoted(name)}></circle>'
        for i, (name, (x, y)) in enumerate(zip(names, places, strict=True), 1)
    ]
    return "\n".join([*lines, *circles])


def _quoted(text: str) -> str:
    from xml.sax.saxutils import quoteattr

    return quoteattr(text)
