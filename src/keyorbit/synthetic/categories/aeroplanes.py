"""Procedural aeroplanes: airliner, T-tailed jet, fighter, light aeroplane, twin propeller aeroplane, biplane."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from keyorbit.synthetic.shapes import (
    Build,
    Piece,
    Shape,
    box,
    ellipsoid,
    hull_between,
    join,
    rotation_about,
    tube,
    turned,
)

_SIDES = (("left", 1), ("right", -1))
AEROPLANE_KEYPOINTS = (
    "nose",
    "tail end",
    "fin top",
    "cockpit top",
    *(
        f"{side} {place}"
        for place in ("wing tip", "wing root front", "wing root back", "tailplane tip", "engine", "wheel")
        for side, _ in _SIDES
    ),
)
AEROPLANE_PAIRS = tuple((name, name.replace("left", "right")) for name in AEROPLANE_KEYPOINTS if "left" in name)

Points = dict[str, Float[ndarray, "3"]]
STYLES = ("airliner", "t tail jet", "fighter", "light", "twin", "biplane")


@dataclass(frozen=True)
class _Wing:
    """The left half of a wing: leading edge at the root (on the middle plane) and at the tip, and both chords."""

    root: Float[ndarray, "3"]
    tip: Float[ndarray, "3"]
    root_chord: float
    tip_chord: float
    thick: float

    def at(self, share: float, along: float, side: int = 1) -> Float[ndarray, "3"]:
        """The point at ``share`` of the half span and ``along`` of the chord, from the leading edge back."""
        edge = self.root + share * (self.tip - self.root)
        chord = self.root_chord + share * (self.tip_chord - self.root_chord)
        return np.asarray((edge - np.array([along * chord, 0.0, 0.0])) * (1, side, 1))

    def shape(self, side: int) -> Shape:
        rings = []
        for share in (0.0, 1.0):
            middles = [self.at(share, along, side) for along in (0.0, 0.3, 1.0, 0.3)]
            lift = np.array([0.0, 0.5, 0.0, -0.5])[:, None] * self.thick * np.array([0.0, 0.0, 1.0])
            rings.append((np.array(middles) + lift)[::-side])
        return hull_between(rings[0], rings[1])


def make_aeroplane(rng: np.random.Generator) -> Build:
    """Make one random aeroplane, about 1 long, with its nose at x = 0.5."""
    style = str(rng.choice(STYLES))
    jet = style in ("airliner", "t tail jet", "fighter")
    radius = rng.uniform(0.05, 0.07) if jet else rng.uniform(0.06, 0.085)
    rise = rng.uniform(0.2, 0.6) * radius
    wing = _wing(rng, style, radius)
    pieces, points = _fuselage(rng, style, radius, rise, bool(wing.root[2] > 0))
    for side, sy in _SIDES:
        pieces.append(Piece(f"{side} wing", wing.shape(sy), "wings"))
        points[f"{side} wing tip"] = wing.at(1.0, 0.5, sy)
        half = max(float(np.sqrt(max(radius**2 - wing.root[2] ** 2, 0.0))), 0.4 * radius)
        share = half / wing.tip[1]
        points[f"{side} wing root front"] = wing.at(share, 0.0, sy)
        points[f"{side} wing root back"] = wing.at(share, 1.0, sy)
    tail_pieces, tail_points = _tail(rng, style, radius, rise)
    pieces += tail_pieces
    points |= tail_points
    if style in ("airliner", "t tail jet", "twin"):
        more, where = _engines(rng, style, radius, wing)
        pieces += more
        points |= where
    if not jet:
        more, where = _gear(rng, radius, wing)
        pieces += more
        points |= where
    if style == "biplane":
        pieces += _upper_wing(rng, radius, wing)
    elif style == "light" and wing.root[2] > 0:
        pieces += _struts(wing, radius)
    return Build(pieces, points)


def _fuselage(
    rng: np.random.Generator, style: str, radius: float, rise: float, high_wing: bool
) -> tuple[list[Piece], Points]:
    """Fuselage, cockpit, and a propeller on the nose of light aeroplanes and biplanes."""
    propeller = style in ("light", "biplane")
    if style == "fighter":
        profile = [(0.5, 0.08), (0.4, 0.45), (0.28, 0.8), (0.12, 1.0), (-0.3, 1.0), (-0.5, 0.65)]
    elif propeller:
        profile = [(0.46, 0.6), (0.44, 0.8), (0.3, 0.95), (0.1, 1.0), (-0.1, 0.85), (-0.5, 0.22)]
    else:
        profile = [(0.5, 0.12), (0.48, 0.5), (0.44, 0.78), (0.38, 0.97), (0.3, 1.0), (-0.15, 1.0), (-0.5, 0.22)]
    x, share = np.array(profile).T
    z = np.where(x < -0.2, rise, 0.0) if style != "fighter" else np.zeros(len(x))
    path = np.stack([x, np.zeros(len(x)), z], 1)
    pieces = [Piece("fuselage", tube(path, tuple(share * radius), 12))]
    points: Points = {"nose": path[0], "tail end": path[-1]}
    if propeller:
        points["nose"] = np.array([0.53, 0.0, 0.0])
        pieces.append(
            Piece("propeller", _propeller(rng, (0.47, 0.0, 0.0), 0.06, 0.5 * radius, rng.uniform(1.7, 2.2) * radius))
        )
    at = {"airliner": 0.41, "t tail jet": 0.40, "twin": 0.39, "fighter": 0.17, "light": 0.12, "biplane": -0.06}[style]
    if style == "light" and high_wing:
        at = 0.26  # ahead of the wing, which would hide it
    large = style in ("fighter", "light", "biplane")
    long, high = (rng.uniform(0.1, 0.13), rng.uniform(0.55, 0.8)) if large else (0.055, 0.4)
    base = float(np.interp(at, x[::-1], share[::-1])) * radius
    size = (long, (0.7 if large else 0.62) * radius, high * radius)
    centre = (at, 0.0, base - (0.1 if large else 0.22) * radius)
    pieces.append(Piece("cockpit", ellipsoid(centre, size, 10)))
    points["cockpit top"] = np.array([at, 0.0, centre[2] + size[2]])
    return pieces, points


def _propeller(
    rng: np.random.Generator, hub: tuple[float, float, float], spinner: float, hub_radius: float, reach: float
) -> Shape:
    """Two to four blades about the x axis, and a pointed hub that ends ``spinner`` before ``hub``."""
    count = int(rng.integers(2, 5))
    x, y, z = hub
    width = 0.03
    blade = box((x, y - width / 2, z), (x + 0.02, y + width / 2, z + reach))
    start = rng.uniform(0, 360)
    blades = [turned(blade, rotation_about("x", start + 360 * k / count), hub) for k in range(count)]
    path = [(x - 0.03, y, z), (x + 0.5 * spinner, y, z), (x + spinner, y, z)]
    return join([tube(path, [hub_radius, 0.8 * hub_radius, 0.15 * hub_radius], 8), *blades])


def _wing(rng: np.random.Generator, style: str, radius: float) -> _Wing:
    """The main wing: low, middle or high; straight or swept."""
    height = {"fighter": 0.0, "biplane": -0.7}.get(style, float(rng.choice([-0.6, 0.92])))
    if style in ("airliner", "t tail jet"):
        height = -0.6 if style == "t tail jet" or rng.random() < 0.8 else 0.92
        chord, taper, sweep, span = (
            rng.uniform(0.16, 0.22),
            rng.uniform(0.3, 0.45),
            rng.uniform(0.45, 0.75),
            (0.4, 0.52),
        )
        front = rng.uniform(0.1, 0.18)
    elif style == "fighter":
        chord, taper, sweep, span = rng.uniform(0.35, 0.5), rng.uniform(0.15, 0.35), rng.uniform(0.7, 1.1), (0.27, 0.36)
        front = rng.uniform(0.08, 0.16)
    else:
        chord, taper, sweep, span = rng.uniform(0.14, 0.2), rng.uniform(0.6, 1.0), rng.uniform(0.0, 0.12), (0.45, 0.6)
        front = rng.uniform(0.17, 0.24)
    half = rng.uniform(*span)
    dihedral = rng.uniform(0.0, 0.12) if height <= 0 and style != "fighter" else rng.uniform(-0.04, 0.03)
    root = np.array([front, 0.0, height * radius])
    return _Wing(
        root, root + np.array([-sweep * half, half, dihedral * half]), chord, taper * chord, rng.uniform(0.022, 0.03)
    )


def _tail(rng: np.random.Generator, style: str, radius: float, rise: float) -> tuple[list[Piece], Points]:
    """Fin and tailplane; the tailplane sits on the fuselage or near the fin's top."""
    z = 0.0 if style == "fighter" else rise
    height = rng.uniform(0.17, 0.24) + 0.5 * radius
    chord, taper, sweep = rng.uniform(0.13, 0.18), rng.uniform(0.5, 0.8), rng.uniform(0.3, 0.8)
    end = rng.uniform(-0.49, -0.46)
    lean = sweep * height
    # The fin is a wing that stands upright: built on its side, its span along y becomes z.
    edge = np.array([end + chord, 0.0, 0.0])
    fin = _Wing(edge, edge + np.array([-lean, height, 0.0]), chord, taper * chord, 0.025)
    upright = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    place = np.array([0.0, 0.0, z])
    flat = fin.shape(1)
    shape = Shape(flat.vertices @ upright.T + place, flat.faces)
    points: Points = {"fin top": upright @ fin.at(1.0, 0.5) + place}
    pieces = [Piece("fin", shape)]
    t_tail = style == "t tail jet" or (style in ("light", "twin") and rng.random() < 0.2)
    span, plane_chord = rng.uniform(0.15, 0.21), rng.uniform(0.1, 0.13)
    plane_sweep = rng.uniform(0.3, 0.6) if style in ("airliner", "t tail jet", "fighter") else rng.uniform(0.0, 0.2)
    if t_tail:
        root = upright @ fin.at(0.88, 0.0) + place + np.array([0.01, 0, 0])
    else:
        root = np.array([end + plane_chord + 0.02, 0.0, z + 0.01])
    plane = _Wing(root, root + np.array([-plane_sweep * span, span, 0.0]), plane_chord, 0.65 * plane_chord, 0.022)
    for side, sy in _SIDES:
        pieces.append(Piece(f"{side} tailplane", plane.shape(sy), "tailplane"))
        points[f"{side} tailplane tip"] = plane.at(1.0, 0.5, sy)
    return pieces, points


