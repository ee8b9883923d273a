"""Tokens that are phrases: what the tiny model was told of parts, with no discovery at all.

``python benchmarks/phrases.py`` measures them on all eight kinds of objects, four of which the model was never shown.

The tiny model's training ties phrases, such as "lower front left leg of the chair", to places on objects, and these are
nearly landmarks. A phrase is one context row, the text encoder's at its end.
"""

import argparse
from collections.abc import Sequence
from statistics import fmean, stdev

import torch

import keyorbit as ko
from keyorbit.detection.detector import Detection
from keyorbit.diffusion.backends.base import Backend
from keyorbit.discovery.initial import untrained
from keyorbit.objects.dataset import Objects
from keyorbit.synthetic.choices import MAX_OBJECTS
from keyorbit.synthetic.samples import SampleSpec, as_object, make_samples

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

# The same for kinds that the tiny model was never shown; it knows these words from other kinds, or only their letters.
UNSEEN = {
    "table": (
        *_both(
            "lower front * leg", "lower back * leg", "upper front * top", "upper rear * top", "* panel", "front * top"
        ),
        "top",
        "drawer",
        "shelf",
        "middle top",
    ),
    "lamp": (
        "base",
        "lower pole",
        "middle pole",
        "upper pole",
        "upper shade",
        "lower shade",
        "middle shade",
        "bulb",
        "lower arm",
        "upper arm",
        "lower joint",
        "upper joint",
        "switch",
        "front base",
        "rear base",
        "front shade",
    ),
    "mug": (
        *_both("upper * body", "lower * body", "middle * body"),
        "upper handle",
        "lower handle",
        "middle handle",
        "upper front body",
        "upper rear body",
        "lower front body",
        "lower rear body",
        "label",
        "lid",
        "plate",
    ),
    "person": (
        *_both("lower * leg", "upper * leg", "* arm", "* hand", "* shoe", "* eye"),
        "upper head",
        "nose",
        "neck",
        "middle shirt",
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


def measured(backend: Backend, kind: str, fit: Objects, test: Objects, seed: int) -> list[float]:
    """A kind's figures for the objects of a seed: landmarks by its phrases and by random tokens, and same names."""
    blank = untrained(backend, ko.DiscoverConfig(seed=seed))
    spoken = ko.Tokens.from_phrases(backend, (PHRASES | UNSEEN)[kind]).embedding
    figures = []
    for embedding in (spoken, blank.embedding):
        detector = ko.KeypointDetector(backend, ko.Tokens(embedding, blank.info), ko.DetectConfig(seed=seed))
        found = [detector.detect_object(thing) for thing in test]
        fitted = [detector.detect_object(thing) for thing in fit]
        figures.append(ko.evaluate(found, test, fitted, fit).measures["mpjpe"])
        if embedding is spoken and kind in PHRASES:
            same = distance_of_same(kind, found, test)
    return [*figures, same] if kind in PHRASES else figures


def cell(values: Sequence[float]) -> str:
    """Mean and standard deviation in per cent."""
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * fmean(values):.1f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=[*PHRASES, *UNSEEN])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of noise, random tokens and objects")
    parser.add_argument("--fit", type=int, default=24, help="objects on which landmarks are fitted")
    parser.add_argument("--test", type=int, default=12)
    args = parser.parse_args()
    backend = ko.load_backend("tiny")
    print("| kind | 3D landmarks, % | random tokens, % | the phrase's own landmark, % |\n|---|---|---|---|", flush=True)
    for kind in args.kinds:
        each = []
        for seed in args.seeds:
            fit, test = (
                [as_object(s) for s in make_samples([SampleSpec(kind, first + i) for i in range(count)], 1)]
                for first, count in (
                    (1 * MAX_OBJECTS + seed * args.fit, args.fit),
                    (3 * MAX_OBJECTS + seed * args.test, args.test),
                )
            )
            each.append(measured(backend, kind, fit, test, seed))
        cells = [cell(values) for values in zip(*each, strict=True)]
        print(f"| {kind} | {' | '.join(cells)} |{'' if kind in PHRASES else ' – |'}", flush=True)


if __name__ == "__main__":
    main()
