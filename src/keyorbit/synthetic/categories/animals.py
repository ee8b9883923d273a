"""Procedural four-legged animals: seven kinds, standing, walking or sitting back, with turned heads."""

from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from keyorbit.synthetic.shapes import (
    Build,
    Piece,
    Shape,
    ellipsoid,
    limb,
    rotation_about,
    surface_point,
    tube,
    turned_build,
)

ANIMAL_KEYPOINTS = (
    "nose",
    "left eye",
    "right eye",
    "left ear tip",
    "right ear tip",
    "withers",
    "chest",
    "tail base",
    "tail tip",
    "foot front left",
    "foot front right",
    "foot back left",
    "foot back right",
    "knee front left",
    "knee front right",
    "knee back left",
    "knee back right",
)
ANIMAL_PAIRS = (
    ("left eye", "right eye"),
    ("left ear tip", "right ear tip"),
    ("foot front left", "foot front right"),
    ("foot back left", "foot back right"),
    ("knee front left", "knee front right"),
    ("knee back left", "knee back right"),
)

Points = dict[str, Float[ndarray, "3"]]
_SIDES = (("left", 1.0), ("right", -1.0))
# Where along the body, whose length is 1 and whose middle is 0, the legs begin.
_SHOULDER, _HIP = 0.33, -0.33


@dataclass(frozen=True)
class _Kind:
    """Proportions in body lengths. ``plump``: width over height of the body. ``horns``: probability of having some."""

    girth: float
    plump: float
    leg: float
    leg_radius: float
    neck: float
    neck_angle: float
    head: float
    muzzle: float
    muzzle_radius: float
    ear: float
    tail: float
    tail_radius: float
    tail_angle: float
    ears: tuple[str, ...]
    horns: float = 0.0
    mane: float = 0.0


_KINDS = {
    "dog": _Kind(
        0.20, 0.85, 0.50, 0.070, 0.20, 50.0, 0.17, 0.18, 0.08, 0.17, 0.40, 0.045, 30.0, ("pointed", "hanging")
    ),
    "horse": _Kind(
        0.22, 0.8, 0.75, 0.065, 0.50, 50.0, 0.15, 0.26, 0.09, 0.13, 0.55, 0.070, -60.0, ("pointed",), 0.0, 0.7
    ),
    "cow": _Kind(0.27, 0.85, 0.50, 0.080, 0.20, 25.0, 0.17, 0.17, 0.13, 0.16, 0.50, 0.045, -75.0, ("side",), 0.7),
    "cat": _Kind(0.17, 0.9, 0.42, 0.060, 0.13, 50.0, 0.19, 0.05, 0.08, 0.13, 0.65, 0.050, 55.0, ("pointed",)),
    "giraffe": _Kind(
        0.24, 0.75, 0.95, 0.075, 0.95, 68.0, 0.17, 0.20, 0.10, 0.16, 0.45, 0.060, -70.0, ("side",), 0.8, 0.3
    ),
    "elephant": _Kind(0.33, 0.9, 0.50, 0.120, 0.12, 25.0, 0.24, 0.80, 0.07, 0.26, 0.40, 0.045, -65.0, ("big",), 0.0),
    "sheep": _Kind(
        0.29, 0.95, 0.36, 0.065, 0.15, 45.0, 0.15, 0.13, 0.09, 0.15, 0.18, 0.060, -40.0, ("side", "hanging"), 0.4
    ),
}


