"""Marks from points that an annotation tool keeps by pictures: which object and view a picture shows, by its name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.framing import middle_square
from keyorbit.objects.marks import Mark
from keyorbit.objects.points.point import PicturePoint, plain_names
from keyorbit.storage.folder_names import folder_names
from keyorbit.values import short

_NAMED = 3


@dataclass(frozen=True)
class Shown:
    """What a picture shows.

    Attributes:
        number: of the object.
        view: of the object; None for the input picture.
        whole: whether it is the input picture as it is, not the square that places on it are told in.
    """

    number: int
    view: int | None
    whole: bool = False


def view_file(folder: str, view: int | None) -> str:
    """Return what the picture of a view is called in exports of several objects; None is the input picture's square."""
    return f"{folder}_{'input' if view is None else f'view_{view}'}.png"


def shown_pictures(objects: Sequence[str], views: int) -> dict[str, Shown]:
    """Return what pictures show, by their names without suffix and in small letters.

    They may be called as exports here call them (:func:`view_file`), by an object's folder and a file in it, or, of one
    object alone, by that file. A picture with the object's own name is its input picture.

    Args:
        objects: names of the objects.
        views: number of views of each.
    """
    found = dict[str, Shown]()
    for number, (name, folder) in enumerate(zip(objects, folder_names(objects), strict=True)):
        places: list[tuple[str, Shown]] = [(f"view_{view}", Shown(number, view)) for view in range(views)]
        places += [("input", Shown(number, None)), ("cond", Shown(number, None, whole=True))]
        for own in dict.fromkeys((name, folder)):
            found |= {f"{own}{between}{part}".casefold(): shown for part, shown in places for between in "_/"}
            found.setdefault(own.casefold(), Shown(number, None, whole=True))
        if len(objects) == 1:
            found |= {part: shown for part, shown in places if part not in found}
    return found


def marks_on(points: Sequence[PicturePoint], objects: Sequence[ObjectViews], views: int) -> tuple[Mark, ...]:
    """Return the marks that points on pictures are.

    Pictures are told by their names, see :func:`shown_pictures`; those of no object here are left out.

    Raises:
        InputError: no picture is of these objects, a point on an input picture is outside the square that the model
            sees, or a point is marked twice on one picture.
    """
    known = shown_pictures([thing.name for thing in objects], views)
    found = dict[tuple[int, int | None, str], Mark]()
    for point in points:
        shown = next((known[own] for name in plain_names(point.picture) if (own := name.casefold()) in known), None)
        if shown is None:
            continue
        thing = objects[shown.number]
        name = " ".join(point.name.split())
        place = shown.number, shown.view, name.casefold()
        if place in found:
            raise InputError(f"{short(point.name)} is marked twice on {point.picture}: each point has one place there")
        found[place] = Mark(name, thing.name, shown.view, _within(point, thing, shown, views))
    if not found:
        there = list(dict.fromkeys(point.picture for point in points))
        names = ", ".join(there[:_NAMED]) + (" and more" if there[_NAMED:] else "")
        wanted = ", ".join(list(_examples(objects))[:_NAMED])
        raise InputError(f"no picture of the annotations ({names}) is of these objects; such are called {wanted}")
    return tuple(found.values())


def _examples(objects: Sequence[ObjectViews]) -> Iterator[str]:
    for folder in folder_names([thing.name for thing in objects[:1]]):
        yield from (view_file(folder, 0), view_file(folder, 1), f"{folder}/cond.png")


def _within(point: PicturePoint, thing: ObjectViews, shown: Shown, views: int) -> tuple[float, float]:
    """The point's place in the square that places are told in."""
    if not shown.whole:
        return point.xy
    framing = thing.framing
    square = framing.shown if views > 1 else middle_square(thing.input_image)
    left, top, right, bottom = framing.shares(square)
    x, y = (point.xy[0] - left) / (right - left), (point.xy[1] - top) / (bottom - top)
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise InputError(
            f"{short(point.name)} on {point.picture} is outside the square of the picture that the model is shown"
        )
    return x, y