def _engines(rng: np.random.Generator, style: str, radius: float, wing: _Wing) -> tuple[list[Piece], Points]:
    """Engines under the wings, beside the tail, or with propellers on the wings."""
    pieces: list[Piece] = []
    points: Points = {}
    size = rng.uniform(0.026, 0.036)
    long = rng.uniform(0.1, 0.14)
    share = rng.uniform(0.3, 0.4)
    reach = rng.uniform(0.075, 0.095)
    for side, sy in _SIDES:
        if style == "t tail jet":
            front = np.array([-0.16, sy * (radius + 0.9 * size), 0.45 * radius])
        elif style == "airliner":
            front = wing.at(share, 0.0, sy) + np.array([0.06, 0.0, -size - 0.008])
        else:
            front = wing.at(share, 0.0, sy) + np.array([0.06, 0.0, 0.0])
        back = front - np.array([long, 0.0, 0.0])
        shape = tube(np.stack([front, front - (0.3 * long, 0, 0), back]), [0.9 * size, size, 0.6 * size], 10)
        pieces.append(Piece(f"{side} engine", shape, "engines"))
        points[f"{side} engine"] = front
        if style == "twin":
            hub = (float(front[0]) + 0.005, float(front[1]), float(front[2]))
            pieces.append(Piece(f"{side} propeller", _propeller(rng, hub, 0.04, 0.5 * size, reach), "propellers"))
            points[f"{side} engine"] = front + np.array([0.045, 0.0, 0.0])
    return pieces, points


