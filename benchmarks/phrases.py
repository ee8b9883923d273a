"""Tokens that are phrases: what the tiny model was told of parts, with no discovery at all.

The tiny model's training ties phrases, such as "lower front left leg of the chair", to places on objects, and these are
nearly landmarks. A phrase is one context row, the text encoder's at its end.
"""

import torch

import keyorbit as ko
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.backends.text import encode_phrases
from keyorbit.discovery.initial import untrained

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


@torch.no_grad()
def phrase_tokens(backend: Backend, kind: str, config: ko.DiscoverConfig | None = None) -> ko.Tokens:
    """The phrases of a kind as tokens; they have no constellation and are read one by one."""
    parts, tokens = backend.parts, untrained(backend, config or ko.DiscoverConfig())
    rows = encode_phrases(parts.tokenizer, parts.text_encoder, PHRASES[kind])
    return ko.Tokens(rows.float().cpu(), tokens.info)
