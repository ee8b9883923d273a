"""Keypoints against the truth on held-out procedural objects: ``make quality``.

Two tables. The first sets discovery beside what any claim has to beat; with ``--ablation`` the second changes one
ingredient at a time. Fixed splits by seed (``dataset make --seed``): 1 to learn from, 2 to validate on, 3 to test on.
Every row is run with every seed of the tokens. Preparation, queries and recordings are shared by all rows of a category
(`shared_work.py`), so that a row costs its own optimisation and little else; figures are written after every row, and a
run with the same settings goes on from them.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import keyorbit as ko
from baselines import mean_shape, optimise, shape_analysis_losses, sift_words, single_view_losses
from keyorbit.detection.choices import Space
from keyorbit.detection.found import Detection
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.discovery.initial import untrained
from keyorbit.discovery.weights import LossWeights
from keyorbit.objects.dataset import Objects
from keyorbit.synthetic.choices import MAX_OBJECTS
from keyorbit.synthetic.samples import SampleSpec, as_object, make_samples
from phrases import PHRASES, distance_of_same, phrase_tokens
from shared_work import SharedWork
from tiny_model.model import TinyConfig, make_tiny, save_folder
from tiny_model.probe import ProbeConfig, landmark_probe, probe_objects
from tiny_model.train import TRAINED_CATEGORIES

SPLITS = {"train": 1, "validation": 2, "test": 3}
# Evaluation's own fields, and some of its named metrics; the JSON has all.
FIELDS = ("landmark_3d", "landmark_2d", "dual_alignment", "reprojection", "coverage", "on_object")
SHOWN = (
    *FIELDS,
    "input_elevation_deg",
    "input_reprojection",
    "input_landmark_2d",
    "spair_pck_per_point_0.1",
    "relative_pose_error_median",
    "sc3k_inclusivity_0.05",
)
LESS_IS_BETTER = (
    "landmark_3d",
    "landmark_2d",
    "reprojection",
    "input_elevation_deg",
    "input_reprojection",
    "input_landmark_2d",
    "relative_pose_error_median",
    "seconds",
)
Figures = dict[str, float | None]


@dataclass(frozen=True)
class World:
    """What the rows of a category share."""

    category: str
    backend: Zero123PlusBackend
    blank: Zero123PlusBackend
    train: Objects
    test: Objects
    fit: int
    work: SharedWork


@dataclass(frozen=True)
class Row:
    """One method: what gives its figures for a seed's config. ``seeded``: whether the seed changes anything."""

    name: str
    run: Callable[[World, ko.DiscoverConfig], Figures]
    seeded: bool = True


def discovered(
    change: Callable[[ko.DiscoverConfig], ko.DiscoverConfig] = lambda config: config,
    objects: int | None = None,
    views: Sequence[int] | None = None,
    blank: bool = False,
    **reading: str,
) -> Callable[[World, ko.DiscoverConfig], Figures]:
    """Discovery with something changed: config, number of objects, views triangulated, UNet, or how it is read."""

    def run(world: World, config: ko.DiscoverConfig) -> Figures:
        backend, train = world.blank if blank else world.backend, world.train[:objects]
        began = time.monotonic()
        tokens = world.work.discover(backend, train, change(config))
        seconds = time.monotonic() - began
        return judge(world, tokens, backend, views, **reading) | {"seconds": seconds}

    return run


def judge(
    world: World,
    tokens: ko.Tokens,
    backend: Zero123PlusBackend | None = None,
    views: Sequence[int] | None = None,
    peak: str | None = None,
    space: Space | None = None,
) -> Figures:
    """The figures of tokens; landmarks are weighted means of keypoints, fitted on some training objects."""
    detector = ko.KeypointDetector(backend or world.backend, tokens, ko.DetectConfig(peak=peak, space=space))
    found = [world.work.detect_all(detector, objects) for objects in (world.train[: world.fit], world.test)]
    if views is not None:
        found = [[some_views(detection, views) for detection in group] for group in found]
    return figures(world, *found)


