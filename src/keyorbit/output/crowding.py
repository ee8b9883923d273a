"""Where the numbers and the names of points go, so that they can be read where points crowd."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Spot = tuple[float, float]

_DIRECTIONS = 16
# Above so many points, a number stands at its point or nowhere: lines of that many would hide the picture.
_MOST = 48


def spread_labels(
    places: Sequence[Spot], radius: float, distances: Sequence[float], side: float = 1.0, dot: float = 0.0
) -> list[Spot | None]:
    """Choose for each point where the disc with its number goes: at the point, or beside it at the end of a line.

    The points come first to last; a disc covers no disc before it and no other point, and stays in the picture. The
    nearest free place is taken, away from the neighbours if there are several.

    Args:
        places: of the points, from the upper left corner.
        radius: of a disc, in the same unit.
        distances: of a disc from its point that are tried, from the nearest; 0 is at the point.
        side: of the square picture.
        dot: radius of the point itself, which no other disc may cover.

    Returns:
        The middle of each disc; None where nothing is free.
    """
    taken: list[Spot] = []
    found: list[Spot | None] = []
    for k, (x, y) in enumerate(places):
        others = [place for i, place in enumerate(places) if i != k]
        near = [(px, py) for px, py in others if math.hypot(px - x, py - y) < 6 * radius]
        ux, uy = sum(x - px for px, _ in near), sum(y - py for _, py in near)
        first = math.atan2(uy, ux) if (ux or uy) else -math.pi / 2
        spot = next(
            (
                spot
                for spot in _candidates(x, y, first, distances if len(places) <= _MOST else distances[:1])
                if (radius <= spot[0] <= side - radius and radius <= spot[1] <= side - radius) or spot == (x, y)
                if all(math.hypot(spot[0] - tx, spot[1] - ty) >= 2 * radius for tx, ty in taken)
                if all(math.hypot(spot[0] - px, spot[1] - py) >= radius + dot for px, py in others)
            ),
            None,
        )
        found.append(spot)
        if spot is not None:
            taken.append(spot)
    return found


@dataclass(frozen=True)
class NameSpot:
    """Where a name is written.

    Attributes:
        x: its left end.
        y: half of its height.
        length: from its left to its right end.
        clear: whether it covers no number and no name that came before it.
    """

    x: float
    y: float
    length: float
    clear: bool


def spread_names(
    places: Sequence[Spot], lengths: Sequence[float], discs: Sequence[Spot], radius: float, height: float, side: float
) -> list[NameSpot]:
    """Choose for each point where its name goes: right of it, left, above or below, and always within the picture.

    The points come first to last; a name that would cover a disc or a name before it everywhere is not clear, and keeps
    nothing from later ones.

    Args:
        places: of the points, or of the discs with their numbers, from the upper left corner.
        lengths: of the names, in the same unit; one that is longer than the picture is made as long as that.
        discs: the middles of all that names may not cover.
        radius: of these.
        height: of a name.
        side: of the square picture.
    """
    taken = [(x - radius, y - radius, x + radius, y + radius) for x, y in discs]
    found = list[NameSpot]()
    for (x, y), wanted in zip(places, lengths, strict=True):
        length, gap = min(wanted, side), 1.4 * radius
        amid, away = min(max(x - length / 2, 0.0), side - length), gap + height / 2
        around = [(x + gap, y), (x - gap - length, y), (amid, y - away), (amid, y + away)]
        boxes = [(left, middle - height / 2, left + length, middle + height / 2) for left, middle in around]
        inside = [box for box in boxes if min(box) >= 0 and max(box) <= side] or boxes[2:3]
        free = next((box for box in inside if not any(_overlap(box, other) for other in taken)), None)
        left, top, _, bottom = free or inside[0]
        found.append(NameSpot(left, (top + bottom) / 2, length, free is not None))
        taken += [free] if free else []
    return found


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two rectangles, told by left, top, right and bottom, have an inner point in common."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _candidates(x: float, y: float, first: float, distances: Sequence[float]) -> list[Spot]:
    """The places that are tried, best first: alternately to both sides of the first direction."""
    spots: list[Spot] = []
    for distance in distances:
        if distance == 0:
            spots.append((x, y))
            continue
        for step in range(_DIRECTIONS):
            turn = (step + 1) // 2 * (1 if step % 2 else -1) * 2 * math.pi / _DIRECTIONS
            spots.append((x + distance * math.cos(first + turn), y + distance * math.sin(first + turn)))
    return spots
