"""What makes views agree, on held-out procedural objects: ``python benchmarks/geometry.py --json geometry.json``.

Every row is the same discovery with another kind of agreement in its objective, read by triangulation or from the
product of the views' evidence. Objects are prepared and shown to the UNet once; a row costs its steps and little else.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import keyorbit as ko
from agreements import AgreementRun, AgreementWeights
from keyorbit.diffusion.backends.base import Backend
from keyorbit.discovery.discover import Keeping, run_to_end
from keyorbit.objects.dataset import Objects
from quality import split
from shared_work import SharedWork, first_noise

_DEFAULT = ko.LossWeights()
_NONE = replace(_DEFAULT, geometric=0.0)
# The shape analysis' consistency of pixels carries no gradient, so optimising it is optimising no agreement at all.
WEIGHTS = {
    "pixel consistency (no gradient)": (_NONE, AgreementWeights()),
    "epipolar": (_NONE, AgreementWeights(epipolar=5.0)),
    "residual over uncertainty": (replace(_NONE, spread=0.0), AgreementWeights(uncertain=0.01)),
    "likelihood on the hull": (replace(_NONE, spread=0.0), AgreementWeights(likelihood=0.1)),
    "geometric": (_DEFAULT, AgreementWeights()),
    "geometric, one constellation": (_DEFAULT, AgreementWeights(constellation=0.1)),
}
READINGS = ("triangulation", "evidence")
FIELDS = ("reprojection", "reprojection_px", "landmark_3d", "dual_alignment", "coverage", "on_object", "elevation")


def rows(
    backend: Backend, train: Objects, test: Objects, config: ko.DiscoverConfig, fit: int
) -> Iterator[tuple[str, dict[str, float | None]]]:
    """Name and figures of every row, one after the other."""
    work = SharedWork()

    def judged(tokens: ko.Tokens, reading: Any) -> dict[str, float | None]:
        detector = ko.KeypointDetector(backend, tokens, ko.DetectConfig(space=reading))
        fitted, found = (work.detect_all(detector, objects) for objects in (train[:fit], test))
        return figures(backend, ko.evaluate(found, test, fitted, train[:fit]))

    for name, (weights, others) in WEIGHTS.items():
        settled = first_noise(replace(config, method="consistency", weights=weights).settled(backend))
        source = work.source(backend, train, settled)
        tokens = run_to_end(AgreementRun(source, settled, source.facts.cameras, others), Keeping())
        for reading in READINGS:
            yield f"{name}, {reading}", judged(tokens, reading)
    tokens = work.discover(backend, train, config)
    for reading in (*READINGS, "constellation"):
        yield f"constellation, {reading}", judged(tokens, reading)


def figures(backend: Backend, found: ko.Evaluation) -> dict[str, float | None]:
    """Reprojection in sides and pixels of a view, the rest as in `keyorbit evaluate`."""
    told = {name: getattr(found, name, None) for name in FIELDS}
    assert found.reprojection is not None
    told["reprojection_px"] = found.reprojection * backend.view_size
    told["elevation"] = found.input.elevation_error_deg if found.input else None
    return told


def show(table: dict[str, dict[str, float | None]]) -> None:
    drawn = Table("agreement, reading", *FIELDS)
    for name, figures in table.items():
        drawn.add_row(name, *("" if figures[f] is None else f"{figures[f]:.3f}" for f in FIELDS))
    Console(width=160).print(drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--category", default="chair")
    parser.add_argument("--train", type=int, default=40)
    parser.add_argument("--test", type=int, default=15)
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    backend = ko.load_backend(args.model)
    train = split(args.category, "train", args.train, backend.view_size, 1)
    test = split(args.category, args.split, args.test, backend.view_size, 1)
    config = ko.DiscoverConfig(steps=args.steps, seed=args.seed)
    table: dict[str, dict[str, float | None]] = {}
    for name, figures in rows(backend, train, test, config, args.train):
        table[name] = figures
        print(name, {k: None if v is None else round(v, 4) for k, v in figures.items()}, flush=True)
        if args.json:
            args.json.write_text(json.dumps(table, indent=1), encoding="utf-8")
    show(table)


if __name__ == "__main__":
    main()