def _gear(rng: np.random.Generator, radius: float, wing: _Wing) -> tuple[list[Piece], Points]:
    """Two wheels on legs under the wing."""
    pieces: list[Piece] = []
    points: Points = {}
    size, half = rng.uniform(0.03, 0.04), 0.016
    down, out = -radius - rng.uniform(0.05, 0.08), rng.uniform(1.1, 1.6) * radius
    x = float(wing.root[0]) - 0.04
    for side, sy in _SIDES:
        hub = np.array([x, sy * out, down])
        outer, inner = hub + np.array([0, sy * half, 0]), hub - np.array([0, sy * half, 0])
        leg = tube([tuple(hub), (x, sy * 0.4 * radius, -0.5 * radius)], 0.012, 6)
        pieces.append(Piece(f"{side} leg", leg, "legs"))
        pieces.append(Piece(f"{side} wheel", tube(np.stack([inner, outer]), size, 10), "wheels"))
        points[f"{side} wheel"] = outer
    return pieces, points


def _upper_wing(rng: np.random.Generator, radius: float, wing: _Wing) -> list[Piece]:
    lift = np.array([rng.uniform(0.0, 0.04), 0.0, rng.uniform(2.6, 3.2) * radius])
    upper = _Wing(wing.root + lift, wing.tip + lift, wing.root_chord, wing.tip_chord, wing.thick)
    posts = [
        tube(np.stack([wing.at(share, 0.4, sy), upper.at(share, 0.4, sy)]), 0.011, 6)
        for share in (0.12, 0.75)
        for _, sy in _SIDES
    ]
    return [Piece("upper wing", join([upper.shape(1), upper.shape(-1)])), Piece("struts", join(posts))]


def _struts(wing: _Wing, radius: float) -> list[Piece]:
    """Braces from the fuselage up to a high wing."""
    foot = wing.at(0.0, 0.4) * (1, 0, 0)
    ends = [(foot + np.array([0, sy * 0.6 * radius, -0.6 * radius]), wing.at(0.5, 0.4, sy)) for _, sy in _SIDES]
    return [Piece("struts", join([tube(np.stack([low, high]), 0.011, 6) for low, high in ends]))]
