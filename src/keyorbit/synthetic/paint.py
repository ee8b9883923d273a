"""Colours, patterns and captions of procedural objects.

The pieces of a group (such as four legs) are painted alike, or each in its own way. Captions name what is painted
differently. So a model that has to give "the front left leg" its own colour must learn where that leg is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from keyorbit.synthetic.shapes import Piece, Shape

# Colours a child would name without doubt, as sRGB in 0…1; captions use the names.
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.12, 0.12),
    "orange": (0.93, 0.50, 0.10),
    "yellow": (0.93, 0.83, 0.18),
    "green": (0.16, 0.60, 0.22),
    "cyan": (0.15, 0.70, 0.75),
    "blue": (0.13, 0.27, 0.78),
    "purple": (0.50, 0.20, 0.65),
    "pink": (0.95, 0.55, 0.70),
    "brown": (0.45, 0.28, 0.14),
    "white": (0.94, 0.94, 0.92),
    "black": (0.10, 0.10, 0.11),
}
PATTERNS = ("plain", "striped", "checked", "two tone")
# How often a piece has each pattern, and how often a group is painted piece by piece.
_PATTERN_SHARES = (0.76, 0.10, 0.07, 0.07)
_PIECE_BY_PIECE = 0.5
_PHRASES_AT_MOST = 8


@dataclass(frozen=True)
class Paint:
    """The look of a part: one colour, stripes or checks.

    A point p of the part, in the object's units, has the colour ``first`` where ⌊frequency · p + phase⌋, summed over
    the rows of ``frequency``, is even, and otherwise the colour ``second``.

    Attributes:
        words: what captions call it.
        first: first colour.
        second: second colour.
        frequency: [3 3]. With one row that is not 0 it makes stripes, with more of them checks, with none a plain part.
        phase: [3], one number for each row.
    """

    words: str
    first: Float[ndarray, "3"]
    second: Float[ndarray, "3"]
    frequency: Float[ndarray, "3 3"]
    phase: Float[ndarray, "3"]


@dataclass(frozen=True)
class Part:
    """A painted piece of an object."""

    name: str
    shape: Shape
    paint: Paint


def paint_pieces(rng: np.random.Generator, pieces: Sequence[Piece]) -> tuple[list[Part], list[str]]:
    """Paint the pieces; return the parts, and one phrase for everything that has its own paint.

    An example of a phrase is "striped red blue front left leg".
    """
    groups: dict[str, list[Piece]] = {}
    for piece in pieces:
        groups.setdefault(piece.group or piece.name, []).append(piece)
    parts, phrases = [], []
    for group, members in groups.items():
        apart = len(members) > 1 and rng.random() < _PIECE_BY_PIECE
        shared = None if apart else _random_paint(rng, _extent(members))
        for piece in members:
            paint = shared or _random_paint(rng, _extent([piece]))
            parts.append(Part(piece.name, piece.shape, paint))
            if apart:
                phrases.append(f"{paint.words} {piece.name}")
        if shared is not None:
            phrases.append(f"{shared.words} {group}")
    return parts, phrases


def captions(rng: np.random.Generator, noun: str, phrases: Sequence[str]) -> tuple[str, ...]:
    """Describe the object with more and more detail: nothing, its kind, one part, some parts, and up to eight parts."""
    order = [phrases[i] for i in rng.permutation(len(phrases))]
    article = "an" if noun[0] in "aeiou" else "a"
    counts = sorted({1, min(3, len(order)), min(_PHRASES_AT_MOST, len(order))})
    told = [f"{article} {noun} with " + _enumerate(order[:count]) for count in counts]
    opening = str(rng.choice(["a picture of", "a view of", ""]))
    return ("", f"{opening} {article} {noun}".strip(), *told)


def _enumerate(phrases: Sequence[str]) -> str:
    return phrases[0] if len(phrases) == 1 else " , ".join(phrases[:-1]) + f" and {phrases[-1]}"


def _extent(pieces: Sequence[Piece]) -> Float[ndarray, "2 3"]:
    vertices = np.concatenate([piece.shape.vertices for piece in pieces])
    return np.stack([vertices.min(0), vertices.max(0)])


def _random_paint(rng: np.random.Generator, extent: Float[ndarray, "2 3"]) -> Paint:
    pattern = str(rng.choice(PATTERNS, p=_PATTERN_SHARES))
    names = [str(name) for name in rng.choice(list(COLORS), 2, replace=False)]
    first, second = (np.clip(np.array(COLORS[name]) + rng.normal(0, 0.03, 3), 0.02, 0.98) for name in names)
    size = np.maximum(extent[1] - extent[0], 1e-3)
    longest = int(size.argmax())
    frequency, phase = np.zeros((3, 3)), np.zeros(3)
    if pattern == "striped":
        frequency[0, longest] = rng.uniform(3, 7) / size[longest]
        phase[0] = rng.random()
    elif pattern == "checked":
        frequency = np.eye(3) * rng.uniform(3, 5) / size[longest]
        phase = rng.random(3)  # else the face at a piece's edge would lie between two cells
    elif pattern == "two tone":
        # Halved across its longest side, the first colour above, in front or on the left.
        frequency[0, longest] = 1 / size[longest]
        phase[0] = -(extent[0, longest] + 0.5 * size[longest]) * frequency[0, longest]
    words = names[0] if pattern == "plain" else f"{pattern} {names[0]} {names[1]}"
    return Paint(words, first, second, frequency, phase)
