"""Procedural cars: saloon, hatchback, estate, van, pickup, sports car, jeep and bus."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from keyorbit.synthetic.shapes import Build, Piece, Shape, box, hull_between, join, tube

_SIDES = (("left", 1), ("right", -1))
_ENDS = (("front", 1), ("rear", -1))
CAR_KEYPOINTS = (
    *(f"{end} {side} wheel" for end, _ in _ENDS for side, _ in _SIDES),
    *(f"roof {end} {side}" for end, _ in _ENDS for side, _ in _SIDES),
    *(f"{end} bumper {side}" for end, _ in _ENDS for side, _ in _SIDES),
    *(f"windscreen base {side}" for side, _ in _SIDES),
    *(f"{side} headlight" for side, _ in _SIDES),
)
CAR_PAIRS = tuple((name, name.replace("left", "right")) for name in CAR_KEYPOINTS if "left" in name)

Points = dict[str, Float[ndarray, "3"]]
Range = tuple[float, float]


@dataclass(frozen=True)
class _Style:
    """Ranges of a kind of car in metres; bonnet and boot are shares of the length, rakes are horizontal runs."""

    length: Range
    width: Range
    body: Range
    cabin: Range
    bonnet: Range
    boot: Range
    front_rake: Range
    rear_rake: Range
    wheel: Range = (0.30, 0.37)
    clearance: Range = (0.18, 0.28)


_NONE = (0.0, 0.0)
_STYLES = {
    "saloon": _Style((4.1, 4.9), (1.7, 1.9), (0.5, 0.65), (0.5, 0.6), (0.23, 0.3), (0.15, 0.2), (0.4, 0.7), (0.3, 0.6)),
    "hatchback": _Style((3.3, 4.0), (1.6, 1.8), (0.5, 0.65), (0.55, 0.7), (0.18, 0.26), _NONE, (0.4, 0.7), (0.25, 0.5)),
    "estate": _Style((4.3, 5.0), (1.7, 1.9), (0.5, 0.65), (0.52, 0.65), (0.22, 0.28), _NONE, (0.4, 0.7), (0.08, 0.25)),
    "van": _Style((4.2, 5.2), (1.8, 2.0), (0.7, 0.9), (0.9, 1.2), (0.07, 0.14), _NONE, (0.4, 0.8), (0.0, 0.06)),
    "pickup": _Style(
        (4.7, 5.4), (1.8, 2.0), (0.55, 0.7), (0.55, 0.7), (0.22, 0.28), (0.3, 0.38), (0.3, 0.5), (0.0, 0.12),
        (0.36, 0.44),
    ),
    "sports": _Style(
        (3.9, 4.5), (1.75, 1.95), (0.4, 0.5), (0.38, 0.46), (0.3, 0.4), (0.1, 0.2), (0.5, 0.8), (0.4, 0.8),
        clearance=(0.14, 0.2),
    ),
    "jeep": _Style(
        (3.4, 4.2), (1.7, 1.9), (0.55, 0.7), (0.65, 0.85), (0.25, 0.33), _NONE, (0.05, 0.2), (0.0, 0.05), (0.4, 0.5),
        (0.35, 0.5),
    ),
    "bus": _Style(
        (6.5, 8.5), (2.2, 2.5), (0.8, 1.1), (1.3, 1.6), _NONE, _NONE, (0.05, 0.3), (0.0, 0.05), (0.42, 0.5), (0.3, 0.4)
    ),
}  # fmt: skip


@dataclass(frozen=True)
class _Measures:
    """One car: body from ``rear`` to ``front`` and ``floor`` to ``deck``, windows from ``belt`` up to ``roof``."""

    front: float
    rear: float
    half_w: float
    wheel: float
    floor: float
    deck: float
    belt: float
    roof: float
    cabin: Float[ndarray, "8 3"]  # base and roof: front left, rear left, rear right, front right

    def edge(self, corner: int, height: float) -> Float[ndarray, "3"]:
        """The point of a cabin's upright edge at a height."""
        share = (height - self.deck) / (self.roof - self.deck)
        return np.asarray((1 - share) * self.cabin[corner] + share * self.cabin[corner + 4])


