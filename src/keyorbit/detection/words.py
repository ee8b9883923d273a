"""What the tiny model has words for: the parts of its eight kinds of objects, and the places on a part."""

from importlib.resources import files
from itertools import product

from keyorbit.errors import one_of

KINDS = ("aeroplane", "animal", "car", "chair", "lamp", "mug", "person", "table")
_AXES = (("front", "rear"), ("left", "right"), ("upper", "lower"))


def kind_phrases(kind: str) -> tuple[str, ...]:
    """Return every phrase about a kind of object: each of its parts alone, its middle, and its 26 sides and corners.

    Such as "seat", "middle seat", "front left seat". A part that is one of several says which: "lower front left leg".

    Raises:
        InputError: the kind is none of :data:`KINDS`.
    """
    one_of("kind", kind, KINDS)
    parts = (files("keyorbit") / "assets" / "words" / f"{kind}.txt").read_text(encoding="utf-8").split("\n")
    sides = [" ".join(word for word in words if word) for words in product(*(("", *axis) for axis in _AXES))]
    return tuple(f"{place} {part}".strip() for part in parts if part for place in (*sides, "middle"))