def figures(world: World, fitted: list[Detection], found: list[Detection]) -> Figures:
    """Everything that the evaluation tells of detections."""
    result = ko.evaluate(found, world.test, fitted, world.train[: world.fit])
    told: Figures = {name: getattr(result, name) for name in FIELDS} | result.measures
    if result.input is not None:
        told["input_elevation_deg"] = result.input.elevation_error_deg
        told["input_reprojection"] = result.input.reprojection
        told["input_landmark_2d"] = result.input.landmark_2d
    return told


def some_views(detection: Detection, views: Sequence[int]) -> Detection:
    """The same, triangulated from some of its views."""
    flat = detection.keypoints_2d
    few = ko.Keypoints2D(flat.xy[list(views)], flat.score[list(views)], flat.cameras.select(list(views)))
    points = few.triangulate()
    return replace(
        detection,
        keypoints_3d=replace(points, residual=detection.keypoints_3d.residual, visible=detection.keypoints_3d.visible),
    )


def other_losses(name: str) -> Callable[[World, ko.DiscoverConfig], Figures]:
    """Tokens optimised with losses that are not ours, read at their peaks."""

    def run(world: World, config: ko.DiscoverConfig) -> Figures:
        loss = single_view_losses(config) if name == "single view" else shape_analysis_losses
        misread = name == "misread"
        tokens = optimise(world.backend, world.train, config, loss, world.work, misread)
        return judge(world, tokens, peak="window")

    return run


def told_by_phrases(world: World, config: ko.DiscoverConfig) -> Figures:
    """What the model was told of parts, read without discovery; nothing for a kind of which it was told nothing.

    ``same_name_3d``: how far phrases lie from the landmarks whose names say the same; no landmark is fitted for it.
    """
    if world.category not in PHRASES:
        return {}
    detector = ko.KeypointDetector(world.backend, phrase_tokens(world.backend, world.category, config))
    fitted, found = (world.work.detect_all(detector, group) for group in (world.train[: world.fit], world.test))
    return figures(world, fitted, found) | {"same_name_3d": distance_of_same(world.category, found, world.test)}


def classical(world: World, config: ko.DiscoverConfig) -> Figures:
    """SIFT features joined by visual words; nothing where OpenCV is not installed."""
    try:
        groups = world.train[: world.fit], world.test
        fitted, found = sift_words(world.backend, groups[0], groups, config.num_tokens, config.seed)
    except ImportError:
        return {}
    return figures(world, fitted, found)


BASELINES = (
    Row("discovered", discovered()),
    Row("no constellation", discovered(lambda c: replace(c, method="consistency"))),
    Row("random tokens", lambda world, config: judge(world, untrained(world.backend, config))),
    Row("untrained UNet", discovered(blank=True)),
    Row("shape analysis' losses", other_losses("shape analysis")),
    Row("shape analysis' losses, 2 × 3 split", other_losses("misread")),
    Row("StableKeypoints per view", other_losses("single view")),
    Row("phrases, no discovery", told_by_phrases, False),
    Row("SIFT words, triangulated", classical),
    Row("mean shape", lambda world, _: {"landmark_3d": mean_shape(world.train, world.test, False)}, False),
    Row(
        "mean shape, heading known", lambda world, _: {"landmark_3d": mean_shape(world.train, world.test, True)}, False
    ),
)


