"""Tokens that are phrases: what the tiny model was told of parts, with no discovery at all.

The tiny model's training ties phrases, such as "lower front left leg of the chair", to places on objects, and these are
nearly landmarks. A phrase is one context row, the text encoder's at its end.
"""

from collections.abc import Sequence
from statistics import fmean

import torch

import keyorbit as ko
from keyorbit.detection.detector import Detection
from keyorbit.diffusion.backends.base import Backend
from keyorbit.discovery.initial import untrained
from keyorbit.objects.dataset import Objects

_SIDES = ("left", "right")


def _both(*phrases: str) -> tuple[str, ...]:
    """Each phrase with * as left and as right."""
    return tuple(phrase.replace("*", side) for phrase in phrases for side in _SIDES)


# Sixteen of the phrases that training can draw for each kind, chosen to lie all over an object.
PHRASES = {
    "chair": (
        *_both("lower front * leg", "lower back * leg", "* upper back", "front * seat", "rear * seat"),
        *_both("* lower back"),
        "upper back",
        "middle seat",
        "front seat",
        "middle back",
    ),
    "car": (
        *_both("front * wheel", "rear * wheel", "front * upper roof", "rear * upper roof", "* headlight"),
        *_both("* tail light"),
        "front lower body",
        "rear lower body",
        "middle bonnet",
        "middle roof",
    ),
    "aeroplane": (
        *_both("* * wing", "* * tailplane", "front * wing", "rear * wing", "* engine", "* wheel"),
        "front fuselage",
        "rear fuselage",
        "upper fin",
        "upper cockpit",
    ),
    "animal": (
        *_both("lower front * leg", "lower back * leg", "upper front * leg", "upper back * leg", "upper * ear"),
        "front head",
        "upper head",
        "front body",
        "rear body",
        "upper body",
        "rear tail",
    ),
}

# Those that say the same as the name of a landmark of the kind.
_SAME = {
    "chair": {
        "lower front * leg": "foot front *",
        "lower back * leg": "foot back *",
        "* upper back": "back top *",
        "front * seat": "seat front *",
        "rear * seat": "seat back *",
        "middle seat": "seat centre",
        "middle back": "back centre",
    },
    "car": {
        "front * wheel": "front * wheel",
        "rear * wheel": "rear * wheel",
        "front * upper roof": "roof front *",
        "rear * upper roof": "roof rear *",
        "* headlight": "* headlight",
    },
    "aeroplane": {
        "* * wing": "* wing tip",
        "* * tailplane": "* tailplane tip",
        "* engine": "* engine",
        "* wheel": "* wheel",
        "front fuselage": "nose",
        "rear fuselage": "tail end",
        "upper fin": "fin top",
        "upper cockpit": "cockpit top",
    },
    "animal": {
        "lower front * leg": "foot front *",
        "lower back * leg": "foot back *",
        "upper * ear": "* ear tip",
        "rear tail": "tail tip",
    },
}


def same_names(kind: str) -> dict[str, str]:
    """Phrases of a kind that say the same as a landmark's name, with that name."""
    return {
        phrase.replace("*", side): name.replace("*", side)
        for phrase, name in _SAME[kind].items()
        for side in (_SIDES if "*" in name else ("",))
    }


def distance_of_same(kind: str, found: Sequence[Detection], objects: Objects) -> float:
    """Mean distance of such phrases' points from the landmarks of the same name, in sizes of the object."""
    errors = []
    for detection, thing in zip(found, objects, strict=True):
        truth = thing.truth
        for phrase, name in same_names(kind).items():
            landmark = truth.names.index(name)
            if truth.known[landmark]:
                point = detection.keypoints_3d.xyz[PHRASES[kind].index(phrase)]
                errors.append(float((point - truth.keypoints_3d[landmark]).norm()))
    return fmean(errors)


@torch.no_grad()
def phrase_tokens(backend: Backend, kind: str, config: ko.DiscoverConfig | None = None) -> ko.Tokens:
    """The phrases of a kind as tokens; they have no constellation and are read one by one."""
    tokens = untrained(backend, config or ko.DiscoverConfig())
    return ko.Tokens(ko.Tokens.from_phrases(backend, PHRASES[kind]).embedding, tokens.info)
