"""Procedural mugs: the handle is the front, a label marks the back."""

from itertools import pairwise

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from keyorbit.synthetic.shapes import Build, Piece, ellipsoid, hull_between, join, lathe, revolved, tube

MUG_KEYPOINTS = (
    "rim front",
    "rim back",
    "rim left",
    "rim right",
    "bottom front",
    "bottom back",
    "bottom left",
    "bottom right",
    "middle left",
    "middle right",
    "handle top",
    "handle middle",
    "handle bottom",
    "label",
    "inside bottom",
)
MUG_PAIRS = (
    ("rim left", "rim right"),
    ("bottom left", "bottom right"),
    ("middle left", "middle right"),
)

Points = dict[str, Float[ndarray, "3"]]
Profile = Float[ndarray, "height 2"]


def make_mug(rng: np.random.Generator) -> Build:
    """Make one random mug, about 1 high, with its handle at +x; some have a plate or a lid."""
    height = rng.uniform(0.75, 1.3)
    square = rng.random() < 0.2
    profile = _profile(rng, height)
    wall = rng.uniform(0.05, 0.09)
    outer = [(float(r), float(z)) for r, z in profile]
    inner = [(r - wall, max(z, wall)) for r, z in reversed(outer)]
    pieces = [Piece("body", revolved(outer + inner, square))]
    points: Points = {}
    for part, z in (("bottom", 0.0), ("middle", height / 2), ("rim", height)):
        r = _radius(profile, z)
        sides = {"front": (r, 0), "back": (-r, 0), "left": (0, r), "right": (0, -r)}
        points |= {f"{part} {side}": np.array([x, y, z]) for side, (x, y) in sides.items()}
    del points["middle front"], points["middle back"]
    handle, handle_points = _handle(rng, profile, height)
    label, label_point = _label(rng, profile, height, square)
    pieces += [handle, label]
    points |= handle_points | label_point
    if rng.random() < 0.2:
        pieces.append(_lid(rng, float(profile[-1, 0]), height, square))
    else:
        points["inside bottom"] = np.array([0.0, 0.0, wall])
    if rng.random() < 0.25:
        wide = profile[0, 0] * rng.uniform(1.5, 1.8)
        pieces.append(Piece("plate", lathe([(0.6 * wide, -0.1), (wide, -0.03), (wide, 0.02), (0.7 * wide, -0.02)])))
    return Build(pieces, points)


def _profile(rng: np.random.Generator, height: float) -> Profile:
    """(radius, height) of the outside from the bottom to the rim: straight, tapered, a belly, or a waist."""
    style = str(rng.choice(["straight", "taper", "belly", "waist"]))
    radius = rng.uniform(0.34, 0.52)
    if style == "straight":
        shares = [(1.0, 0.0), (1.0, 1.0)]
    elif style == "taper":
        shares = [(rng.uniform(0.6, 0.85), 0.0), (1.0, 1.0)]
    elif style == "belly":
        shares = [(0.7, 0.0), (0.93, 0.15), (1.08, 0.4), (1.05, 0.6), (0.9, 0.85), (0.88, 1.0)]
    else:
        shares = [(1.0, 0.0), (0.9, 0.25), (0.84, 0.5), (0.9, 0.75), (1.05, 1.0)]
    return np.array(shares) * [radius, height]


def _radius(profile: Profile, z: float) -> float:
    return float(np.interp(z, profile[:, 1], profile[:, 0]))


def _handle(rng: np.random.Generator, profile: Profile, height: float) -> tuple[Piece, Points]:
    """A round, a square, a pointed or an ear-shaped loop."""
    style = str(rng.choice(["round", "square", "pointed", "ear"]))
    high, low = rng.uniform(0.76, 0.9) * height, rng.uniform(0.16, 0.34) * height
    thick = rng.uniform(0.045, 0.075)
    reach = rng.uniform(0.26, 0.46)
    # Along the loop from its top: (share of the reach, share of the way down).
    angle = np.linspace(0, np.pi, 9)
    loop = {
        "round": np.stack([np.sin(angle), (1 - np.cos(angle)) / 2], 1),
        "square": np.array([(0.0, 0.0), (0.8, 0.0), (1.0, 0.12), (1.0, 0.5), (1.0, 0.88), (0.8, 1.0), (0.0, 1.0)]),
        "pointed": np.array([(0.0, 0.0), (0.85, 0.0), (1.0, 0.06), (1.0, 0.14), (0.55, 0.55), (0.0, 1.0)]),
        "ear": np.array([(0.0, 0.1), (0.5, 0.0), (0.9, 0.08), (1.0, 0.25), (0.85, 0.5), (0.5, 0.75), (0.0, 1.0)]),
    }[style]
    heights = high + loop[:, 1] * (low - high)
    # The loop starts and ends on the wall, a little inside.
    start, end = _radius(profile, heights[0]) - 0.03, _radius(profile, heights[-1]) - 0.03
    root = start + (end - start) * loop[:, 1]
    path = np.stack([root + loop[:, 0] * (reach + 0.03), np.zeros(len(loop)), heights], 1)
    side = thick * np.cos(np.pi / 8)  # the middle of a side of the tube's section
    furthest = path[path[:, 0] > path[:, 0].max() - 1e-3].mean(0)
    points = {"handle middle": furthest + np.array([side, 0, 0])}
    # Where the loop leaves the wall: on its upper side at the top, on its lower side at the bottom.
    for name, first, second, sign in (("top", path[0], path[1], -1), ("bottom", path[-1], path[-2], 1)):
        along = (second - first) / np.linalg.norm(second - first)
        points[f"handle {name}"] = first + 0.06 * along + sign * side * np.array([along[2], 0, -along[0]])
    return Piece("handle", tube(path, thick, 8, flatten=rng.uniform(0.8, 1.0))), points


def _label(rng: np.random.Generator, profile: Profile, height: float, square: bool) -> tuple[Piece, Points]:
    """A raised label on the back, round or square, that follows the wall."""
    oval = rng.random() < 0.5
    half_angle = np.deg2rad(rng.uniform(28, 42))
    half = rng.uniform(0.2, 0.3) * height
    middle = rng.uniform(0.45, 0.55) * height
    raise_by = 0.03
    levels = np.linspace(-1, 1, 9 if oval else 5)
    rings = []
    for level in levels:
        share = np.sqrt(max(1 - level**2, 0.02)) if oval else 1.0
        angle = np.linspace(-half_angle, half_angle, 7) * share
        z = middle + level * half
        wall = _radius(profile, z) / (np.cos(angle) if square else 1.0)
        arcs = [
            np.stack([-r * np.cos(angle), -r * np.sin(angle), np.full(7, z)], 1)
            for r in (wall + raise_by, wall - raise_by)
        ]
        rings.append(np.concatenate([arcs[0], arcs[1][::-1]]))
    slices = [hull_between(first, second) for first, second in pairwise(rings)]
    point = np.array([-_radius(profile, middle) - raise_by, 0.0, middle])
    return Piece("label", join(slices)), {"label": point}


def _lid(rng: np.random.Generator, radius: float, height: float, square: bool) -> Piece:
    """A flat or a domed lid with a knob."""
    rise = rng.uniform(0.05, 0.16)
    lid = revolved([(1.0 * radius, height), (1.0 * radius, height + 0.04), (0.4 * radius, height + rise)], square)
    return Piece("lid", join([lid, ellipsoid((0.0, 0.0, height + rise + 0.04), 0.08, 8)]))