def make_car(rng: np.random.Generator) -> Build:
    """Make one random car, in metres."""
    style = str(rng.choice(list(_STYLES)))
    spec = _STYLES[style]
    length, half_w = rng.uniform(*spec.length), rng.uniform(*spec.width) / 2
    floor = rng.uniform(*spec.clearance)
    belt = floor + rng.uniform(*spec.body)
    deck = belt - rng.uniform(0.1, 0.16)
    roof = belt + rng.uniform(*spec.cabin)
    front, rear = length / 2, -length / 2
    base_front = front - max(0.05, rng.uniform(*spec.bonnet) * length)
    base_rear = rear + max(0.05, rng.uniform(*spec.boot) * length)
    low_w = half_w - 0.04
    top_w = low_w - rng.uniform(0.04, 0.2)
    top_front, top_rear = base_front - rng.uniform(*spec.front_rake), base_rear + rng.uniform(*spec.rear_rake)
    cabin = np.concatenate(
        [_rectangle(base_rear, base_front, low_w, deck - 0.02), _rectangle(top_rear, top_front, top_w, roof)]
    )
    m = _Measures(front, rear, half_w, rng.uniform(*spec.wheel), floor, deck, belt, roof, cabin)
    body = hull_between(_rectangle(rear + 0.04, front - 0.04, half_w, floor), _rectangle(rear, front, half_w, deck))
    pieces = [Piece("body", body), Piece("cabin", hull_between(cabin[:4], cabin[4:])), *_hood_and_boot(rng, m, style)]
    roof_slab = hull_between(
        _rectangle(top_rear - 0.03, top_front + 0.03, top_w + 0.03, roof - 0.02),
        _rectangle(top_rear, top_front, top_w, roof + 0.07),
    )
    pieces += [Piece("roof", roof_slab), *_windows(rng, m, style)]
    points: Points = {
        f"roof {end} {side}": np.array([x, sy * top_w, roof + 0.07])
        for end, x in (("front", top_front), ("rear", top_rear))
        for side, sy in _SIDES
    }
    for side, corner in (("left", 0), ("right", 3)):
        points[f"windscreen base {side}"] = m.edge(corner, belt + 0.03)
    for more, where in (_wheels(rng, m, style), _bumpers(rng, m), _lights(rng, m, style)):
        pieces += more
        points |= where
    return Build(pieces + _extras(rng, m, style), points)


def _rectangle(x0: float, x1: float, half_w: float, z: float) -> Float[ndarray, "4 3"]:
    """A level rectangle, counter-clockwise from above: front left, rear left, rear right, front right."""
    return np.array([[x1, half_w, z], [x0, half_w, z], [x0, -half_w, z], [x1, -half_w, z]])


def _hood_and_boot(rng: np.random.Generator, m: _Measures, style: str) -> list[Piece]:
    """What rises from the deck before and behind the cabin: bonnet, boot, or a pickup's open bed."""
    pieces = []
    wide, sunk = m.half_w - 0.05, m.deck - 0.03
    if m.front - m.cabin[0, 0] > 0.2:
        back = float(m.edge(0, m.belt)[0]) - 0.02
        nose = m.front - 0.04
        low = np.array([[nose, wide, sunk], [back, wide, sunk], [back, -wide, sunk], [nose, -wide, sunk]])
        rise = np.array([[0, 0, rng.uniform(0.04, 0.09) + 0.03], [0, 0, m.belt - sunk]])
        high = low + rise[[0, 1, 1, 0]] - np.array([[0.06, 0, 0], [0, 0, 0], [0, 0, 0], [0.06, 0, 0]])
        high[:, 1] *= 0.94
        pieces.append(Piece("bonnet", hull_between(low, high)))
    room = m.cabin[1, 0] - m.rear
    if style == "pickup":
        start, top, wall = m.cabin[1, 0] + 0.05, m.belt + rng.uniform(0.0, 0.12), 0.14
        end = m.rear + 0.03
        walls = [box((end, y - wall / 2, sunk), (start, y + wall / 2, top)) for y in (wide - 0.02, -wide + 0.02)]
        walls.append(box((end - 0.02, -wide + 0.01, sunk), (end + wall, wide - 0.01, top - 0.02)))
        pieces.append(Piece("bed", join(walls)))
    elif room > 0.2:
        start, top = m.edge(1, m.belt)[0] + 0.02, m.belt - rng.uniform(0.0, 0.05)
        boot = hull_between(
            _rectangle(m.rear + 0.03, start, wide, sunk), _rectangle(m.rear + 0.08, start, 0.94 * wide, top)
        )
        pieces.append(Piece("boot", boot))
    return pieces


def _windows(rng: np.random.Generator, m: _Measures, style: str) -> list[Piece]:
    """Panes that stand out of the cabin a little; the windscreen is the largest, the rear window the smallest."""
    foot, head = m.belt + 0.05, m.roof - 0.05
    corners = {name: (m.edge(i, foot), m.edge(i, head)) for i, name in enumerate(("fl", "rl", "rr", "fr"))}
    pieces = [Piece("windscreen", _pane(corners["fr"], corners["fl"], 0.05, 0.95), "windows")]
    if style != "bus" or rng.random() < 0.5:
        pieces.append(Piece("rear window", _pane(corners["rl"], corners["rr"], 0.2, 0.8), "windows"))
    count = {"bus": int(rng.integers(4, 7)), "van": int(rng.choice([1, 1, 3])), "pickup": 1}.get(style, 2)
    # A delivery van has glass beside the driver only.
    end = 0.32 if style == "van" and count == 1 else 0.95
    marks = np.linspace(0.06, end, count + 1)
    gap = 0.02
    for side, front, rear in (("left", "fl", "rl"), ("right", "fr", "rr")):
        spans = [(a + gap, b - gap) for a, b in pairwise(marks)]
        if side == "left":
            panes = [_pane(corners[front], corners[rear], a, b) for a, b in spans]
        else:
            panes = [_pane(corners[rear], corners[front], 1 - b, 1 - a) for a, b in spans]
        pieces.append(Piece(f"{side} windows", join(panes), "windows"))
    return pieces


