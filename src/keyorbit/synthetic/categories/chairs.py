"""Procedural chairs: seat, back in four styles, four legs, optional arms."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from keyorbit.synthetic.shapes import Build, Piece, Shape, box, join, prism, turned

CHAIR_KEYPOINTS = (
    "seat front left",
    "seat front right",
    "seat back left",
    "seat back right",
    "foot front left",
    "foot front right",
    "foot back left",
    "foot back right",
    "back top left",
    "back top right",
    "seat centre",
    "back centre",
)
CHAIR_PAIRS = (
    ("seat front left", "seat front right"),
    ("seat back left", "seat back right"),
    ("foot front left", "foot front right"),
    ("foot back left", "foot back right"),
    ("back top left", "back top right"),
)

Points = dict[str, Float[ndarray, "3"]]


def make_chair(rng: np.random.Generator) -> Build:
    """Make one random chair, about 1 wide."""
    width = rng.uniform(0.8, 1.2)
    depth = rng.uniform(0.8, 1.15)
    seat_height = rng.uniform(0.7, 1.15)
    thickness = rng.uniform(0.06, 0.16)
    half_w, half_d = width / 2, depth / 2
    seat = box((-half_d, -half_w, seat_height - thickness), (half_d, half_w, seat_height))
    back, back_points = _back(rng, half_w, half_d, seat_height)
    legs, feet = _legs(rng, half_w, half_d, seat_height - thickness)
    pieces = [Piece("seat", seat), Piece("back", back), *legs]
    if rng.random() < 0.35:
        pieces += _arms(rng, half_w, half_d, seat_height)
    points: Points = {
        f"seat {fb} {lr}": np.array([x, y, seat_height])
        for fb, x in (("front", half_d), ("back", -half_d))
        for lr, y in (("left", half_w), ("right", -half_w))
    }
    points |= feet | back_points | {"seat centre": np.array([0.0, 0.0, seat_height])}
    return Build(pieces, points)


def _back(rng: np.random.Generator, half_w: float, half_d: float, seat: float) -> tuple[Shape, Points]:
    """The back rest, leaning backwards: a panel, a panel on posts, slats, or spindles."""
    height = rng.uniform(0.6, 1.2)
    thick = rng.uniform(0.05, 0.10)
    style = rng.choice(["panel", "raised panel", "slats", "spindles"])
    low, high = -half_d, -half_d + thick
    post = rng.uniform(0.05, 0.09)
    posts = [box((low, y - post, seat), (high, y + post, seat + height)) for y in (half_w - post, -half_w + post)]
    if style == "panel":
        shapes = [box((low, -half_w, seat), (high, half_w, seat + height))]
    elif style == "raised panel":
        start = rng.uniform(0.25, 0.5) * height
        shapes = [*posts, box((low, -half_w, seat + start), (high, half_w, seat + height))]
    elif style == "slats":
        count = int(rng.integers(2, 5))
        slat = 0.45 * height / count
        tops = seat + height - np.arange(count) * (0.95 * height / count)
        shapes = posts + [box((low, -half_w, top - slat), (high, half_w, top)) for top in tops]
    else:
        rail = 0.16 * height
        count = int(rng.integers(2, 5))
        centres = np.linspace(-half_w, half_w, count + 2)[1:-1]
        shapes = [*posts, box((low, -half_w, seat + height - rail), (high, half_w, seat + height))]
        shapes += [box((low, y - 0.03, seat), (high, y + 0.03, seat + height)) for y in centres]
    lean = np.deg2rad(rng.uniform(0, 16))
    rotation = np.array([[np.cos(lean), 0, -np.sin(lean)], [0, 1, 0], [np.sin(lean), 0, np.cos(lean)]])
    hinge = (low, 0.0, seat)
    middle = (low + high) / 2
    corners = np.array(
        [[middle, half_w, seat + height], [middle, -half_w, seat + height], [high, 0.0, seat + 0.75 * height]]
    )
    left, right, centre = (corners - hinge) @ rotation.T + hinge
    points = {"back top left": left, "back top right": right}
    # A gap between slats or spindles is not a place on the chair: only closed panels have a centre.
    if style in ("panel", "raised panel"):
        points["back centre"] = centre
    return turned(join(shapes), rotation, hinge), points


def _legs(rng: np.random.Generator, half_w: float, half_d: float, top: float) -> tuple[list[Piece], Points]:
    """Four legs, square or round, straight or tapered and splayed."""
    radius = rng.uniform(0.04, 0.085)
    foot_radius = radius * rng.uniform(0.5, 1.0)
    splay = rng.uniform(0.0, 0.12) * rng.integers(0, 2)
    sides = int(rng.choice([4, 10]))
    pieces, points = [], {}
    for fb, sx in (("front", 1), ("back", -1)):
        for lr, sy in (("left", 1), ("right", -1)):
            x, y = sx * (half_d - radius), sy * (half_w - radius)
            foot = np.array([x + sx * splay, y + sy * splay, 0.0])
            leg = prism((foot[0], foot[1], foot[2]), (x, y, top), (foot_radius,) * 2, (radius,) * 2, sides)
            pieces.append(Piece(f"{fb} {lr} leg", leg, "legs"))
            points[f"foot {fb} {lr}"] = foot
    return pieces, points


def _arms(rng: np.random.Generator, half_w: float, half_d: float, seat: float) -> list[Piece]:
    """Two arm rests, each on a front post."""
    rise = rng.uniform(0.25, 0.4)
    thick = rng.uniform(0.05, 0.08)
    front = half_d * rng.uniform(0.4, 0.9)
    pieces = []
    for side, y in (("left", half_w - thick), ("right", -half_w + thick)):
        rest = box((-half_d, y - thick, seat + rise - thick), (front, y + thick, seat + rise))
        post = box((front - thick, y - thick / 2, seat), (front, y + thick / 2, seat + rise))
        pieces.append(Piece(f"{side} arm", join([rest, post]), "arms"))
    return pieces
