"""What the tiny model has words for: the parts of its eight kinds of objects, and the places on a part."""

from importlib.resources import files
from itertools import product

from keyorbit.errors import one_of

KINDS = ("aeroplane", "animal", "car", "chair", "lamp", "mug", "person", "table")
_AXES = (("front", "rear"), ("left", "right"), ("upper", "lower"))
# What is said of a place on a part, by the sides on the three axes (-1, 0, 1; the last one changes fastest), and of its
# middle. The tiny model was trained on these words in this order, and its recipe counts on their numbers.
PLACES = (
    *(
        " ".join(_AXES[axis][0 if side > 0 else 1] for axis, side in enumerate(sides) if side)
        for sides in product((-1, 0, 1), repeat=3)
    ),
    "middle",
)


def kind_phrases(kind: str) -> tuple[str, ...]:
    """Return every phrase about a kind of object: each of its parts alone, its middle, and its 26 sides and corners.

    Such as "seat", "middle seat", "front left seat". A part that is one of several says which: "lower front left leg".
    What two parts are called is told once: "rear left propeller" is one of both "propeller" and "left propeller".

    Raises:
        InputError: the kind is none of :data:`KINDS`.
    """
    one_of("kind", kind, KINDS)
    parts = (files("keyorbit") / "assets" / "words" / f"{kind}.txt").read_text(encoding="utf-8").split("\n")
    return tuple(dict.fromkeys(f"{place} {part}".lstrip() for part in parts if part for place in PLACES))
