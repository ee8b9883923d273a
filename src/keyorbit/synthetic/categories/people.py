"""Procedural people: posed by joint angles, in shirt, trousers or skirt, shoes, with hair or a hat."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from keyorbit.synthetic.shapes import (
    Build,
    Piece,
    box,
    ellipsoid,
    join,
    lathe,
    limb,
    rotation_about,
    surface_point,
    tube,
    turned,
    turned_build,
)

PERSON_KEYPOINTS = (
    "head top",
    "nose",
    "left eye",
    "right eye",
    "left shoulder",
    "right shoulder",
    "left elbow",
    "right elbow",
    "left hand",
    "right hand",
    "chest",
    "back",
    "left hip",
    "right hip",
    "left knee",
    "right knee",
    "left toe",
    "right toe",
)
PERSON_PAIRS = tuple(
    (f"left {name}", f"right {name}") for name in ("eye", "shoulder", "elbow", "hand", "hip", "knee", "toe")
)

_SIDES = (("left", 1.0), ("right", -1.0))


@dataclass(frozen=True)
class _Frame:
    """Lengths and half-widths of a person about 1.8 tall; the pelvis is at the origin.

    ``depth``: front-to-back over left-to-right thickness of the torso.
    """

    leg: float
    torso: float
    arm: float
    shoulders: float
    hips: float
    waist: float
    depth: float
    arm_radius: float
    leg_radius: float
    head: float


@dataclass(frozen=True)
class _Limb:
    """Joint angles in degrees: ``spread`` sideways from hanging, ``pitch`` then forwards, ``bend`` of elbow or knee.

    An elbow bends towards the direction ``towards``; a knee always backwards.
    """

    spread: float
    pitch: float
    bend: float
    towards: tuple[float, float, float] = (1.0, 0.0, 0.0)


def make_person(rng: np.random.Generator) -> Build:
    """Make one random person, about 1.8 tall."""
    stout = rng.uniform(0.85, 1.3)
    hips = rng.uniform(0.09, 0.12) * stout
    frame = _Frame(
        leg=rng.uniform(0.72, 0.98),
        torso=rng.uniform(0.52, 0.64),
        arm=rng.uniform(0.56, 0.70),
        shoulders=rng.uniform(0.17, 0.22) * stout,
        hips=hips,
        waist=hips + rng.uniform(0.03, 0.09) * stout,
        depth=rng.uniform(0.6, 0.85),
        arm_radius=rng.uniform(0.052, 0.062) * stout,
        leg_radius=rng.uniform(0.065, 0.078) * stout,
        head=rng.uniform(0.14, 0.20),
    )
    seated, legs = _leg_pose(rng)
    upper = _upper_body(rng, frame)
    twist = rotation_about("z", rng.uniform(-15, 15)) @ rotation_about("y", rng.uniform(-4, 14))
    parts = [turned_build(upper, twist, (0.0, 0.0, 0.0)), _lower_body(rng, frame, legs, skirt=not seated)]
    return Build(
        [piece for part in parts for piece in part.pieces],
        {name: point for part in parts for name, point in part.points.items()},
    )


def _leg_pose(rng: np.random.Generator) -> tuple[bool, list[_Limb]]:
    """Draw whether the person sits, and the pose of the left and the right leg."""
    style = str(rng.choice(["standing", "astride", "walking", "seated"], p=[0.3, 0.2, 0.38, 0.12]))
    if style == "seated":
        return True, [_Limb(rng.uniform(5, 20), rng.uniform(70, 90), rng.uniform(65, 95)) for _ in _SIDES]
    if style == "walking":
        poses = [
            _Limb(rng.uniform(3, 8), rng.uniform(18, 45), rng.uniform(0, 40)),
            _Limb(rng.uniform(3, 8), -rng.uniform(10, 30), rng.uniform(5, 50)),
        ]
        return False, poses if rng.random() < 0.5 else poses[::-1]
    spread = (4, 10) if style == "standing" else (12, 28)
    return False, [_Limb(rng.uniform(*spread), rng.uniform(-6, 8), rng.uniform(0, 10)) for _ in _SIDES]


def _arm_pose(rng: np.random.Generator, style: str) -> _Limb:
    """Draw joint angles of one arm. The elbow's direction is given for the left arm and mirrored for the right."""
    if style == "hanging":
        return _Limb(rng.uniform(14, 32), rng.uniform(-15, 15), rng.uniform(0, 40))
    if style == "swinging":
        return _Limb(rng.uniform(12, 25), rng.choice([-1, 1]) * rng.uniform(20, 45), rng.uniform(15, 80))
    if style == "level":
        return _Limb(rng.uniform(70, 100), rng.uniform(-10, 15), rng.uniform(0, 35))
    if style == "raised":
        return _Limb(rng.uniform(120, 155), rng.uniform(-10, 10), rng.uniform(0, 35), (0.0, 0.0, 1.0))
    if style == "waving":
        return _Limb(rng.uniform(75, 105), rng.uniform(-10, 15), rng.uniform(55, 100), (0.0, 0.0, 1.0))
    if style == "akimbo":
        return _Limb(rng.uniform(40, 55), rng.uniform(-15, 0), rng.uniform(75, 100), (0.0, -1.0, -0.6))
    return _Limb(rng.uniform(5, 20), rng.uniform(60, 100), rng.uniform(0, 50), (0.0, 0.0, 1.0))


