"""Keypoints from marked objects against the truth on held-out ones: ``python benchmarks/marks.py --json marks.json``.

Of 24 procedural objects 1, 2, 5, 10 or all have their landmarks marked, by their true places in space; which ones is
drawn by the seed, and the same for every row. Each row then tells the landmarks of held-out objects, by their names:

- marks: as `ko.mark` makes them, with the others as objects without marks
- marks alone: the same without objects that have no marks
- discovery: 16 keypoints found on the 24 objects; landmarks are weighted means of them, fitted on the marked objects
  without misfits, as `evaluate` does
- matching: nearest neighbours of the same UNet's features, as DIFT does, mean over the marked objects

Errors are distances in sizes of the object (the sphere about it has the diameter 1), mean over all landmarks that an
object has; pck is the share of landmarks within 0.1. Figures are written after every row, and a run with the same
settings goes on from them.
"""

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

import keyorbit as ko
from keyorbit.detection.detector import KeypointDetector
from keyorbit.detection.marking import fit_marks
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.recording import Recording
from keyorbit.discovery.initial import untrained
from keyorbit.evaluation.landmarks import Judged, fit_weights
from keyorbit.evaluation.metrics import apply_landmark_weights
from keyorbit.geometry.hull import SURFACE_SPACING, in_sight, sampled, surface_points
from keyorbit.objects.dataset import Truth
from matching import Points, features, matched
from quality import Figures, cell, keep, resumed, split
from shared_work import SharedWork

CATEGORIES = ("chair", "car", "aeroplane", "animal")
NEAR = 0.1
SHOWN = ("error", "pck")


@dataclass(frozen=True, eq=False)
class Seen:
    """One object as all rows see it: recorded once, with the UNet's features.

    blind: recorded as a marked object is, for objects that can be marked.
    """

    recording: Recording
    blind: Recording | None
    features: Float[Tensor, "view channel side side"]

    @property
    def truth(self) -> Truth:
        """Its landmarks."""
        truth = self.recording.thing.truth
        assert truth is not None
        return truth


@dataclass(frozen=True, eq=False)
class World:
    """What the rows of a category share."""

    backend: Zero123PlusBackend
    detector: KeypointDetector
    train: Sequence[Seen]
    test: Sequence[Seen]
    work: SharedWork


def seen(detector: KeypointDetector, blind: KeypointDetector | None, thing: ko.ObjectViews) -> Seen:
    """The object recorded."""
    with features(detector.backend) as maps:
        recording = detector.record(thing)
    return Seen(recording, None if blind is None else blind.record(thing), maps[0])


def world_of(backend: Zero123PlusBackend, category: str, train: int, test: int, workers: int) -> World:
    """The objects of a category."""
    tokens, noises = untrained(backend, ko.DiscoverConfig()), ko.MarkConfig.noises
    detector = KeypointDetector(backend, tokens, ko.DetectConfig(noises=noises))
    blind = KeypointDetector(backend, tokens, ko.DetectConfig(noises=noises, blind=noises - 1))
    groups = [
        [seen(detector, how, thing) for thing in split(category, name, count, backend.view_size, workers)]
        for name, count, how in (("train", train, blind), ("test", test, None))
    ]
    return World(backend, detector, *groups, SharedWork())


def figures(found: Sequence[Float[Tensor, "landmark 3"]], test: Sequence[Seen]) -> Figures:
    """The errors of landmarks."""
    errors = [
        error
        for points, thing in zip(found, test, strict=True)
        for error in (points - thing.truth.keypoints_3d).norm(dim=-1)[thing.truth.known].tolist()
    ]
    return {"error": fmean(errors), "pck": fmean(error < NEAR for error in errors)}


def marks_of(thing: Seen) -> list[ko.Mark]:
    """All landmarks of an object, in space; those that the hull has not within reach are left out."""
    truth, name = thing.truth, thing.recording.thing.name
    each = zip(truth.names, truth.known.tolist(), truth.keypoints_3d.tolist(), strict=True)
    return [ko.Mark(landmark, name, xyz=tuple(xyz)) for landmark, known, xyz in each if known]


def by_marks(world: World, chosen: Sequence[int], seed: int, alone: bool) -> Figures:
    """Tokens of the marks."""
    began = time.monotonic()
    others = [] if alone else [thing.recording for i, thing in enumerate(world.train) if i not in chosen]
    some = [*(world.train[i].blind for i in chosen), *others]
    marks = [mark for i in chosen for mark in marks_of(world.train[i])]
    tokens = fit_marks(world.backend, some, marks, ko.MarkConfig(seed=seed)).tokens
    seconds = time.monotonic() - began
    detector, names = KeypointDetector(world.backend, tokens), world.train[0].truth.names
    order = [tokens.info.names.index(name) if name in tokens.info.names else 0 for name in names]
    found = [detector.read(thing.recording).keypoints_3d.xyz[order] for thing in world.test]
    return figures(found, world.test) | {"seconds": seconds}