def make_animal(rng: np.random.Generator) -> Build:
    """Make one random animal, with a body of length 1."""
    name = str(rng.choice(list(_KINDS)))
    kind = _varied(rng, _KINDS[name])
    height = kind.leg + 0.9 * kind.girth
    barrel = _body(rng, kind, height)
    # Sitting back: the body turns about its shoulders, and the hind legs fold.
    drop = rng.uniform(0.1, 0.3) * kind.leg if rng.random() < 0.25 else 0.0
    pitch = float(np.rad2deg(np.arcsin(drop / (_SHOULDER - _HIP))))
    lean, pivot = rotation_about("y", -pitch), np.array([_SHOULDER, 0.0, height])
    barrel = turned_build(barrel, lean, pivot)
    legs = _legs(rng, kind, lean, pivot)
    base = lean @ (np.array([0.40, 0.0, height + 0.25 * kind.girth]) - pivot) + pivot
    front = _neck_and_head(rng, kind, base, name == "elephant")
    parts = [barrel, legs, front]
    if rng.random() < 0.92:
        parts.append(_tail(rng, kind, barrel.points["tail base"]))
    points = {key: point for part in parts for key, point in part.points.items()}
    return Build([piece for part in parts for piece in part.pieces], points)


def _varied(rng: np.random.Generator, kind: _Kind) -> _Kind:
    """Return the same kind with every length varied at random."""
    kept = ("neck_angle", "tail_angle", "ears", "horns", "mane")
    lengths = [field.name for field in fields(kind) if field.name not in kept]
    return replace(kind, **{name: getattr(kind, name) * rng.uniform(0.88, 1.18) for name in lengths})


def _body(rng: np.random.Generator, kind: _Kind, height: float) -> Build:
    """A barrel along x, level, often slimmer behind."""
    along = np.array([-0.5, -0.47, -0.38, -0.2, 0.0, 0.2, 0.38, 0.47, 0.5])
    profile = (1 - np.abs(2 * along * 0.99) ** rng.uniform(2.5, 4.5)) ** 0.5
    radii = kind.girth * profile * (1 - rng.uniform(0, 0.35) * (0.4 - along).clip(0))
    path = np.stack([along, np.zeros(9), np.full(9, height)], 1)
    body = tube(path, radii, 10, kind.plump)
    points = {
        "withers": surface_point([body], (0.18, 0, height), (0, 0, 1)),
        "chest": surface_point([body], (0.3, 0, height), (1, 0, -0.5)),
        "tail base": surface_point([body], (-0.3, 0, height), (-1, 0, 0.6)),
    }
    return Build([Piece("body", body)], points)


def _legs(rng: np.random.Generator, kind: _Kind, lean: Float[ndarray, "3 3"], pivot: Float[ndarray, "3"]) -> Build:
    """Four legs of two equal bones; front knees bend forwards, the hocks of hind legs backwards."""
    stride = rng.uniform(0.1, 0.4) * kind.leg if rng.random() < 0.5 else 0.03 * kind.leg
    ankle = 1.1 * kind.leg_radius
    bone = 0.51 * (pivot[2] - 0.3 * kind.girth - ankle)
    pieces, feet, points = [], [], {}
    for fb, x, bend in (("front", _SHOULDER, 1.0), ("back", _HIP, -1.0)):
        for lr, side in _SIDES:
            beside = side * max(kind.girth * kind.plump - 0.8 * kind.leg_radius, 1.25 * kind.leg_radius)
            top = lean @ (np.array([x, beside, pivot[2] - 0.3 * kind.girth]) - pivot) + pivot
            step = bend * side * stride + rng.uniform(-0.05, 0.05) * kind.leg
            bottom = np.array([top[0] + step, top[1], ankle])
            reach = bottom - top
            length = float(np.linalg.norm(reach))
            across = bend * np.array([-reach[2], 0.0, reach[0]]) / length
            knee = (top + bottom) / 2 + across * np.sqrt(max(bone**2 - length**2 / 4, 0.0))
            r = kind.leg_radius
            pieces.append(Piece(f"{fb} {lr} leg", limb([top, knee, bottom], [1.35 * r, r, 0.9 * r], 7), "legs"))
            foot = ellipsoid((bottom[0] + 0.4 * r, bottom[1], 0.7 * r), (1.6 * r, 1.2 * r, 0.8 * r), 8)
            feet.append(Piece(f"{fb} {lr} foot", foot, "feet"))
            points[f"foot {fb} {lr}"] = np.array([bottom[0] + 2.0 * r, bottom[1], 0.7 * r])
            points[f"knee {fb} {lr}"] = knee + 0.9 * r * across
    return Build(pieces + feet, points)


