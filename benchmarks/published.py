"""StableKeypoints' published choices against ours, one at a time, on objects whose landmarks are known.

Each of the six views of a procedural object is a picture by itself, which the tiny model reads. Tokens are found on the
training objects; a linear map from keypoints to landmarks is fitted there and scored on other objects, as in
StableKeypoints' protocol: the mean distance to the visible landmarks, in % of the view's side.

    python benchmarks/published.py --json runs/published.json --markdown runs/published.md
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import get_args

import torch
from torch import Tensor

import keyorbit as ko
from keyorbit.detection.averages import averaged, averaged_as_published
from keyorbit.detection.config import DetectConfig
from keyorbit.detection.detector import KeypointDetector
from keyorbit.detection.peaks import peak_xy
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.config import PrepareConfig
from keyorbit.diffusion.recording import Recording, record
from keyorbit.discovery.choices import Published
from keyorbit.discovery.config import DiscoverConfig, SettledConfig
from keyorbit.discovery.discover import Keeping, run_to_end
from keyorbit.discovery.live import open_live
from keyorbit.discovery.memory import open_source
from keyorbit.discovery.single_view_run import SingleViewRun
from keyorbit.evaluation.metrics import apply_landmark_map, fit_landmark_map, visible_error
from keyorbit.geometry.heatmaps import normalize
from keyorbit.geometry.warps import Warp
from keyorbit.objects.dataset import Objects
from keyorbit.ranks import Ranks
from quality import split
from shared_work import SharedWork, first_noise

WHAT = {
    "start": "tokens begin with mean 0, variance 1 (ours: as text rows)",
    "rate": "constant learning rate 0.005 (ours: 0.05, falling to a tenth)",
    "draws": "warps and noise drawn at every step, black outside (ours: once an object, grey)",
    "ranking": "ranked by the softmax of the map (ours: by its form)",
    "pair": "furthest points from the furthest pair (ours: from the best token)",
    "pixels": "equivariance over all pixels (ours: the shown ones)",
    "votes": "keypoints by votes (ours: by mean rank)",
    "reading": "argmax at the picture's size, warped versions only (ours: window on the map, all versions)",
    "alone": "tokens are the UNet's whole context (ours: beside the empty prompt's rows)",
}


@dataclass(frozen=True)
class World:
    """What all rows share."""

    backend: Backend
    train: Objects
    test: Objects
    work: SharedWork

    def recorded(self, detector: KeypointDetector, thing: ko.ObjectViews) -> Recording:
        """The object for that detector, without the pass on its input picture; kept unless tokens are the context."""
        config, context = replace(detector.recording, condition=False), detector.context

        def made() -> Recording:
            return record(thing, self.backend, config, torch.Generator().manual_seed(0), context)

        key = thing.name, config, type(config.prepare)
        return made() if context is not None else self.work.recordings.get_or_make(key, made)


def main() -> None:
    args = arguments()
    backend = ko.load_backend("tiny")
    train = split(args.category, "train", args.train, backend.view_size, args.workers)
    test = split(args.category, "test", args.test, backend.view_size, args.workers)
    world, found = World(backend, train, test, SharedWork()), {}
    for name, change in rows().items():
        if args.rows is None or name in args.rows:
            began = time.monotonic()
            found[name] = [error(world, replace(base(args, seed), **change), args.warps) for seed in args.seeds]
            seconds = (time.monotonic() - began) / len(args.seeds)
            print(f"{name}: {', '.join(f'{value:.2f}' for value in found[name])} ({seconds:.0f} s each)", flush=True)
            if args.json:
                told = {"settings": settings(args), "error_percent": found}
                args.json.write_text(json.dumps(told, indent=1), encoding="utf-8")
            if args.markdown:
                args.markdown.write_text(table(found), encoding="utf-8")
    print(table(found))


def base(args: argparse.Namespace, seed: int) -> DiscoverConfig:
    """Our choices, with StableKeypoints' maps and warps; in numbers for a model of 64-pixel views."""
    return DiscoverConfig(
        num_tokens=args.keypoints,
        num_candidates=args.tokens,
        maps="stablekeypoints",
        steps=args.steps,
        batch=args.batch,
        seed=seed,
        map_size=32,
        prepare=PrepareConfig(warps=1, noises=1, scale=(1.0, 1.25), shift=0.125),
    )


