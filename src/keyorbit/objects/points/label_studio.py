"""The JSON that Label Studio exports: its formats JSON and JSON-MIN."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyorbit.errors import InputError
from keyorbit.objects.points.point import PicturePoint, Text, on_edge
from keyorbit.values import Finite, from_values, short

# The names of a picture's file, also at the end of an address.
_FILE = re.compile(r"\.\w{3,4}($|\?)")


@dataclass(frozen=True)
class _Value:
    """Of a result; keypoints have a place, and labels under the name of the result's type or of its own."""

    x: Finite | None = None
    y: Finite | None = None
    height: Finite | None = None
    keypointlabels: tuple[Text, ...] = ()
    labels: tuple[Text, ...] = ()
    original_width: Finite | None = None  # in JSON-MIN; else the result has it
    original_height: Finite | None = None


@dataclass(frozen=True)
class _Result:
    type: str = ""
    value: Any = None
    image_rotation: Finite | None = None
    original_width: Finite | None = None
    original_height: Finite | None = None
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


def read_label_studio(values: Any, path: Path) -> tuple[PicturePoint, ...]:
    """Read the keypoints of Label Studio's exports JSON and JSON-MIN.

    Of several annotations of a task the last counts that was not cancelled; predictions are not read.

    Raises:
        InputError: it is no such file, has no keypoints, or a picture was turned in Label Studio.
    """
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
    # With the tags KeyPoint and Labels, a point and its label are two results of the same id.
    labels = {result.id: value.labels for result, value in results if value.labels}
    places = {result.id for result, _ in results if result.type == "keypoint"}
    for result, value in results:
        names = value.keypointlabels or value.labels or labels.get(result.id, ())
        if not names or not _is_keypoint(result, value) or (result.type == "labels" and result.id in places):
            continue
        if (result.image_rotation or 0) % 360:
            raise InputError(f"{where} was turned by {result.image_rotation:g}° in Label Studio: turn it back")
        yield _in_percent(_picture(told.data, where), names[0], value, result, where)


def _is_keypoint(result: _Result, value: _Value) -> bool:
    """Boxes have a height, and other shapes no place."""
    plain = value.x is not None and value.y is not None and value.height is None
    return plain and result.type in ("keypointlabels", "keypoint", "labels")


def _value(values: Any, where: str) -> _Value:
    return from_values(_Value, values, where, others=True) if isinstance(values, Mapping) else _Value()


def _of_short_task(task: Mapping[str, Any], where: str) -> Iterator[PicturePoint]:
    """A task of JSON-MIN: the data's fields and the controls' values beside each other."""
    for key, entries in task.items():
        if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
            continue
        for value in (_value(entry, f"{where}: {key}") for entry in entries):
            if value.keypointlabels and value.x is not None:
                yield _in_percent(_picture(task, where), value.keypointlabels[0], value, value, where)


def _picture(data: Mapping[str, Any], where: str) -> str:
    """The picture among a task's data: the field of that name, or the only text that names a picture's file."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    for key in ("image", "img", "picture"):
        if texts.get(key):
            return texts[key]
    named = [text for text in texts.values() if _FILE.search(text)]
    if len(named) != 1:
        raise InputError(f"{where} does not name its picture: there is no text 'image' in its data")
    return named[0]


def _in_percent(picture: str, name: str, value: _Value, sized: _Value | _Result, where: str) -> PicturePoint:
    xy = [on_edge((number or 0.0) / 100) for number in (value.x, value.y)]
    if not all(0 <= share <= 1 for share in xy):
        raise InputError(f"{where}: {short(name)} is outside the picture, at ({value.x}, {value.y}) % of its sides")
    width, height = sized.original_width or 0, sized.original_height or 0
    size = [width, height] if width > 0 and height > 0 else None
    return from_values(PicturePoint, {"picture": picture, "name": name, "xy": xy, "size": size}, where)