def _tail(rng: np.random.Generator, kind: _Kind, base: Float[ndarray, "3"]) -> Build:
    """A tail that leaves the body backwards and then rises or hangs, swung to a side."""
    start, end = np.deg2rad([0.4 * kind.tail_angle, kind.tail_angle + rng.uniform(-20, 25)])
    path = [base + np.array([0.5 * kind.tail_radius, 0.0, 0.0])]
    for angle in np.linspace(start, end, 4):
        path.append(path[-1] + 0.25 * kind.tail * np.array([-np.cos(angle), 0.0, np.sin(angle)]))
    tail = tube(path, kind.tail_radius * np.array([1.0, 0.9, 0.9, 0.9, 0.6]))
    swing = rotation_about("z", rng.uniform(-30, 30))
    return turned_build(Build([Piece("tail", tail)], {"tail tip": path[-1]}), swing, base)


def _neck_and_head(rng: np.random.Generator, kind: _Kind, base: Float[ndarray, "3"], elephant: bool) -> Build:
    """Neck from ``base`` on the body, raised or lowered, and the head, turned about its middle."""
    length = kind.neck + 0.55 * kind.head + 0.3 * kind.girth
    angle = kind.neck_angle + rng.uniform(-20, 15) - (rng.uniform(20, 50) if rng.random() < 0.15 else 0.0)
    # However low the head, muzzle and trunk stay above the ground.
    lowest = 1.1 * kind.head + (0.75 * kind.muzzle if elephant else 0.5 * kind.muzzle)
    angle = max(angle, float(np.rad2deg(np.arcsin(np.clip((lowest - base[2]) / length, -0.9, 0.9)))))
    yaw = rng.uniform(-20, 20)
    frame = rotation_about("z", yaw) @ rotation_about("y", -angle)
    middle = base + frame @ np.array([length, 0.0, 0.0])
    thick, thin = 0.6 * kind.girth, min(0.8 * kind.head, 0.6 * kind.girth)
    neck = Piece("neck", tube([base, (base + middle) / 2, middle], [thick, (thick + thin) / 2.2, thin]))
    pieces = [neck]
    if rng.random() < kind.mane:
        ridge = np.array([base, middle]) + frame @ np.array([0.0, 0.0, 0.85 * (thick + thin) / 2])
        pieces.append(Piece("mane", limb(ridge, [0.06, 0.06])))
    head = _head(rng, kind, middle, elephant)
    look = rotation_about("z", yaw + rng.uniform(-35, 35)) @ rotation_about(
        "y", rng.uniform(-5, 10) if elephant else rng.uniform(5, 30)
    )
    head = turned_build(head, look, middle)
    return Build(pieces + head.pieces, head.points)