def rows() -> dict[str, dict[str, object]]:
    """What is changed in each row."""
    every = get_args(Published)
    alone = {"mode": "alone"}
    single = {choice: {"published": (choice,)} | ({"rate": 5e-3} if choice == "rate" else {}) for choice in every}
    return {
        "ours": {},
        **single,
        "alone": alone,
        "all of them": {"published": every, "rate": 5e-3} | alone,
        "all of them, at our rate": {"published": tuple(c for c in every if c != "rate")} | alone,
    }


def error(world: World, config: DiscoverConfig, warps: int) -> float:
    """Of landmarks on the test objects' views, % of the side."""
    tokens = find(world, config)
    peak = None if "reading" in config.published else "window"
    detector = KeypointDetector(world.backend, tokens, DetectConfig(noises=1, warps=warps, peak=peak))
    fitted, judged = read(world, detector, world.train), read(world, detector, world.test)
    linear = fit_landmark_map(*fitted, None)
    keypoints, landmarks, known = judged
    return 100 * float(visible_error(apply_landmark_map(linear, keypoints), landmarks, known))


def find(world: World, config: DiscoverConfig) -> ko.Tokens:
    """The tokens, each view by itself whether or not a choice is published."""
    settled: SettledConfig = config.settled(world.backend)
    if "draws" in config.published:
        source = open_live(world.backend, world.train, settled, Ranks())
    elif settled.mode == "isolated":
        source, settled = world.work.source(world.backend, world.train, settled), first_noise(settled)
    else:
        source = open_source(world.backend, world.train, settled, Ranks(), lambda *_: None)
    return run_to_end(SingleViewRun(source, settled, Ranks()), Keeping())


@torch.no_grad()
def read(world: World, detector: KeypointDetector, objects: Objects) -> tuple[Tensor, Tensor, Tensor]:
    """Keypoints, landmarks and which of these are visible, a row a view; in float64. Nothing is read in space."""
    keypoints, landmarks, known = [], [], []
    for thing in objects:
        recording = world.recorded(detector, thing)
        warp, side = Warp(recording.shown.warps), world.backend.view_size
        maps = detector._heatmaps(recording, "grid", world.backend.layout)
        made = averaged_as_published(maps, warp, 1, side) if detector.published else averaged(maps, warp)
        keypoints.append(peak_xy(normalize(made), detector.peak, detector.config.window))
        views = slice(1, 1 + len(made))  # a truth begins with the input picture
        landmarks.append(thing.truth.keypoints_2d[views])
        known.append(thing.truth.visible[views] & thing.truth.known)
    return torch.cat(keypoints).double(), torch.cat(landmarks).double(), torch.cat(known)


def table(found: dict[str, list[float]]) -> str:
    """Markdown: the error of each row, and how it stands against ours seed by seed."""
    lines = [
        "| as published | what that is | landmark error, % | against ours | seeds better |",
        "|---|---|---|---|---|",
    ]
    ours = found.get("ours")
    for name, values in found.items():
        more = [a - b for a, b in zip(values, ours, strict=True)] if ours and name != "ours" else None
        against = "" if more is None else f"{fmean(more):+.2f}"
        better = "" if more is None else f"{sum(value < 0 for value in more)} of {len(more)}"
        spread = f"{fmean(values):.2f} ({min(values):.2f}–{max(values):.2f})"
        lines.append(f"| {name} | {WHAT.get(name, '')} | {spread} | {against} | {better} |")
    return "\n".join(lines) + "\n"


def settings(args: argparse.Namespace) -> dict[str, object]:
    """What the figures belong to."""
    return {name: value for name, value in vars(args).items() if name not in ("json", "markdown", "rows", "workers")}


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--category", default="chair")
    parser.add_argument("--train", type=int, default=24, help="training objects, six views each")
    parser.add_argument("--test", type=int, default=16)
    parser.add_argument("--keypoints", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=48, help="tokens optimised")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--warps", type=int, default=4, help="warped versions in detection")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", default=None)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--markdown", type=Path, default=None)
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