def ablations(train: int, joint: bool) -> tuple[Row, ...]:
    """One ingredient changed at a time."""

    def config(name: str, **changes: object) -> Row:
        return Row(name, discovered(lambda c: replace(c, **changes)))

    def prepared(name: str, **changes: object) -> Row:
        return Row(name, discovered(lambda c: replace(c, prepare=replace(c.prepare, **changes))))

    def shape(name: str, **changes: object) -> Row:
        return Row(name, discovered(lambda c: replace(c, constellation=replace(c.constellation, **changes))))

    def weights(term: str) -> Row:
        def changed(c: ko.DiscoverConfig) -> ko.DiscoverConfig:
            return replace(c, method="consistency", weights=replace(c.weights, **{term: 0.0}))

        return Row(f"no constellation, no {term}", discovered(changed))

    terms = [f.name for f in fields(LossWeights) if f.name != "margin" and getattr(LossWeights(), f.name)]
    blocks = {"down": "down_blocks.*", "middle": "mid_block.*", "up": "up_blocks.*"}
    steps = sorted({max(2, train // 8), max(2, train // 4), max(2, train // 2)})
    rows = [
        Row("as it is", discovered()),
        *(config(f"layers: {name} only", layers=pattern) for name, pattern in blocks.items()),
        *(prepared(f"timestep: {t}", timestep=t) for t in (50, 150, 500, 700)),
        *(config(f"maps: {kind}", maps=kind) for kind in ("attention", "stablekeypoints")),
        Row("read one by one", discovered(space="evidence")),
        Row("views read on their own", discovered(peak="soft")),
        *(shape(f"place: ± {near} radii", near=near) for near in (0.06, 0.24)),
        *(shape(f"read: ± {read} radii", read=read) for read in (0.1, 0.4)),
        shape("constellation not stretched", stretch=False),
        *(config(f"planted on: {n}", exemplars=n) for n in (1, 8)),
        *(weights(term) for term in terms),
        *(prepared(f"noises: {n}", noises=n) for n in (1, 6)),
        *(prepared(f"warps: {n}, one noise", warps=n, noises=1) for n in (1, 2)),
        *(config(f"tokens: {n}", num_tokens=n, num_candidates=2 * n) for n in (8, 32)),
        Row("candidates: no more than tokens", discovered(lambda c: replace(c, num_candidates=c.num_tokens))),
        *(Row(f"objects: {n}", discovered(objects=n)) for n in steps),
        # Each view has to be read on its own: the others would tell it where to look.
        *(
            Row(f"views: {len(v)}, triangulated", discovered(views=v, peak="soft", space="triangulation"))
            for v in ((0, 1), (0, 2, 4), (0, 1, 2, 3), range(6))
        ),
    ]
    if joint:
        rows.append(config("mode: joint", mode="joint"))
    return tuple(rows)


def split(category: str, name: str, count: int, size: int, workers: int) -> list[ko.ObjectViews]:
    """The objects that ``keyorbit dataset make --category … --seed …`` writes for that split."""
    specs = [SampleSpec(category, SPLITS[name] * MAX_OBJECTS + i, size) for i in range(count)]
    return [as_object(sample) for sample in make_samples(specs, workers)]


def blank_backend(seed: int) -> Zero123PlusBackend:
    """The tiny model before any training."""
    with tempfile.TemporaryDirectory() as folder:
        save_folder(make_tiny(TinyConfig(), seed), Path(folder), TinyConfig().view_size)
        return ko.load_backend(folder)


def main() -> None:
    args = arguments()
    settings = {name: value for name, value in vars(args).items() if name in SETTINGS}
    backend, blank = ko.load_backend(args.model), blank_backend(0)
    settings["fingerprint"] = backend.fingerprint
    results = resumed(args.json, settings)
    rows = (*BASELINES, *(ablations(args.train, args.joint) if args.ablation else ()))
    rows = [row for row in rows if args.rows is None or row.name in args.rows]
    work = SharedWork()
    for category in args.categories:
        work.clear()
        train = split(category, "train", args.train, backend.view_size, args.workers)
        test = split(category, args.split, args.test, backend.view_size, args.workers)
        world = World(category, backend, blank, train, test, args.fit or args.train, work)
        of_kind = results.setdefault(category, {})
        for row in rows:
            for seed in args.seeds if row.seeded else args.seeds[:1]:
                done = of_kind.setdefault(row.name, {})
                if str(seed) not in done:
                    done[str(seed)] = row.run(world, ko.DiscoverConfig(steps=args.steps, seed=seed))
                    keep(args.json, settings, results)
                    print(category, row.name, seed, brief(done[str(seed)]), flush=True)
        if args.probe and "supervised probe" not in of_kind:
            objects = probe_objects(category, ProbeConfig(), backend.view_size, args.workers)
            for name, which in (("supervised probe", backend), ("supervised probe, untrained UNet", blank)):
                of_kind[name] = {"0": {"spair_pck_per_point_0.1": landmark_probe(which, objects)}}
            keep(args.json, settings, results)
    names = [row.name for row in BASELINES] + ["supervised probe", "supervised probe, untrained UNet"]
    show(results, "Baselines", names, args.markdown, "w")
    if args.ablation:
        show(results, "Ablations", [r.name for r in ablations(args.train, args.joint)], args.markdown, "a")


SETTINGS = ("model", "train", "test", "split", "steps", "fit")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--categories", nargs="+", default=list(TRAINED_CATEGORIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--test", type=int, default=50)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--steps", type=int, default=ko.DiscoverConfig().steps)
    parser.add_argument("--fit", type=int, help="training objects that the landmark weights are fitted on; default all")
    parser.add_argument("--rows", nargs="+", help="only these rows, by their names")
    parser.add_argument("--ablation", action="store_true", help="the second table too")
    parser.add_argument("--joint", action="store_true", help="a row in joint mode, which runs the UNet at every step")
    parser.add_argument("--probe", action="store_true", help="the supervised ceiling too")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="figures; a run with the same settings goes on from them")
    parser.add_argument("--markdown", type=Path, help="the tables")
    return parser.parse_args()


def resumed(path: Path | None, settings: dict[str, object]) -> dict[str, dict[str, dict[str, Figures]]]:
    """The figures of an earlier run with the same settings: category, row, seed."""
    if path is None or not path.exists():
        return {}
    told = json.loads(path.read_text(encoding="utf-8"))
    if told["settings"] != settings:
        raise SystemExit(f"{path} was made with other settings ({told['settings']}); give another --json")
    return told["rows"]


def keep(path: Path | None, settings: dict[str, object], rows: dict[str, dict[str, dict[str, Figures]]]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)


def show(
    results: dict[str, dict[str, dict[str, Figures]]],
    title: str,
    names: Sequence[str],
    markdown: Path | None,
    mode: str,
) -> None:
    """Mean and spread over the seeds, on the terminal and as markdown."""
    header = ("category", "row", *SHOWN, "seconds")
    lines = []
    for category, methods in results.items():
        for name in [name for name in names if name in methods]:
            seeds = list(methods[name].values())
            cells = [cell([seed.get(field) for seed in seeds]) for field in (*SHOWN, "seconds")]
            lines.append((category, name, *cells))
    table = Table(*header, title=title)
    for line in lines:
        table.add_row(*line)
    Console(width=200).print(table)
    if markdown is not None:
        arrows = [f"{name} {'↓' if name in LESS_IS_BETTER else '↑'}" for name in header[2:]]
        text = [f"## {title}", "", "| " + " | ".join([*header[:2], *arrows]) + " |", "|" + "---|" * len(header)]
        text += ["| " + " | ".join(line) + " |" for line in lines]
        markdown.parent.mkdir(parents=True, exist_ok=True)
        with markdown.open(mode, encoding="utf-8") as file:
            file.write("\n".join(text) + "\n\n")


def cell(values: Sequence[float | None]) -> str:
    """Mean ± standard deviation of what is known."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    return f"{np.mean(known):.3f}" + (f" ± {np.std(known):.3f}" if len(known) > 1 else "")


def brief(found: Figures) -> dict[str, float]:
    return {name: round(value, 4) for name in (*FIELDS, "seconds") if (value := found.get(name)) is not None}


if __name__ == "__main__":
    main()