def _upper_body(rng: np.random.Generator, frame: _Frame) -> Build:
    """Torso, arms and head, upright above the pelvis."""
    f = frame
    heights = f.torso * np.array([-0.05, 0.0, 0.35, 0.75, 0.92, 1.0])
    chest = f.shoulders - 0.15 * f.arm_radius
    radii = [0.8 * f.hips, f.hips + 0.7 * f.leg_radius, f.waist, chest, 0.92 * chest, 0.5 * chest]
    torso = tube(np.stack([0 * heights, 0 * heights, heights], 1), radii, 12, f.depth)
    pieces, arms = [Piece("shirt", torso)], _arms(rng, f)
    middle = (0.0, 0.0, 0.72 * f.torso)
    points = {"chest": surface_point([torso], middle, (1, 0, 0))}
    if rng.random() < 0.25:
        front, deep = -0.6 * chest * f.depth, rng.uniform(0.12, 0.2)
        wide, low = rng.uniform(0.6, 0.9) * chest, rng.uniform(0.15, 0.4) * f.torso
        back = -chest * f.depth - deep
        pieces.append(Piece("backpack", box((back, -wide, low), (front, wide, 0.95 * f.torso))))
    else:
        points["back"] = surface_point([torso], middle, (-1, 0, 0))
    shapes = [torso, *(piece.shape for piece in arms.pieces)]
    for lr, side in _SIDES:
        joint = (0.0, side * f.shoulders, 0.88 * f.torso)
        points[f"{lr} shoulder"] = surface_point(shapes, joint, (0, 0.5 * side, 1))
    neck = tube([(0, 0, 0.95 * f.torso), (0, 0, f.torso + 0.6 * f.head)], 0.45 * f.head)
    head = _head(rng, f, np.array([0.02, 0.0, f.torso + 1.2 * f.head]))
    return Build([*pieces, Piece("neck", neck), *arms.pieces, *head.pieces], points | arms.points | head.points)


def _arms(rng: np.random.Generator, frame: _Frame) -> Build:
    """Both arms, alike in half of the people, with hands and sometimes sleeves."""
    styles = ["hanging", "swinging", "level", "raised", "waving", "akimbo", "forward"]
    pair = [str(name) for name in rng.choice(styles, 2, p=[0.2, 0.2, 0.15, 0.15, 0.12, 0.08, 0.1])]
    if rng.random() < 0.5:
        pair[1] = pair[0]
    sleeves = rng.random() < 0.4
    r, half = frame.arm_radius, frame.arm / 2
    pieces: list[Piece] = []
    points = {}
    for (lr, side), style in zip(_SIDES, pair, strict=True):
        pose = _arm_pose(rng, style)
        shoulder = np.array([0.0, side * frame.shoulders, 0.88 * frame.torso])
        upper = _direction(pose, side)
        towards = np.array(pose.towards) * [1.0, side, 1.0]
        towards = towards - (towards @ upper) * upper
        towards /= np.linalg.norm(towards)
        bend = np.deg2rad(pose.bend)
        fore = np.cos(bend) * upper + np.sin(bend) * towards
        elbow = shoulder + half * upper
        wrist = elbow + half * fore
        pieces.append(Piece(f"{lr} arm", limb([shoulder, elbow, wrist], [1.15 * r, r, 0.85 * r], 7), "arms"))
        pieces.append(Piece(f"{lr} hand", ellipsoid(wrist + 0.6 * r * fore, 1.3 * r, 8), "hands"))
        if sleeves:
            cuff = shoulder + rng.uniform(0.55, 0.8) * half * upper
            pieces.append(Piece(f"{lr} sleeve", limb([shoulder, cuff], [1.4 * r, 1.35 * r]), "sleeves"))
        points[f"{lr} elbow"] = elbow - 0.85 * r * towards
        points[f"{lr} hand"] = wrist + 1.8 * r * fore
    return Build(pieces, points)


def _head(rng: np.random.Generator, frame: _Frame, middle: Float[ndarray, "3"]) -> Build:
    """The head with a face of its own colour in front, then turned and nodded about its middle."""
    h = frame.head
    skull = ellipsoid(middle, (0.92 * h, 0.85 * h, 1.1 * h))
    face = ellipsoid(middle + np.array([0.3 * h, 0, -0.1 * h]), (0.75 * h, 0.72 * h, 0.85 * h), 8)
    tip = middle + np.array([1.1 * h, 0, -0.12 * h])
    nose = ellipsoid(tip, (0.22 * h, 0.17 * h, 0.2 * h), 8)
    pieces = [Piece("head", skull), Piece("face", face), Piece("nose", nose)]
    points = {"nose": tip + np.array([0.22 * h, 0, 0])}
    for lr, side in _SIDES:
        outward = np.array([1.0, 0.38 * side, 0.2])
        eye = ellipsoid(surface_point([face], middle, outward), 0.17 * h, 6)
        pieces.append(Piece(f"{lr} eye", eye, "eyes"))
        points[f"{lr} eye"] = surface_point([eye], middle, outward)
    pieces += _head_wear(rng, h, middle)
    points["head top"] = surface_point([piece.shape for piece in pieces], middle, (0, 0, 1))
    look = rotation_about("z", rng.uniform(-35, 35)) @ rotation_about("y", rng.uniform(-12, 15))
    return turned_build(Build(pieces, points), look, middle)


