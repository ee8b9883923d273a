"""Keypoints against the truth on held-out procedural objects: ``python benchmarks/quality.py --json quality.json``.

Fixed splits by seed (``dataset make --seed``): 1 to learn from, 2 to validate on, 3 to test on. For every category and
seed of the tokens: discovery on the first split, judged on another; beside it untrained tokens, the same recipe on a
UNet with random weights, the mean shape, and the supervised probe, the ceiling that a method without labels has.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import keyorbit as ko
from keyorbit.backends.zero123plus import Zero123PlusBackend
from keyorbit.data import Objects, stack_truths
from keyorbit.discover import untrained
from keyorbit.evaluate import detect_all
from keyorbit.synthetic.dataset import MAX_OBJECTS
from keyorbit.synthetic.probe import ProbeConfig, as_object, landmark_probe, probe_objects
from keyorbit.synthetic.samples import SampleSpec, make_samples
from keyorbit.synthetic.tiny_model import TinyConfig, make_tiny, save_folder
from keyorbit.synthetic.train_tiny import TRAINED_CATEGORIES

SPLITS = {"train": 1, "validation": 2, "test": 3}
FIELDS = ("landmark_3d", "landmark_2d", "dual_alignment", "reprojection", "coverage", "on_object")


def split(category: str, name: str, count: int, size: int, workers: int) -> list[ko.ObjectViews]:
    """The objects that ``keyorbit dataset make --category … --seed …`` writes for that split."""
    specs = [SampleSpec(category, SPLITS[name] * MAX_OBJECTS + i, size) for i in range(count)]
    return [as_object(sample) for sample in make_samples(specs, workers)]


def judge(
    backend: Zero123PlusBackend, tokens: ko.Tokens, train: Objects, test: Objects, fit: int
) -> dict[str, float | None]:
    """The figures of these tokens; landmarks are weighted means of keypoints, fitted on ``fit`` training objects."""
    detector = ko.KeypointDetector(backend, tokens)
    fitted = detect_all(detector, train[:fit])
    found = ko.evaluate(detect_all(detector, test), test, fitted, train[:fit])
    return {name: getattr(found, name) for name in FIELDS}


def mean_shape(train: Objects, test: Objects, turned: bool) -> float:
    """3D error of answering every object with the training objects' mean landmarks.

    ``turned``: about the vertical to each object's best fit, as if its heading were known.
    """
    fit, judged = stack_truths(train), stack_truths(test)
    angles = torch.arange(0, 360, 5).deg2rad() if turned else torch.zeros(1)
    c, s, z, o = angles.cos(), angles.sin(), torch.zeros_like(angles), torch.ones_like(angles)
    turns = torch.stack([torch.stack([c, -s, z], -1), torch.stack([s, c, z], -1), torch.stack([z, z, o], -1)], -2)
    shapes = [(t.keypoints_3d, t.known) for t in fit]
    mean = shapes[0][0]
    for _ in range(3):  # generalised Procrustes about the vertical
        aligned = [(_best(points, mean, known, turns), known) for points, known in shapes]
        weight = torch.stack([known.float() for _, known in aligned]).sum(0).clamp_min(1)
        mean = torch.stack([points * known[:, None] for points, known in aligned]).sum(0) / weight[:, None]
    errors = [(_best(mean, t.keypoints_3d, t.known, turns) - t.keypoints_3d).norm(dim=-1)[t.known] for t in judged]
    return float(torch.cat(errors).mean())


def _best(points: torch.Tensor, target: torch.Tensor, known: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    turned = points @ turns.transpose(-1, -2)
    return turned[(turned - target)[:, known].square().sum((-1, -2)).argmin()]


def blank_backend(seed: int) -> Zero123PlusBackend:
    """The tiny model before any training."""
    with tempfile.TemporaryDirectory() as folder:
        save_folder(make_tiny(TinyConfig(), seed), Path(folder), TinyConfig().view_size)
        return ko.load_backend(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--categories", nargs="+", default=list(TRAINED_CATEGORIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--test", type=int, default=50)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--steps", type=int, default=ko.DiscoverConfig().steps)
    parser.add_argument("--fit", type=int, default=60, help="training objects that the landmark weights are fitted on")
    parser.add_argument("--no-baselines", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    backend = ko.load_backend(args.model)
    rows: dict[str, dict[str, dict[str, list[float]]]] = {}
    for category in args.categories:
        train = split(category, "train", args.train, backend.view_size, args.workers)
        test = split(category, args.split, args.test, backend.view_size, args.workers)
        of_kind = rows.setdefault(category, {})
        for seed in args.seeds:
            config = ko.DiscoverConfig(steps=args.steps, seed=seed)
            began = time.monotonic()
            discovered = ko.discover(backend, train, config)
            seconds = time.monotonic() - began
            runs = {"discovered": (backend, discovered)}
            if not args.no_baselines:
                blank = blank_backend(seed)
                runs["random tokens"] = (backend, untrained(backend, config))
                runs["untrained UNet"] = (blank, ko.discover(blank, train, config))
            for name, (which, tokens) in runs.items():
                figures = judge(which, tokens, train, test, args.fit)
                for field, value in figures.items():
                    of_kind.setdefault(name, {}).setdefault(field, []).append(float("nan") if value is None else value)
            of_kind["discovered"].setdefault("seconds", []).append(seconds)
            print(category, seed, {k: round(v[-1], 4) for k, v in of_kind["discovered"].items()}, flush=True)
        of_kind["mean shape"] = {"landmark_3d": [mean_shape(train, test, False)]}
        of_kind["mean shape, heading known"] = {"landmark_3d": [mean_shape(train, test, True)]}
        if not args.no_baselines:
            judged = probe_objects(category, ProbeConfig(), backend.view_size, args.workers)
            of_kind["supervised probe"] = {"pck": [landmark_probe(backend, judged)]}
            of_kind["supervised probe, untrained UNet"] = {"pck": [landmark_probe(blank_backend(0), judged)]}
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1))
    show(rows)


def show(rows: dict[str, dict[str, dict[str, list[float]]]]) -> None:
    """Mean and spread over the seeds."""
    table = Table("category", "tokens", *FIELDS, "PCK@0.1", "seconds")
    for category, methods in rows.items():
        for name, figures in methods.items():
            cells = [cell(figures.get(field)) for field in FIELDS]
            table.add_row(category, name, *cells, cell(figures.get("pck")), cell(figures.get("seconds")))
    Console(width=160).print(table)


def cell(values: list[float] | None) -> str:
    if not values:
        return ""
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
