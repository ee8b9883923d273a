"""The XML that CVAT exports as "CVAT for images 1.1"."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from keyorbit.errors import InputError
from keyorbit.objects.points.point import PicturePoint, on_edge
from keyorbit.values import from_values, short


def read_cvat(text: str, path: Path) -> tuple[PicturePoint, ...]:
    """Read the points and skeletons in the text of a file of "CVAT for images 1.1".

    A skeleton's points have their own labels, and are left out where they are ``outside``. Points without a skeleton
    have the label as their name, with a number where a picture has several of the label.

    Raises:
        InputError: it is no such file, has no points, or a picture has two skeletons of the same label.
    """
    root = _xml(text, path)
    if root.tag != "annotations":
        raise InputError(f"{path} is no export of CVAT: its outermost tag is <{root.tag}>, not <annotations>")
    if root.find("track") is not None:
        raise InputError(f"{path} is 'CVAT for video', which names no pictures: export 'CVAT for images 1.1' instead")
    found = [point for image in root.iter("image") for point in _of_image(image, path)]
    if not found:
        raise InputError(f"{path} has no points and no skeletons")
    return tuple(found)


def _xml(text: str, path: Path) -> ElementTree.Element:
    if "<!DOCTYPE" in text:  # which can make a text grow without end, and which CVAT does not write
        raise InputError(f"{path} has a document type (<!DOCTYPE), which is not read")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:  # the latter: of an encoding that is not the text's
        raise InputError(f"{path} cannot be read as XML: {error}") from error


def _of_image(image: ElementTree.Element, path: Path) -> Iterator[PicturePoint]:
    where = f"{path}: image {short(image.get('name', ''))}"
    size = tuple(_number(image, name, where) for name in ("width", "height"))
    seen = set[str]()
    for skeleton in image.findall("skeleton"):
        if (label := skeleton.get("label", "")) in seen:
            raise InputError(f"{where} has two skeletons {short(label)}; a picture shows one object")
        seen.add(label)
        yield from (_point(part, part.get("label", ""), image, size, where) for part in _shown(skeleton))
    single: dict[str, list[ElementTree.Element]] = {}
    for part in _shown(image):
        single.setdefault(part.get("label", ""), []).append(part)
    for label, parts in single.items():
        places = [(part, pair) for part in parts for pair in part.get("points", "").split(";")]
        for number, (part, pair) in enumerate(places, 1):
            name = label if len(places) == 1 else f"{label} {number}"
            yield _point(part, name, image, size, where, pair)


def _shown(parent: ElementTree.Element) -> list[ElementTree.Element]:
    return [part for part in parent.findall("points") if part.get("outside") != "1"]


def _point(
    part: ElementTree.Element, name: str, image: ElementTree.Element, size: Sequence[float], where: str, pair: str = ""
) -> PicturePoint:
    text = pair or part.get("points", "")
    numbers = text.split(",")
    try:
        xy = [on_edge(float(number) / side) for number, side in zip(numbers, size, strict=True)]
    except ValueError as error:
        words = f"points of {short(name)} cannot be {short(text)}; it must be x,y in pixels"
        raise InputError(f"{where}: {words}") from error
    values: dict[str, Any] = {"picture": image.get("name", ""), "name": name, "xy": xy, "size": list(size)}
    values |= {"hidden": part.get("occluded") == "1"}
    return from_values(PicturePoint, values, f"{where}: points of {short(name)}")


def _number(image: ElementTree.Element, name: str, where: str) -> float:
    try:
        value = float(image.get(name, ""))
    except ValueError:
        value = 0.0
    if not 0 < value <= 1e9:
        raise InputError(f"{where}: {name} cannot be {short(image.get(name))}; it must be a number of pixels")
    return value