def by_discovery(world: World, chosen: Sequence[int], tokens: ko.Tokens) -> Figures:
    """Landmarks as weighted means of discovered keypoints."""
    detector = KeypointDetector(world.backend, tokens)
    fitted, found = (
        torch.stack([detector.read(thing.recording).keypoints_3d.xyz for thing in group])
        for group in ([world.train[i] for i in chosen], world.test)
    )
    truths = [world.train[i].truth for i in chosen]
    landmarks, known = (torch.stack([getattr(t, name) for t in truths]) for name in ("keypoints_3d", "known"))
    weights, _ = fit_weights(Judged(fitted, landmarks, known, torch.ones(len(truths), dtype=torch.int64)))
    return figures(list(apply_landmark_weights(weights, found)), world.test)


def by_matching(world: World, chosen: Sequence[int]) -> Figures:
    """Nearest neighbours of features: means over the views that see a landmark, and over the marked objects."""
    total, count = 0, 0
    for thing in (world.train[i] for i in chosen):
        truth, recording = thing.truth, thing.recording
        surface = surface_points(recording.shown.silhouette.distance, recording.cameras)
        sight = in_sight(truth.keypoints_3d, surface, recording.cameras, SURFACE_SPACING) & truth.known
        each = sampled(thing.features, recording.cameras.project(truth.keypoints_3d), "border")
        total, count = total + (each * sight[:, None]).sum(0), count + sight.sum(0)
    points = Points(F.normalize((total / count.clamp_min(1)).T, dim=-1))
    return figures([matched(points, thing.recording, thing.features).xyz for thing in world.test], world.test)


def chosen_objects(count: int, objects: int, seed: int) -> list[int]:
    """Which objects are marked: those of fewer marks are among those of more."""
    return random.Random(seed).sample(range(objects), objects)[:count]


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    settings = {name: getattr(args, name) for name in ("model", "train", "test")}
    backend = ko.load_backend(args.model)
    settings["fingerprint"] = backend.fingerprint
    results = resumed(args.json, settings)
    counts = [count for count in args.counts if count < args.train] + [args.train]
    for category in args.categories:
        world = world_of(backend, category, args.train, args.test, args.workers)
        of_kind = results.setdefault(category, {})
        for seed in args.seeds:
            tokens: ko.Tokens | None = None
            for count in counts:
                chosen = chosen_objects(count, args.train, seed)
                for row in args.rows:
                    done = of_kind.setdefault(f"{row}, {count}", {})
                    if str(seed) in done or (row == "marks alone" and count == args.train):
                        continue
                    if row == "discovery" and tokens is None:
                        things = [thing.recording.thing for thing in world.train]
                        tokens = world.work.discover(backend, things, ko.DiscoverConfig(seed=seed))
                    done[str(seed)] = (
                        by_matching(world, chosen)
                        if row == "matching"
                        else by_discovery(world, chosen, tokens)
                        if tokens is not None and row == "discovery"
                        else by_marks(world, chosen, seed, row == "marks alone")
                    )
                    keep(args.json, settings, results)
                    print(category, row, count, seed, done[str(seed)], flush=True)
    show(results, args.markdown)


def show(results: dict[str, dict[str, dict[str, Figures]]], markdown: Path | None) -> None:
    """Mean and spread over the seeds, on the terminal and as markdown."""
    header = ("category", "row", *SHOWN, "seconds")
    lines = [
        (category, name, *(cell([seed.get(field) for seed in seeds.values()]) for field in (*SHOWN, "seconds")))
        for category, rows in results.items()
        for name, seeds in sorted(rows.items(), key=lambda row: (row[0].split(", ")[0], int(row[0].split(", ")[1])))
        if seeds
    ]
    table = Table(*header, title="Landmarks of held-out objects")
    for line in lines:
        table.add_row(*line)
    Console(width=140).print(table)
    if markdown is not None:
        text = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        text += ["| " + " | ".join(line) + " |" for line in lines]
        markdown.write_text("\n".join(text) + "\n", encoding="utf-8")


ROWS = ("matching", "marks", "marks alone", "discovery")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--categories", nargs="+", default=list(CATEGORIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train", type=int, default=24, help="objects of which some are marked")
    parser.add_argument("--test", type=int, default=50)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 5, 10], help="marked objects; all besides")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, help="figures; a run with the same settings goes on from them")
    parser.add_argument("--markdown", type=Path, help="the table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
