"""Procedural tables: round or square-cornered top on four kinds of legs, a drawer in front, a raised back."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from keyorbit.synthetic.shapes import Build, Piece, box, ellipsoid, hull_between, join, prism

TABLE_KEYPOINTS = (
    "top front left",
    "top front right",
    "top back left",
    "top back right",
    "top front",
    "top back",
    "top left",
    "top right",
    "top centre",
    "foot front left",
    "foot front right",
    "foot back left",
    "foot back right",
    "drawer left",
    "drawer right",
    "knob",
    "back top left",
    "back top right",
)
TABLE_PAIRS = (
    ("top front left", "top front right"),
    ("top back left", "top back right"),
    ("top left", "top right"),
    ("foot front left", "foot front right"),
    ("foot back left", "foot back right"),
    ("drawer left", "drawer right"),
    ("back top left", "back top right"),
)

Points = dict[str, Float[ndarray, "3"]]
_ROUND_SIDES = 20
_CORNERS = [(fb, lr, sx, sy) for fb, sx in (("front", 1), ("back", -1)) for lr, sy in (("left", 1), ("right", -1))]


def make_table(rng: np.random.Generator) -> Build:
    """Make one random table, 1.2 to 1.9 wide. The drawer and its knob mark the front of every table."""
    half_d, half_w = rng.uniform(0.38, 0.56), rng.uniform(0.6, 0.95)
    height = rng.uniform(0.65, 1.15)
    under = height - rng.uniform(0.07, 0.13)
    style = str(rng.choice(["square", "cut", "round"], p=[0.5, 0.2, 0.3]))
    pieces, points = _top(style, half_d, half_w, under, height)
    # Under a round top everything stands further in.
    inset = 0.68 if style == "round" else rng.uniform(0.86, 0.97)
    legs, feet = _legs(rng, half_d * inset, half_w * inset, under)
    drawer, drawer_points = _drawer(rng, half_d * max(inset, 0.85), half_w * inset, under)
    pieces += legs + drawer
    points |= feet | drawer_points
    if rng.random() < 0.75:
        edge = (0.72, 0.66) if style == "round" else (1.0, 0.88 if style == "cut" else 1.0)
        back, back_points = _back(rng, -half_d * edge[0], half_w * edge[1], height)
        pieces.append(back)
        points |= back_points
    return Build(pieces, points)


def _top(style: str, half_d: float, half_w: float, low: float, high: float) -> tuple[list[Piece], Points]:
    points: Points = {}
    reach = 1.0
    if style == "square":
        top = box((-half_d, -half_w, low), (half_d, half_w, high))
        # A round top has no corners, and cut corners are no points.
        points = {f"top {fb} {lr}": np.array([sx * half_d, sy * half_w, high]) for fb, lr, sx, sy in _CORNERS}
    elif style == "cut":
        cut = 0.28 * half_d
        outline = [(half_d - cut, half_w), (-half_d + cut, half_w), (-half_d, half_w - cut), (-half_d, -half_w + cut)]
        outline += [(-x, -y) for x, y in outline]
        top = hull_between(*(np.array([[x, y, z] for x, y in outline]) for z in (low, high)))
    else:
        top = prism((0.0, 0.0, low), (0.0, 0.0, high), (half_d, half_w), sides=_ROUND_SIDES)
        reach = float(np.cos(np.pi / _ROUND_SIDES))  # the middle of a side of the polygon
    for name, sx, sy in (("front", 1, 0), ("back", -1, 0), ("left", 0, 1), ("right", 0, -1), ("centre", 0, 0)):
        points[f"top {name}"] = np.array([sx * half_d * reach, sy * half_w * reach, high])
    return [Piece("top", top)], points


def _legs(rng: np.random.Generator, half_d: float, half_w: float, top: float) -> tuple[list[Piece], Points]:
    """Four legs, two panels, two posts on bars, or a pole on a cross: each stands on four feet."""
    style = str(rng.choice(["legs", "panels", "posts", "pole"], p=[0.5, 0.15, 0.2, 0.15]))
    thick = rng.uniform(0.045, 0.08)
    feet = {f"foot {fb} {lr}": np.array([sx * half_d, sy * half_w, 0.0]) for fb, lr, sx, sy in _CORNERS}
    if style == "legs":
        pieces, feet = _four_legs(rng, half_d - thick, half_w - thick, top, thick)
    elif style == "panels":
        pieces = [
            Piece(f"{lr} panel", box((-half_d, y - thick, 0.0), (half_d, y + thick, top)), "panels")
            for lr, y in (("left", half_w - thick), ("right", thick - half_w))
        ]
        feet = {name: foot * [1, (half_w - thick) / half_w, 1] for name, foot in feet.items()}
    elif style == "posts":
        pieces = []
        for lr, y in (("left", half_w - 0.08), ("right", 0.08 - half_w)):
            bar = box((-half_d, y - 0.08, 0.0), (half_d, y + 0.08, 0.1))
            post = prism((0.0, y, 0.1), (0.0, y, top), (1.6 * thick, thick), sides=int(rng.choice([4, 10])))
            pieces.append(Piece(f"{lr} leg", join([bar, post]), "legs"))
        feet = {name: foot * [1, (half_w - 0.08) / half_w, 1] for name, foot in feet.items()}
    else:
        across = np.array([[1, 1], [1, -1]]) * [0.85 * half_d, 0.6 * half_w]
        bars = []
        for x, y in across:
            side = np.array([-y, x]) / np.hypot(x, y) * thick
            end = np.array([x, y])
            outline = np.stack([end + side, side - end, -end - side, end - side])
            bars.append(hull_between(*(np.insert(outline, 2, z, axis=1) for z in (0.0, 0.09))))
        wide = 1.8 * thick
        pole = prism((0.0, 0.0, 0.0), (0.0, 0.0, top), (wide, wide), sides=int(rng.choice([4, 12])))
        pieces = [Piece("pole", pole), Piece("base", join(bars))]
        feet = {name: foot * [0.85, 0.6, 1] for name, foot in feet.items()}
    if style in ("legs", "panels") and rng.random() < 0.3:
        level = rng.uniform(0.15, 0.3) * top
        side = half_w - thick  # inside the legs: no two faces in one plane
        shelf = box((thick - half_d, -side, level), (0.9 * half_d - thick, side, level + 0.07))
        pieces.append(Piece("shelf", shelf))
    return pieces, feet


def _four_legs(
    rng: np.random.Generator, half_d: float, half_w: float, top: float, radius: float
) -> tuple[list[Piece], Points]:
    foot_radius = radius * rng.uniform(0.55, 1.0)
    splay = rng.uniform(0.0, 0.14) * rng.integers(0, 2)
    sides = int(rng.choice([4, 10]))
    pieces, points = [], {}
    for fb, lr, sx, sy in _CORNERS:
        x, y = sx * half_d, sy * half_w
        foot = np.array([x + sx * splay, y + sy * splay, 0.0])
        leg = prism((foot[0], foot[1], 0.0), (x, y, top), (foot_radius,) * 2, (radius,) * 2, sides)
        pieces.append(Piece(f"{fb} {lr} leg", leg, "legs"))
        points[f"foot {fb} {lr}"] = foot
    return pieces, points


def _drawer(rng: np.random.Generator, front: float, half_w: float, top: float) -> tuple[list[Piece], Points]:
    """A narrow, a wide or a deep drawer under the top's front edge, with a round knob, a square one or a bar."""
    style = str(rng.choice(["narrow", "wide", "deep"], p=[0.35, 0.45, 0.2]))
    half = half_w * (rng.uniform(0.35, 0.5) if style == "narrow" else rng.uniform(0.72, 0.84))
    drop = rng.uniform(0.3, 0.45) if style == "deep" else rng.uniform(0.16, 0.26)
    back = front - rng.uniform(0.3, 0.6)
    middle = top - drop / 2
    size = rng.uniform(0.05, 0.065)
    knob = str(rng.choice(["ball", "block", "bar"]))
    tip = front + (size if knob == "ball" else 0.08)
    if knob == "ball":
        shape = ellipsoid((front, 0.0, middle), size, 8)
    else:
        wide = 0.5 * half if knob == "bar" else size
        shape = box((front, -wide, middle - 0.8 * size), (tip, wide, middle + 0.8 * size))
    pieces = [
        Piece("drawer", box((back, -half, top - drop), (front, half, top))),
        Piece("handle" if knob == "bar" else "knob", shape),
    ]
    points = {
        "knob": np.array([tip, 0.0, middle]),
        "drawer left": np.array([front, half, middle]),
        "drawer right": np.array([front, -half, middle]),
    }
    return pieces, points


def _back(rng: np.random.Generator, low: float, half_w: float, top: float) -> tuple[Piece, Points]:
    """Make what stands on the back edge: a board, a rail on posts, or a board under a narrow shelf."""
    style = str(rng.choice(["board", "rail", "hood"]))
    thick = rng.uniform(0.06, 0.09)
    rise = rng.uniform(0.12, 0.28) if style == "board" else rng.uniform(0.22, 0.36)
    high = low + thick
    if style == "rail":
        bar = 0.4 * rise
        shapes = [box((low, -half_w, top + rise - bar), (high, half_w, top + rise))]
        for y in (half_w - 0.05, 0.0, 0.05 - half_w):
            shapes.append(box((low, y - 0.05, top), (high, y + 0.05, top + rise - bar)))
    else:
        shapes = [box((low, -half_w, top), (high, half_w, top + rise))]
    if style == "hood":
        shapes.append(box((high, -half_w, top + rise - 0.07), (high + rng.uniform(0.08, 0.2), half_w, top + rise)))
    points = {f"back top {lr}": np.array([low, y, top + rise]) for lr, y in (("left", half_w), ("right", -half_w))}
    return Piece("back", join(shapes)), points
