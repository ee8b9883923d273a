"""Points on pictures as annotation tools export them: CVAT's XML and Label Studio's JSON. No library is loaded here."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote
from xml.etree import ElementTree

from msgspec import Meta

from keyorbit.errors import InputError
from keyorbit.storage.content import json_of, text_of
from keyorbit.values import Finite, from_values, short

# What Label Studio puts before the name of an uploaded file.
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
_SHARE = Annotated[float, Meta(ge=-1e-6, le=1 + 1e-6)]
_PERCENT = Annotated[float, Meta(ge=-1e-4, le=100 + 1e-4)]
_Text = Annotated[str, Meta(min_length=1, max_length=1000)]
_Pixels = Annotated[float, Meta(gt=0, le=1e9)]


@dataclass(frozen=True)
class PicturePoint:
    """A point that somebody marked on a picture.

    Attributes:
        picture: the picture's name, as the tool tells it.
        name: of the point.
        xy: in the picture's unit square, x right, y down.
        hidden: whether the object hides it there.
    """

    picture: _Text
    name: _Text
    xy: tuple[_SHARE, _SHARE]
    hidden: bool = False


def is_cvat(path: Path) -> bool:
    """Whether a file is XML by its name."""
    return path.suffix.lower() == ".xml"


def read_cvat(path: Path) -> tuple[PicturePoint, ...]:
    """Read the points and skeletons of "CVAT for images 1.1".

    A skeleton's points have their own labels, and are left out where they are ``outside``. Points without a skeleton
    have the label as their name, with a number where a picture has several of the label.

    Raises:
        InputError: it is no such file, has no points, or a picture has two skeletons of the same label.
    """
    root = _xml(path)
    if root.tag != "annotations":
        raise InputError(f"{path} is no export of CVAT: its outermost tag is <{root.tag}>, not <annotations>")
    if root.find("track") is not None:
        raise InputError(f"{path} is 'CVAT for video', which names no pictures: export 'CVAT for images 1.1' instead")
    found = [point for image in root.iter("image") for point in _of_image(image, path)]
    if not found:
        raise InputError(f"{path} has no points and no skeletons")
    return tuple(found)


def _xml(path: Path) -> ElementTree.Element:
    text = text_of(path)
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
        xy = [float(number) / side for number, side in zip(numbers, size, strict=True)]
    except ValueError as error:
        raise InputError(f"{where}: points of {short(name)} cannot be {short(text)}; it must be x,y in pixels") from error
    values = {"picture": image.get("name", ""), "name": name, "xy": xy, "hidden": part.get("occluded") == "1"}
    return from_values(PicturePoint, values, f"{where}: points of {short(name)}")


def _number(image: ElementTree.Element, name: str, where: str) -> float:
    try:
        value = float(image.get(name, ""))
    except ValueError:
        value = 0.0
    if not 0 < value <= 1e9:
        raise InputError(f"{where}: {name} cannot be {short(image.get(name))}; it must be a number of pixels")
    return value


@dataclass(frozen=True)
class _Value:
    """Of a result; keypoints have a place, and labels under the name of the result's type or of its own."""

    x: Finite | None = None
    y: Finite | None = None
    height: Finite | None = None
    keypointlabels: tuple[_Text, ...] = ()
    labels: tuple[_Text, ...] = ()


@dataclass(frozen=True)
class _Result:
    type: str = ""
    value: Any = None
    image_rotation: Finite | None = None
    id: str | int | None = None


@dataclass(frozen=True)
class _Annotation:
    result: tuple[_Result, ...] = ()
    was_cancelled: bool | None = None


@dataclass(frozen=True)
class _Task:
    data: dict[str, Any]
    annotations: tuple[_Annotation, ...] = ()
    completions: tuple[_Annotation, ...] = ()  # as versions before 1.0 called them
    predictions: tuple[_Annotation, ...] = ()


@dataclass(frozen=True)
class _Place:
    x: _PERCENT
    y: _PERCENT


