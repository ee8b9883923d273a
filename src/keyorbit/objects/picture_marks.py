"""Marks from points that an annotation tool keeps by pictures: which object and view a picture shows, by its name."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from keyorbit.errors import InputError
from keyorbit.geometry.views import Layout
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.framing import Box, middle_square
from keyorbit.objects.marks import Mark
from keyorbit.objects.points.point import PicturePoint, on_edge, plain_names
from keyorbit.storage.folder_names import folder_names
from keyorbit.values import short

_NAMED = 3
# An object's name, and one of the files of its folder.
_FILE = re.compile(r"(?:(.+)[/_.-])?(?:(input|cond|grid)|view_(\d{1,4}))", re.DOTALL | re.ASCII)


Kind = Literal["view", "input", "cond", "grid"]


@dataclass(frozen=True)
class Shown:
    """What a picture shows.

    Attributes:
        number: of the object.
        kind: one of its views; the square of the input picture that places on it are told in; the whole input picture;
            or the grid of all views.
        view: which view; None otherwise.
    """

    number: int
    kind: Kind
    view: int | None = None


def view_file(folder: str, view: int | None) -> str:
    """Return what the picture of a view is called in exports of several objects; None is the input picture's square."""
    return f"{folder}_{'input' if view is None else f'view_{view}'}.png"


class Pictures:
    """What pictures show, by their names; neither suffix nor capitals matter, nor what tools put before a name.

    They may be called as exports here call them (:func:`view_file`), by an object's folder and a file in it, or, of one
    object alone, by that file. A picture with the object's own name is its input picture.

    Args:
        objects: names of the objects.
        views: number of views of each.
    """

    def __init__(self, objects: Sequence[str], views: int) -> None:
        self._views, self._only = views, len(objects) == 1
        self._numbers = dict[str, int]()
        exact = [unicodedata.normalize("NFC", name) for name in objects]
        for names in (exact, folder_names(objects), [name.casefold() for name in exact]):
            for number, name in enumerate(names):
                self._numbers.setdefault(name, number)

    def shown(self, picture: str) -> Shown | None:
        """Return what the picture of this name shows; None where that is not known."""
        for name in plain_names(unicodedata.normalize("NFC", picture)):
            if (number := self._number(name)) is not None:
                return Shown(number, "cond")
            if (found := _FILE.fullmatch(name.casefold())) is None:
                continue
            kind, view = cast("Kind", found[2] or "view"), None if found[3] is None else int(found[3])
            number = (0 if self._only else None) if found[1] is None else self._number(name[: found.end(1)])
            if number is not None and (view is None or view < self._views):
                return Shown(number, kind, view)
        return None

    def _number(self, name: str) -> int | None:
        return self._numbers.get(name, self._numbers.get(name.casefold()))


def marks_on(
    points: Sequence[PicturePoint],
    objects: Sequence[ObjectViews],
    layout: Layout,
    where: str = "the annotations",
    others: bool = False,
) -> tuple[Mark, ...]:
    """Return the marks that points on pictures are; which pictures, see :class:`Pictures`.

    Args:
        points: the points.
        objects: whose pictures were annotated.
        layout: of the model's views.
        where: names the points' file in error messages.
        others: whether there may be pictures of other objects, which are left out. Default False.

    Raises:
        InputError: a picture, or with ``others`` every picture, is of none of these objects; a point on an input
            picture is outside the square that the model sees; a point is marked twice on one picture; or the size of a
            picture whose points are in pixels is not known.
    """
    known = Pictures([thing.name for thing in objects], layout.num_views)
    found = dict[tuple[int, int | None, str], Mark]()
    strangers = dict[str, None]()
    for point in points:
        if (shown := known.shown(point.picture)) is None:
            strangers[point.picture] = None
            continue
        thing = objects[shown.number]
        try:
            view, xy = _placed(point, thing, shown, layout)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        name = " ".join(point.name.split())
        place = shown.number, view, name.casefold()
        if place in found:
            twice = f"{short(point.name)} is marked twice on {point.picture}"
            raise InputError(f"{where}: {twice}: each point has one place there")
        found[place] = Mark(name, thing.name, view, xy, hidden=point.hidden)
    if strangers and not (others and found):
        there = ", ".join(list(strangers)[:_NAMED]) + (" and more" if len(strangers) > _NAMED else "")
        wanted = ", ".join(_examples(objects, layout))
        raise InputError(f"{where}: pictures of none of these objects: {there}; keep names such as {wanted}")
    return tuple(found.values())


def _examples(objects: Sequence[ObjectViews], layout: Layout) -> Iterator[str]:
    for folder in folder_names([thing.name for thing in objects[:1]]):
        yield from (view_file(folder, view) for view in range(min(layout.num_views, 2)))
        yield f"{folder}/cond.png"


def _placed(
    point: PicturePoint, thing: ObjectViews, shown: Shown, layout: Layout
) -> tuple[int | None, tuple[float, float]]:
    """The view that a point is in, None for the input picture, and its place there."""
    x, y = _shares(point, thing, shown, layout)
    if shown.kind == "grid":
        columns = _columns(point, thing, layout)
        rows = layout.num_views // columns
        column, row = min(int(x * columns), columns - 1), min(int(y * rows), rows - 1)
        return row * columns + column, (x * columns - column, y * rows - row)
    if shown.kind == "cond":
        left, top, right, bottom = thing.framing.shares(_square(thing, layout))
        x, y = (x - left) / (right - left), (y - top) / (bottom - top)
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise InputError(
                f"{short(point.name)} on {point.picture} is outside the square of the picture that the model is shown"
            )
    return shown.view, (x, y)


def _square(thing: ObjectViews, layout: Layout) -> Box:
    """The square of the input picture that places on it are told in, in its pixels."""
    return thing.framing.shown if layout.num_views > 1 else middle_square(thing.input_image)


def _shares(point: PicturePoint, thing: ObjectViews, shown: Shown, layout: Layout) -> tuple[float, float]:
    """The point's place in the picture's unit square."""
    if not point.in_pixels:
        return point.xy
    width, height = _size(point, thing, shown, layout)
    x, y = on_edge(point.xy[0] / width), on_edge(point.xy[1] / height)
    if not (0 <= x <= 1 and 0 <= y <= 1):
        place = f"({point.xy[0]:g}, {point.xy[1]:g}) of {width:g} x {height:g} pixels"
        raise InputError(f"{short(point.name)} is outside the picture {point.picture}, at {place}")
    return x, y


def _size(point: PicturePoint, thing: ObjectViews, shown: Shown, layout: Layout) -> tuple[float, float]:
    """Width and height of a picture whose size the tool does not tell, in pixels: as keyorbit has it."""
    if shown.kind == "cond":
        width, height = thing.input_image.size
        return float(width), float(height)
    if shown.kind == "input":
        left, _, right, _ = _square(thing, layout)
        return float(right - left), float(right - left)
    if thing.views is None:
        raise InputError(f"the size of {point.picture} is not told: give its width and height")
    height, width = thing.views.shape[-2:]
    rows, columns = (layout.rows, layout.cols) if shown.kind == "grid" else (1, 1)
    return float(width * columns), float(height * rows)


def _columns(point: PicturePoint, thing: ObjectViews, layout: Layout) -> int:
    """Columns of an object's grid: those that its width by its height tells, else the model's."""
    if point.size is None:
        return layout.cols
    count = layout.num_views
    view = 1.0 if thing.views is None else thing.views.shape[-1] / thing.views.shape[-2]
    shape = point.size[0] / point.size[1]
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    return min(divisors, key=lambda n: abs(n * n / count * view - shape))