def _head(rng: np.random.Generator, kind: _Kind, middle: Float[ndarray, "3"], elephant: bool) -> Build:
    """The head looking along x: skull, muzzle or trunk, eyes, ears, and horns or tusks."""
    h = kind.head
    skull = ellipsoid(middle, (1.1 * h, 0.9 * h, h))
    pieces = [Piece("head", skull)]
    if elephant:
        curl = rng.uniform(-0.1, 0.5) * kind.muzzle
        path = np.array([[0.6 * h, 0, -0.2 * h], [1.3 * h, 0, -0.5 * h], [1.45 * h, 0, -0.5 * h - 0.4 * kind.muzzle]])
        path = middle + np.concatenate([path, [path[-1] + [curl, 0, -0.35 * kind.muzzle]]])
        r = kind.muzzle_radius
        pieces.append(Piece("trunk", tube(path, [1.6 * r, 1.4 * r, r, 0.8 * r])))
        nose = path[-1]
    else:
        end = middle + np.array([0.95 * h + kind.muzzle, 0.0, -0.3 * h])
        muzzle = limb([middle + np.array([0.4 * h, 0, -0.2 * h]), end], [0.65 * h, kind.muzzle_radius])
        r = 0.6 * kind.muzzle_radius
        tip = end + np.array([0.5 * kind.muzzle_radius, 0.0, 0.3 * kind.muzzle_radius])
        pieces += [Piece("muzzle", muzzle), Piece("nose", ellipsoid(tip, (r, 1.1 * r, r), 8))]
        nose = tip + np.array([r, 0.0, 0.0])
    points = {"nose": nose}
    style = str(rng.choice(kind.ears)) if rng.random() < 0.95 else "none"
    horned, horn = rng.random() < kind.horns, rng.uniform(0.08, 0.2)
    tusked = elephant and rng.random() < 0.6
    for lr, side in _SIDES:
        outward = np.array([0.6, 0.75 * side, 0.4])
        eye = ellipsoid(surface_point([skull], middle, outward), 0.22 * h, 6)
        pieces.append(Piece(f"{lr} eye", eye, "eyes"))
        points[f"{lr} eye"] = surface_point([eye], middle, outward)
        mirror = np.array([1.0, side, 1.0])
        if style != "none":
            ear, tip = _ear(style, h, kind.ear)
            pieces.append(Piece(f"{lr} ear", _mirrored(ear, side, middle), "ears"))
            points[f"{lr} ear tip"] = tip * mirror + middle
        if horned:
            path = np.array([[0.1 * h, 0.4 * h, 0.7 * h], [0, 0.7 * h, 1.2 * h], [0.3 * h, 0.65 * h, 1.2 * h + horn]])
            pieces.append(Piece(f"{lr} horn", tube(path * mirror + middle, [0.2 * h, 0.18 * h, 0.08 * h], 6), "horns"))
        if tusked:
            path = np.array([[0.6 * h, 0.5 * h, -0.5 * h], [1.5 * h, 0.6 * h, -1.0 * h], [2.2 * h, 0.5 * h, -0.8 * h]])
            pieces.append(Piece(f"{lr} tusk", tube(path * mirror + middle, [0.16 * h, 0.15 * h, 0.06 * h], 6), "tusks"))
    return Build(pieces, points)


def _ear(style: str, h: float, ear: float) -> tuple[Shape, Float[ndarray, "3"]]:
    """The left ear of a head of radius ``h`` about the origin, and its tip."""
    if style == "big":
        fan = ellipsoid((-0.3 * h, 0.7 * h + 0.7 * ear, 0.1 * h), (0.05, 0.85 * ear, ear), 8, rotation_about("z", 20.0))
        return fan, surface_point([fan], (-0.3 * h, 0.7 * h + 0.7 * ear, 0.1 * h), (-0.342, 0.94, 0))
    if style == "pointed":
        path, radii = [[-0.1, 0.5, 0.6], [-0.1, 0.65, 0.9]], [0.4 * h, 0.32 * h, 0.06 * h]
        tip = np.array([-0.1 * h, 0.75 * h, 0.8 * h + ear])
    elif style == "hanging":
        path, radii = [[-0.1, 0.6, 0.65], [-0.1, 1.1, 0.4]], [0.25 * h, 0.3 * h, 0.2 * h]
        tip = np.array([-0.05 * h, 1.2 * h, 0.3 * h - ear])
    else:
        path, radii = [[-0.1, 0.7, 0.5], [-0.2, 1.1, 0.65]], [0.25 * h, 0.3 * h, 0.1 * h]
        tip = np.array([-0.3 * h, 0.95 * h + ear, 0.6 * h])
    return tube(np.array([*(h * np.array(path)), tip]), radii, 6), tip


def _mirrored(shape: Shape, side: float, middle: Float[ndarray, "3"]) -> Shape:
    """A left shape about the origin, moved to ``middle`` on the given side; a mirror image turns its faces over."""
    return Shape(shape.vertices * [1.0, side, 1.0] + middle, shape.faces if side > 0 else shape.faces[:, ::-1])
