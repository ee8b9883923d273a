"""Procedural lamps: a base with a switch, an arm that reaches to the front, a tilted shade with a bulb."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from keyorbit.synthetic.shapes import Build, Piece, Shape, box, ellipsoid, lathe, revolved, rotation_about, tube, turned

LAMP_KEYPOINTS = (
    "base front",
    "base back",
    "base left",
    "base right",
    "switch",
    "arm bottom",
    "elbow",
    "shade top",
    "rim front",
    "rim back",
    "rim left",
    "rim right",
    "bulb",
)
LAMP_PAIRS = (("base left", "base right"), ("rim left", "rim right"))

Points = dict[str, Float[ndarray, "3"]]


def make_lamp(rng: np.random.Generator) -> Build:
    """Make one random lamp, 1 to 2 high: two arms with joints, one bent arm, or a pole with an arm."""
    style = str(rng.choice(["arms", "bent", "pole"], p=[0.45, 0.25, 0.3]))
    # What stands tall is thick enough to be seen in a small picture.
    radius = rng.uniform(0.3, 0.4) if style == "pole" else rng.uniform(0.2, 0.32)
    pieces, points, height = _base(rng, radius)
    shade_radius = rng.uniform(0.27, 0.4) if style == "pole" else rng.uniform(0.2, 0.33)
    shade_height = shade_radius * rng.uniform(0.9, 1.35)
    # The shade opens downwards (0) or further and further to the front.
    tilt = rng.uniform(0, 20) if style == "pole" else rng.uniform(5, 65)
    drop = shade_height * np.cos(np.deg2rad(tilt)) + shade_radius * np.sin(np.deg2rad(tilt))
    foot = np.array([-rng.uniform(0.0, 0.25) * radius, 0.0, height])
    least = height + 0.12 + drop
    if style == "bent":
        arm, arm_points, tip = _bent_arm(rng, foot, least)
    else:
        arm, arm_points, tip = _jointed_arm(rng, foot, least, standing=style == "pole")
    shade, shade_points = _shade(rng, tip, shade_radius, shade_height, tilt)
    return Build(pieces + arm + shade, points | arm_points | shade_points)


def _base(rng: np.random.Generator, radius: float) -> tuple[list[Piece], Points, float]:
    """Make a disc, block, dome or cone with a switch on its front half; also return the height of the arm's start."""
    style = str(rng.choice(["disc", "block", "dome", "cone"]))
    height = rng.uniform(0.07, 0.12)
    depth = radius
    middle = height
    if style == "disc":
        base = lathe([(radius, 0.0), (radius, height)])
    elif style == "block":
        depth = radius * rng.uniform(0.75, 1.1)
        base = box((-depth, -radius, 0.0), (depth, radius, height))
    elif style == "dome":
        middle = height * 1.8
        base = lathe([(share * radius, rise * middle) for share, rise in ((1, 0), (0.9, 0.5), (0.6, 0.88), (0.2, 1))])
    else:
        middle = height * 2
        base = lathe([(radius, 0.0), (radius, 0.4 * height), (0.2 * radius, middle)])
    size = rng.uniform(0.05, 0.065)
    at = 0.68 * depth
    top = (height if style in ("disc", "block") else 0.85 * height) + 0.06
    if rng.random() < 0.5:
        switch = ellipsoid((at, 0.0, top - size), size, 8)
    else:
        switch = box((at - size, -size, top - 0.15), (at + size, size, top))
    points = {
        "base front": np.array([depth, 0.0, 0.0]),
        "base back": np.array([-depth, 0.0, 0.0]),
        "base left": np.array([0.0, radius, 0.0]),
        "base right": np.array([0.0, -radius, 0.0]),
        "switch": np.array([at, 0.0, top]),
    }
    return [Piece("base", base), Piece("switch", switch)], points, middle


