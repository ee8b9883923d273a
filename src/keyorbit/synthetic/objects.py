"""Procedural objects: random members of a category, with exact semantic 3D keypoints and a caption."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from keyorbit.errors import InputError
from keyorbit.synthetic.categories.aeroplanes import AEROPLANE_KEYPOINTS, AEROPLANE_PAIRS, make_aeroplane
from keyorbit.synthetic.categories.animals import ANIMAL_KEYPOINTS, ANIMAL_PAIRS, make_animal
from keyorbit.synthetic.categories.cars import CAR_KEYPOINTS, CAR_PAIRS, make_car
from keyorbit.synthetic.categories.chairs import CHAIR_KEYPOINTS, CHAIR_PAIRS, make_chair
from keyorbit.synthetic.categories.lamps import LAMP_KEYPOINTS, LAMP_PAIRS, make_lamp
from keyorbit.synthetic.categories.mugs import MUG_KEYPOINTS, MUG_PAIRS, make_mug
from keyorbit.synthetic.categories.people import PERSON_KEYPOINTS, PERSON_PAIRS, make_person
from keyorbit.synthetic.categories.tables import TABLE_KEYPOINTS, TABLE_PAIRS, make_table
from keyorbit.synthetic.paint import Part, captions, paint_pieces
from keyorbit.synthetic.shapes import Build, Piece, Shape


@dataclass(frozen=True)
class SyntheticObject:
    """A procedural object, centred at the origin inside the sphere of radius 0.5; +x is its front, +z is up.

    Attributes:
        category: name of its category.
        parts: painted parts.
        keypoints: positions of the landmarks.
        known: False for a landmark whose part this object lacks.
        names: name of each landmark.
        pairs: left/right twins, by index.
        captions: descriptions with more and more detail; the first one is empty.
    """

    category: str
    parts: tuple[Part, ...]
    keypoints: Float[ndarray, "landmark 3"]
    known: Bool[ndarray, " landmark"]
    names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Category:
    """How one kind of object is made.

    Attributes:
        noun: what captions call it.
        keypoint_names: name of each landmark.
        pairs: left/right twins, by name.
        build: makes one random object.
    """

    noun: str
    keypoint_names: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    build: Callable[[np.random.Generator], Build]


CATEGORIES: dict[str, Category] = {
    "chair": Category("chair", CHAIR_KEYPOINTS, CHAIR_PAIRS, make_chair),
    "table": Category("table", TABLE_KEYPOINTS, TABLE_PAIRS, make_table),
    "lamp": Category("lamp", LAMP_KEYPOINTS, LAMP_PAIRS, make_lamp),
    "mug": Category("mug", MUG_KEYPOINTS, MUG_PAIRS, make_mug),
    "car": Category("car", CAR_KEYPOINTS, CAR_PAIRS, make_car),
    "aeroplane": Category("aeroplane", AEROPLANE_KEYPOINTS, AEROPLANE_PAIRS, make_aeroplane),
    "animal": Category("animal", ANIMAL_KEYPOINTS, ANIMAL_PAIRS, make_animal),
    "person": Category("person", PERSON_KEYPOINTS, PERSON_PAIRS, make_person),
}


def make_object(category: str, seed: int) -> SyntheticObject:
    """Make the ``seed``-th object of a category. The same seed always gives the same object.

    Raises:
        InputError: the category is not known.
    """
    if category not in CATEGORIES:
        raise InputError(f"no category '{category}'; known are: {', '.join(CATEGORIES)}")
    spec = CATEGORIES[category]
    rng = np.random.default_rng([*category.encode(), seed])
    build = spec.build(rng)
    centre, radius = _bounding_sphere(np.concatenate([piece.shape.vertices for piece in build.pieces]))
    scale = 0.5 / radius
    pieces = [Piece(p.name, Shape((p.shape.vertices - centre) * scale, p.shape.faces), p.group) for p in build.pieces]
    parts, phrases = paint_pieces(rng, pieces)
    known = np.array([name in build.points for name in spec.keypoint_names])
    keypoints = np.stack([build.points.get(name, centre) for name in spec.keypoint_names])
    index = {name: i for i, name in enumerate(spec.keypoint_names)}
    pairs = tuple((index[left], index[right]) for left, right in spec.pairs)
    told = captions(rng, spec.noun, phrases)
    return SyntheticObject(
        category, tuple(parts), (keypoints - centre) * scale, known, spec.keypoint_names, pairs, told
    )


def _bounding_sphere(vertices: Float[ndarray, "vertex 3"]) -> tuple[Float[ndarray, "3"], float]:
    """Return the middle of the bounding box, and the distance of the furthest vertex from it."""
    centre = (vertices.min(0) + vertices.max(0)) / 2
    return centre, float(np.linalg.norm(vertices - centre, axis=1).max())