def _head_wear(rng: np.random.Generator, h: float, middle: Float[ndarray, "3"]) -> list[Piece]:
    """Hair, short or long; a hat with a brim; a cap with a peak in front; or nothing."""
    style = str(rng.choice(["short hair", "long hair", "hat", "cap", "bald"], p=[0.3, 0.2, 0.2, 0.2, 0.1]))
    if style == "bald":
        return []
    if style == "hat":
        profile = [(0.9, 0.45), (1.45, 0.5), (1.45, 0.6), (0.88, 0.65), (0.75, rng.uniform(1.2, 1.7))]
        return [Piece("hat", lathe([(r * h, middle[2] + z * h) for r, z in profile], middle[:2], 12))]
    if style == "cap":
        dome = lathe([(r * h, middle[2] + z * h) for r, z in ((1, 0.4), (0.95, 0.8), (0.6, 1.2))], middle[:2], 12)
        peak = box(middle + np.array([0.7 * h, -0.6 * h, 0.45 * h]), middle + np.array([1.7 * h, 0.6 * h, 0.58 * h]))
        return [Piece("cap", join([dome, peak]))]
    hair = [ellipsoid(middle + np.array([-0.2 * h, 0, 0.18 * h]), (0.92 * h, 0.98 * h, 1.1 * h))]
    if style == "long hair":
        fall = middle + np.array([[-0.5 * h, 0, 0.3 * h], [-0.75 * h, 0, -0.6 * h], [-0.9 * h, 0, -1.7 * h]])
        hair.append(tube(fall, [0.8 * h, 0.75 * h, 0.5 * h]))
    return [Piece("hair", join(hair))]


def _lower_body(rng: np.random.Generator, frame: _Frame, poses: list[_Limb], skirt: bool) -> Build:
    """Make the pelvis in trousers or a skirt, legs and shoes. The hips are the outermost points of the pelvis."""
    f = frame
    r, half, wide = f.leg_radius, f.leg / 2, f.hips + f.leg_radius
    if skirt and rng.random() < 0.3:
        hem = rng.uniform(0.35, 0.55) * f.leg
        cloth = tube(
            [(0, 0, -hem), (0, 0, -0.05), (0, 0, 0.1)], [wide * rng.uniform(1.2, 1.7), wide, 0.9 * wide], 12, 0.9
        )
        pieces = [Piece("skirt", cloth)]
    else:
        heights = [(0, 0, -1.1 * r), (0, 0, -0.6 * r), (0, 0, 0.0), (0, 0, 0.07)]
        cloth = tube(heights, [0.55 * wide, 0.9 * wide, wide, wide], 12, f.depth)
        pieces = [Piece("trousers", cloth)]
    points = {f"{lr} hip": surface_point([cloth], (0, 0, 0.0), (0, side, 0)) for lr, side in _SIDES}
    shoes = []
    for (lr, side), pose in zip(_SIDES, poses, strict=True):
        hip = np.array([0.0, side * f.hips, -0.4 * r])
        thigh = _direction(pose, side)
        shin = rotation_about("y", pose.bend) @ thigh
        knee = hip + half * thigh
        ankle = knee + half * shin
        pieces.append(Piece(f"{lr} leg", limb([hip, knee, ankle], [1.15 * r, 0.92 * r, 0.75 * r], 7), "legs"))
        ahead = rotation_about("y", pose.bend / 2 - pose.pitch) @ np.array([1.0, 0.0, 0.0])
        points[f"{lr} knee"] = knee + 0.8 * r * ahead
        # The sole stands square to the shin, toes turned out a little.
        length = rng.uniform(0.19, 0.24)
        path = np.array([[-0.07, 0, -0.01], [-0.05, 0, 0], [0.45 * length, 0, -0.01], [length, 0, -0.02]]) + ankle
        shoe = tube(path, [0.5 * r, 0.95 * r, 0.85 * r, 0.4 * r], 6)
        aim = rotation_about("y", pose.bend - pose.pitch) @ rotation_about("z", side * rng.uniform(0, 20))
        shoes.append(Piece(f"{lr} shoe", turned(shoe, aim, ankle), "shoes"))
        points[f"{lr} toe"] = aim @ (path[-1] - ankle) + ankle
    return Build(pieces + shoes, points)


def _direction(pose: _Limb, side: float) -> Float[ndarray, "3"]:
    """The direction of an upper arm or a thigh; hanging is (0, 0, -1)."""
    spread = rotation_about("x", side * pose.spread) @ np.array([0.0, 0.0, -1.0])
    return np.asarray(rotation_about("y", -pose.pitch) @ spread)