def _jointed_arm(
    rng: np.random.Generator, foot: Float[ndarray, "3"], least: float, standing: bool
) -> tuple[list[Piece], Points, Float[ndarray, "3"]]:
    """A lower arm that leans back and an upper one that reaches forwards, or an upright pole with an arm.

    ``least`` is the least height of the arm's tip, which is returned last.
    """
    thick = rng.uniform(0.042, 0.06) if standing else rng.uniform(0.034, 0.05)
    joint = thick * rng.uniform(1.45, 1.8)
    length = rng.uniform(1.0, 1.6) if standing else rng.uniform(0.55, 0.9)
    lean = np.deg2rad(0 if standing else rng.uniform(-12, 48))
    elbow = foot + length * np.array([-np.sin(lean), 0, np.cos(lean)])
    tip = np.array([max(elbow[0], -0.2) + rng.uniform(0.45, 0.75), 0, elbow[2] + rng.uniform(-0.2, 0.35)])
    tip[2] = max(tip[2], least)
    lower, upper = ("pole", "arm") if standing else ("lower arm", "upper arm")
    group = "" if standing else "arms"
    sides = int(rng.choice([4, 8]))
    pieces = [
        Piece(lower, tube(np.stack([foot, elbow]), thick, sides), group),
        Piece(upper, tube(np.stack([elbow, tip]), thick, sides), group),
        Piece("lower joint", ellipsoid(foot.tolist(), joint, 8), "joints"),
        Piece("upper joint", ellipsoid(elbow.tolist(), joint, 8), "joints"),
    ]
    # The outer side of the elbow: away from both arms.
    away = -((tip - elbow) / np.linalg.norm(tip - elbow) + (foot - elbow) / length)
    points = {
        "arm bottom": foot - np.array([joint, 0, 0]),
        "elbow": elbow + joint * away / np.linalg.norm(away),
    }
    return pieces, points, tip


def _bent_arm(
    rng: np.random.Generator, foot: Float[ndarray, "3"], least: float
) -> tuple[list[Piece], Points, Float[ndarray, "3"]]:
    """One arm that rises and bends to the front in an arc."""
    thick = rng.uniform(0.038, 0.058)
    bend = rng.uniform(0.22, 0.36)
    turn = np.deg2rad(rng.uniform(95, 165))
    rise = max(rng.uniform(0.5, 1.1), least - foot[2] - bend * np.sin(turn))
    centre = foot + np.array([bend, 0, rise])
    angles = np.pi - np.linspace(0, turn, 9)
    arc = centre + bend * np.stack([np.cos(angles), np.zeros(9), np.sin(angles)], 1)
    arm = tube(np.concatenate([foot[None], arc]), thick, 8)
    points = {
        "arm bottom": foot - np.array([thick, 0, 0]),
        "elbow": centre + (bend + thick) * np.array([-np.sqrt(0.5), 0, np.sqrt(0.5)]),
    }
    return [Piece("arm", arm)], points, arc[-1]


def _shade(
    rng: np.random.Generator, tip: Float[ndarray, "3"], radius: float, height: float, tilt_deg: float
) -> tuple[list[Piece], Points]:
    """A cone, drum, dome or bell, hanging from ``tip``, opening downwards at tilt 0 and to the front at tilt 90."""
    style = str(rng.choice(["cone", "drum", "dome", "bell"]))
    wall = 0.04
    # Closed end first: (share of the radius, share of the height).
    outside = {
        "cone": [(0.3, 0.0), (1.0, 1.0)],
        "drum": [(0.85, 0.0), (1.0, 1.0)],
        "dome": [(0.25, 0.0), (0.7, 0.22), (0.93, 0.6), (1.0, 1.0)],
        "bell": [(0.25, 0.0), (0.45, 0.15), (0.55, 0.55), (1.0, 1.0)],
    }[style]
    outer = [(r * radius, h * height) for r, h in outside]
    inner = [(max(r - wall, 0.02), max(h, wall)) for r, h in reversed(outer)]
    square = style in ("cone", "drum") and rng.random() < 0.3
    rotation = rotation_about("y", 180 - tilt_deg)
    bulb_radius = 0.45 * radius

    def hung(shape: Shape) -> Shape:
        return Shape(turned(shape, rotation, (0.0, 0.0, 0.0)).vertices + tip, shape.faces)

    rim = {"front": (-radius, 0), "back": (radius, 0), "left": (0, radius), "right": (0, -radius)}
    points = {f"rim {name}": rotation @ np.array([x, y, height]) + tip for name, (x, y) in rim.items()}
    points |= {"shade top": tip.copy(), "bulb": rotation @ np.array([0, 0, height + 0.4 * bulb_radius]) + tip}
    bulb = ellipsoid((0.0, 0.0, height - 0.6 * bulb_radius), bulb_radius, 10)
    return [Piece("shade", hung(revolved(outer + inner, square))), Piece("bulb", hung(bulb))], points