def _pane(start: tuple[ndarray, ndarray], end: tuple[ndarray, ndarray], a: float, b: float) -> Shape:
    """A pane on a wall between two upright edges, from share ``a`` to ``b``; the edges run left as seen from inside."""
    (low0, high0), (low1, high1) = start, end
    quad = np.array([low0 + a * (low1 - low0), low0 + b * (low1 - low0)])
    top = np.array([high0 + b * (high1 - high0), high0 + a * (high1 - high0)])
    ring = np.concatenate([quad, top])
    normal = np.cross(ring[1] - ring[0], ring[2] - ring[0])
    normal /= np.linalg.norm(normal)
    return hull_between(ring - 0.06 * normal, ring + 0.025 * normal)


def _wheels(rng: np.random.Generator, m: _Measures, style: str) -> tuple[list[Piece], Points]:
    pieces, points = [], {}
    length = m.front - m.rear
    front = m.front - m.wheel - rng.uniform(0.08, 0.13) * length
    rear = m.rear + m.wheel + rng.uniform(0.07, 0.14) * length * (1.4 if style == "bus" else 1.0)
    width = rng.uniform(0.18, 0.26)
    for end, x in (("front", front), ("rear", rear)):
        for side, sy in _SIDES:
            outer = np.array([x, sy * (m.half_w + 0.05), m.wheel])
            inner = outer - np.array([0.0, sy * width, 0.0])
            pieces.append(Piece(f"{end} {side} wheel", tube(np.stack([inner, outer]), m.wheel, 14), "wheels"))
            points[f"{end} {side} wheel"] = outer
    return pieces, points


def _bumpers(rng: np.random.Generator, m: _Measures) -> tuple[list[Piece], Points]:
    pieces, points = [], {}
    height, out = rng.uniform(0.15, 0.24), rng.uniform(0.05, 0.12)
    low = m.floor + 0.02
    wide = m.half_w + 0.02
    for end, sx in _ENDS:
        x = sx * (m.front + out)
        inside = sx * (m.front - 0.15)
        shape = box((min(x, inside), -wide, low), (max(x, inside), wide, low + height))
        pieces.append(Piece(f"{end} bumper", shape, "bumpers"))
        for side, sy in _SIDES:
            points[f"{end} bumper {side}"] = np.array([x, sy * wide, low + height / 2])
    return pieces, points


def _lights(rng: np.random.Generator, m: _Measures, style: str) -> tuple[list[Piece], Points]:
    """Two headlights, round or square, and two smaller tail lights."""
    pieces, points = [], {}
    room = m.deck - m.floor
    size = min(0.5 * room, rng.uniform(0.2, 0.28)) / 2
    z = m.deck - size - 0.01
    y = m.half_w - size - 0.06
    round_lights = style == "jeep" or rng.random() < 0.4
    for side, sy in _SIDES:
        centre = np.array([m.front + 0.04, sy * y, z])
        back = centre - np.array([0.14, 0.0, 0.0])
        if round_lights:
            shape = tube(np.stack([back, centre]), size, 10)
        else:
            half = np.array([0.0, 1.3 * size, size])
            shape = box(tuple(back - half), tuple(centre + half))
        pieces.append(Piece(f"{side} headlight", shape, "headlights"))
        points[f"{side} headlight"] = centre
    for side, sy in _SIDES:
        inner, outer = sorted((sy * (m.half_w - 0.05), sy * (m.half_w - 0.2)))
        shape = box((m.rear - 0.04, inner, z - size), (m.rear + 0.1, outer, z + size))
        pieces.append(Piece(f"{side} tail light", shape, "tail lights"))
    return pieces, points


def _extras(rng: np.random.Generator, m: _Measures, style: str) -> list[Piece]:
    """Mirrors, a spoiler, a spare wheel."""
    pieces = []
    if style == "bus" or rng.random() < 0.4:
        for side, corner, sy in (("left", 0, 1), ("right", 3, -1)):
            x, y, z = m.edge(corner, m.belt + 0.1)
            inner, outer = sorted((y - sy * 0.05, y + sy * 0.28))
            pieces.append(Piece(f"{side} mirror", box((x - 0.18, inner, z), (x - 0.06, outer, z + 0.18)), "mirrors"))
    if style == "sports" and rng.random() < 0.6:
        wide = m.half_w - 0.1
        blade = box((m.rear - 0.03, -wide, m.belt + 0.18), (m.rear + 0.3, wide, m.belt + 0.26))
        posts = [box((m.rear + 0.1, y - 0.06, m.deck), (m.rear + 0.2, y + 0.06, m.belt + 0.2)) for y in (-0.5, 0.5)]
        pieces.append(Piece("spoiler", join([blade, *posts])))
    if style == "jeep" and rng.random() < 0.7:
        x, z = m.rear, m.belt + 0.1
        pieces.append(Piece("spare wheel", tube([(x + 0.15, 0.0, z), (x - 0.2, 0.0, z)], 0.36, 14)))
    return pieces