def read_label_studio(path: Path) -> tuple[PicturePoint, ...]:
    """Read the keypoints of Label Studio's exports JSON and JSON-MIN.

    Of several annotations of a task the last counts that was not cancelled; predictions are not read.

    Raises:
        InputError: it is no such file, has no keypoints, or a picture was turned in Label Studio.
    """
    values = json_of(path)
    tasks = values if isinstance(values, list) else [values]
    if not all(isinstance(task, Mapping) for task in tasks):
        raise InputError(f"{path} is no export of Label Studio: it must be a list of tasks")
    found = [point for i, task in enumerate(tasks) for point in _of_task(task, f"{path}: task {i + 1}")]
    if not found:
        raise InputError(
            f"{path} has no keypoints that somebody annotated; predictions are not read: submit them in Label Studio"
        )
    return tuple(found)


def _of_task(task: Mapping[str, Any], where: str) -> Iterator[PicturePoint]:
    if "data" not in task:
        yield from _of_short_task(task, where)
        return
    told = from_values(_Task, task, where, others=True)
    kept = [one for one in told.annotations or told.completions if not one.was_cancelled]
    if not kept:
        return
    results = [(result, _value(result.value, where)) for result in kept[-1].result]
    # A label that was given apart from its point (the tags Labels and KeyPoint) is a result of the same id.
    labels = {result.id: value.labels for result, value in results if value.labels and result.id is not None}
    for result, value in results:
        names = value.keypointlabels or value.labels or labels.get(result.id, ())
        if not _is_keypoint(result.type, value) or not names:
            continue
        if (result.image_rotation or 0) % 360:
            raise InputError(f"{where} was turned by {result.image_rotation:g}° in Label Studio: turn it back")
        yield _in_percent(_picture(told.data, where), names[0], value, where)


def _is_keypoint(kind: str, value: _Value) -> bool:
    """Boxes and such have a height, and of a label and its point only one is to count."""
    plain = value.x is not None and value.y is not None and value.height is None
    return plain and kind in ("keypointlabels", "keypoint", "labels") and (kind != "labels" or bool(value.labels))


def _value(values: Any, where: str) -> _Value:
    return from_values(_Value, values, where, others=True) if isinstance(values, Mapping) else _Value()


def _of_short_task(task: Mapping[str, Any], where: str) -> Iterator[PicturePoint]:
    """A task of JSON-MIN: the data's fields and the controls' values beside each other."""
    for key, entries in task.items():
        if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
            continue
        for value in (_value(entry, f"{where}: {key}") for entry in entries):
            if value.keypointlabels and value.x is not None:
                yield _in_percent(_picture(task, where), value.keypointlabels[0], value, where)


def _picture(data: Mapping[str, Any], where: str) -> str:
    """The picture among a task's data: the field of that name, or the only text that names a picture's file."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    for key in ("image", "img", "picture"):
        if texts.get(key):
            return texts[key]
    named = [text for text in texts.values() if re.search(r"\.\w{3,4}($|\?)", text)]
    if len(named) != 1:
        raise InputError(f"{where} does not name its picture: there is no text 'image' in its data")
    return named[0]


def _in_percent(picture: str, name: str, value: _Value, where: str) -> PicturePoint:
    place = from_values(_Place, {"x": value.x, "y": value.y}, f"{where}: keypoint {short(name)}")
    xy = [min(max(number / 100, 0.0), 1.0) for number in (place.x, place.y)]
    return from_values(PicturePoint, {"picture": picture, "name": name, "xy": xy}, where)


def plain_names(picture: str) -> Iterator[str]:
    """What a picture may be called by the name that a tool tells: without folders, addresses, and Label Studio's prefix.

    The likeliest first; each without its suffix.
    """
    plain = picture.replace("\\", "/")
    plain = plain.partition("?d=")[2] or plain.partition("?")[0]
    parts = [part for part in unquote(plain).split("/") if part]
    for last in dict.fromkeys(name for part in parts[-1:] for name in (part, _UPLOAD.sub("", part))):
        stem = last.rpartition(".")[0] or last
        if len(parts) > 1:
            yield f"{parts[-2]}/{stem}"
        yield stem
