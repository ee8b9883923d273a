"""Keypoints on meshes that no generator of ours made: ``python benchmarks/real.py MESHES --json real.json``.

`real_data.py` says what MESHES holds, which of them are for the test, and what the truth is. Of every kind with four
meshes or more, 16 keypoints are discovered on two thirds, each seen at one heading; the others are seen at twelve.

- landmark_3d, its median: of landmarks as weighted means of keypoints, fitted on the discovery's meshes; object sizes
- wrong_turns: share of the test's pictures on which the landmarks are turned by more than 45 degrees
- dual_alignment: of the test's meshes at one heading, mean over the headings
- reprojection: median, sides of the view
- same_place: share of keypoints within a tenth of the size of where another heading has them, turned back; all pairs of
  headings; the least of all meshes is same_place_worst

Turns that look alike (`recipes/tiny_model/meshes.json`) count as the same. Figures are written after every row, and a
run with the same settings goes on from them.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean, median

import torch
from jaxtyping import Bool, Float
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor

import keyorbit as ko
from baselines import mean_shape
from foreign import NEAR
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.choices import SHIPPED_KINDS
from keyorbit.diffusion.paths import shipped_tokens
from keyorbit.diffusion.recording import Recording
from keyorbit.discovery.initial import untrained
from keyorbit.discovery.placing import place_marks
from keyorbit.errors import InputError
from keyorbit.evaluation.landmarks import Judged, fit_weights
from keyorbit.evaluation.metrics import apply_landmark_weights, dual_alignment_score
from keyorbit.evaluation.symmetry import order_of, symmetric_turns
from keyorbit.geometry.alignment import turns_by
from keyorbit.geometry.keypoints import Keypoints3D
from matching import features, matched, points_of
from phrases import PHRASES, phrase_tokens
from quality import Figures, blank_backend, cell, keep, resumed
from real_data import NEAREST, RealMesh, headings, landmarks_of, meshes_of, seen, some_heading, split, unseen
from shared_work import SharedWork

FEWEST = 4
WRONG_DEG = 45.0
SHOWN = (
    *("landmark_3d", "landmark_3d_median", "wrong_turns", "dual_alignment", "reprojection", "same_place"),
    "same_place_worst",
)


class Work(SharedWork):
    """Recordings that rows share, and the UNet's features of each object, by the model and the object's name."""

    def clear(self) -> None:
        super().clear()
        self.maps: dict[tuple[str, str], Tensor] = {}

    def recording(self, detector: ko.KeypointDetector, thing: ko.ObjectViews) -> Recording:
        with features(detector.backend) as maps:
            found: Recording = super().recording(detector, thing)
        if maps:  # it was not there yet
            self.maps[detector.backend.fingerprint, thing.name] = maps[0]
        return found


@dataclass(frozen=True)
class World:
    """A kind's meshes, those of the test at every heading, and what its rows share."""

    kind: str
    backend: Zero123PlusBackend
    blank: Zero123PlusBackend
    discovery: list[tuple[RealMesh, float]]
    tested: list[RealMesh]
    headings: list[float]
    work: Work
    runs: Path | None
    kept: Path | None

    @cached_property
    def train(self) -> list[ko.ObjectViews]:
        """The discovery's meshes, each at its headings."""
        return [seen(mesh, turn, self.backend.view_size) for mesh, turn in self.discovery]

    @cached_property
    def test(self) -> list[list[ko.ObjectViews]]:
        """A row a mesh, with the mesh at every heading."""
        size = self.backend.view_size
        return [[seen(mesh, turn, size) for turn in self.headings] for mesh in self.tested]

    @property
    def alike(self) -> list[Float[Tensor, "turn 3 3"]]:
        """Of each test mesh, the turns that look alike."""
        return [symmetric_turns(order_of(mesh.turns), torch.zeros(1)) for mesh in self.tested]

    def keep_in(self, name: str) -> Path | None:
        """A file in the folder of what is kept of this kind."""
        if self.kept is None:
            return None
        (self.kept / self.kind).mkdir(parents=True, exist_ok=True)
        return self.kept / self.kind / name


@dataclass(frozen=True, eq=False)
class Found:
    """Keypoints of the discovery's objects, and of the test's with every mesh's front towards +x."""

    fit: Float[Tensor, "item keypoint 3"]
    points: Float[Tensor, "mesh heading keypoint 3"]
    reprojection: Float[Tensor, ""]


@dataclass(frozen=True)
class Row:
    """One method: what it finds for a seed; None where a kind lacks what it needs.

    ``seeded``: whether the seed changes anything.
    """

    name: str
    run: Callable[[World, ko.DiscoverConfig], Found | Figures | None]
    seeded: bool = True


def figures(world: World, found: Found) -> Figures:
    """Everything that is told of keypoints."""
    shares = [same_place(points, alike) for points, alike in zip(found.points, world.alike, strict=True)]
    told: Figures = {"reprojection": float(found.reprojection)}
    told |= {"same_place": fmean(shares), "same_place_worst": min(shares)}
    fit, orders = [landmarks_of(*one) for one in world.discovery], [order_of(mesh.turns) for mesh, _ in world.discovery]
    test = [landmarks_of(mesh, 0.0) for mesh in world.tested]
    landmarks, known = (torch.stack(parts) for parts in zip(*test, strict=True))
    if not bool(known.any()):
        return told
    weights, _ = fit_weights(
        Judged(found.fit, *(torch.stack(parts) for parts in zip(*fit, strict=True)), torch.tensor(orders))
    )
    predicted = apply_landmark_weights(weights, found.points)
    rows = zip(predicted, landmarks, known, world.alike, found.points, strict=True)
    each = [judged_mesh(*row) for row in rows if bool(row[2].any())]
    errors = [error for mesh in each for error in mesh.errors]
    told |= {"landmark_3d": fmean(errors), "landmark_3d_median": median(errors)}
    told["wrong_turns"] = fmean(wrong for mesh in each for wrong in mesh.wrong)
    if len(each) > 1:
        there = known.any(-1)
        turned = torch.stack([mesh.points for mesh in each], 1)
        scores = [dual_alignment_score(one, landmarks[there], known[there]) for one in turned]
        told["dual_alignment"] = fmean(map(float, scores))
    return told


@dataclass(frozen=True, eq=False)
class JudgedMesh:
    """One mesh at every heading: the error, whether it is turned, and its keypoints in the turn that fits best."""

    errors: list[float]
    wrong: list[bool]
    points: Float[Tensor, "heading keypoint 3"]


def judged_mesh(
    predicted: Float[Tensor, "heading landmark 3"],
    landmarks: Float[Tensor, "landmark 3"],
    known: Bool[Tensor, " landmark"],
    alike: Float[Tensor, "turn 3 3"],
    points: Float[Tensor, "heading keypoint 3"],
) -> JudgedMesh:
    """Landmarks against the truth, under the best of the turns that look alike."""
    turned = torch.einsum("aij,hlj->hali", alike, predicted[:, known])
    errors = (turned - landmarks[known]).norm(dim=-1).mean(-1)
    best = errors.min(-1)
    fitting = turned[torch.arange(len(turned)), best.indices]
    off = [turn_between(one, landmarks[known]) for one in fitting]
    own = torch.einsum("hij,hkj->hki", alike[best.indices], points)
    return JudgedMesh(best.values.tolist(), [abs(angle) > WRONG_DEG for angle in off], own)


def turn_between(one: Float[Tensor, "point 3"], other: Float[Tensor, "point 3"]) -> float:
    """The turn about the vertical, degrees, that brings points nearest to others."""
    (x, y), (u, v) = ((points - points.mean(0))[:, :2].unbind(-1) for points in (one, other))
    return float(torch.rad2deg(torch.atan2((x * v - y * u).sum(), (x * u + y * v).sum())))


def same_place(points: Float[Tensor, "heading keypoint 3"], alike: Float[Tensor, "turn 3 3"]) -> float:
    """Share of keypoints that lie where another heading has them, over all pairs, in the best turn that looks alike."""
    one, other = torch.triu_indices(len(points), len(points), 1)
    turned = torch.einsum("aij,pkj->paki", alike, points[one])
    near = (turned - points[other][:, None]).norm(dim=-1) <= NEAR
    return float(near.float().mean(-1).amax(-1).mean())


def back(points: Float[Tensor, "*batch 3"], heading: float) -> Float[Tensor, "*batch 3"]:
    """Points of an object seen at a heading, with its front towards +x."""
    return points @ turns_by(torch.tensor(heading).deg2rad()).T


def read(world: World, reader: Callable[[ko.ObjectViews], Keypoints3D]) -> Found:
    """What a reader finds on all objects."""
    fit = [reader(thing).xyz for thing in world.train]
    rows = [[reader(thing) for thing in row] for row in world.test]
    points = [
        torch.stack([back(found.xyz, turn) for found, turn in zip(row, world.headings, strict=True)]) for row in rows
    ]
    errors = torch.cat([found.reprojection_error for row in rows for found in row])
    return Found(torch.stack(fit), torch.stack(points), errors.median())


def read_tokens(
    world: World, tokens: ko.Tokens, backend: Zero123PlusBackend | None = None, detect: ko.DetectConfig | None = None
) -> Found:
    """What tokens find."""
    detector = ko.KeypointDetector(backend or world.backend, tokens, detect)
    return read(world, lambda thing: world.work.detect_all(detector, [thing])[0].keypoints_3d)


def discovered(
    world: World, config: ko.DiscoverConfig, blank: bool = False, detect: ko.DetectConfig | None = None
) -> Found:
    """Discovery as it is, by default with the trained model and read as it is by default."""
    backend = world.blank if blank else world.backend
    path = None if blank else world.keep_in(f"tokens_{config.seed}.safetensors")
    if path is not None and path.is_file():
        return read_tokens(world, ko.Tokens.load(path), detect=detect)
    tokens = world.work.discover(backend, world.train, config)
    if path is not None:
        tokens.save(path)
    return read_tokens(world, tokens, backend, detect)


def nearest_neighbours(world: World, config: ko.DiscoverConfig) -> Found:
    """Features of points of one of the discovery's objects, matched on all others."""
    detector = ko.KeypointDetector(world.backend, untrained(world.backend, config))

    def looked(thing: ko.ObjectViews) -> tuple[Recording, Tensor]:
        return world.work.recording(detector, thing), world.work.maps[world.backend.fingerprint, thing.name]

    points = points_of(*looked(world.train[config.seed % len(world.train)]), config.num_tokens)
    return read(world, lambda thing: matched(points, *looked(thing)))


def shipped(world: World, config: ko.DiscoverConfig) -> Found | None:
    """Tokens that were discovered on procedural objects of the nearest kind; those of four kinds ship."""
    near = NEAREST.get(world.kind, world.kind)
    path = None if world.runs is None else world.runs / near / "tokens.safetensors"
    if path is None or not path.is_file():
        if near not in SHIPPED_KINDS or world.backend.name != "tiny":
            return None
        path = shipped_tokens(near)
    return read_tokens(world, ko.Tokens.load(path))


def marked(world: World, config: ko.DiscoverConfig) -> Found | None:
    """Tokens fitted to the landmarks of all of the discovery's objects: what marks alone can teach."""
    marks = [mark for thing in world.train for mark in marks_of(thing)]
    if not marks:
        return None
    steps = min(100, config.steps)
    settings = ko.MarkConfig(planting=steps, steps=steps, seed=config.seed)
    return read_tokens(world, ko.mark(world.backend, world.train, marks, settings).tokens)


def marks_of(thing: ko.ObjectViews) -> Iterator[ko.Mark]:
    """The landmarks of an object; corners of its box that lie beside it are none that anybody would mark."""
    truth = thing.truth
    if truth is None or truth.keypoints_3d is None or thing.masks is None:
        return
    names = [name for name, known in zip(truth.names, truth.known, strict=True) if known]
    for name, place in zip(names, truth.keypoints_3d[truth.known].tolist(), strict=True):
        mark = ko.Mark(name, thing.name, xyz=(place[0], place[1], place[2]))
        with contextlib.suppress(InputError):
            place_marks([mark], thing.name, thing.masks, thing.cameras)
            yield mark


def told_by_phrases(world: World, config: ko.DiscoverConfig) -> Found | None:
    """Phrases that the model's training tied to parts, where it has any of the nearest kind."""
    near = NEAREST.get(world.kind, world.kind)
    return read_tokens(world, phrase_tokens(world.backend, near, config)) if near in PHRASES else None


def shape(turned: bool) -> Callable[[World, ko.DiscoverConfig], Figures | None]:
    """The mean landmarks of the discovery's objects, as every object's answer."""

    def run(world: World, _: ko.DiscoverConfig) -> Figures | None:
        train = [unseen(*one) for one in world.discovery]
        test = [unseen(mesh, turn) for mesh in world.tested for turn in world.headings]
        if not any(bool(thing.truth.known.any()) for thing in test):
            return None
        return {"landmark_3d": mean_shape(train, test, turned)}

    return run


ROWS = (
    Row("discovered", discovered),
    Row("discovered, half the draws without the picture", partial(discovered, detect=ko.DetectConfig(blind=2))),
    Row("random tokens", lambda world, config: read_tokens(world, untrained(world.backend, config))),
    Row("nearest neighbours of features", nearest_neighbours),
    Row("tokens of the nearest procedural kind", shipped, False),
    Row("phrases, no discovery", told_by_phrases, False),
    Row("landmarks marked on every object", marked),
    Row("mean shape", shape(False), False),
    Row("mean shape, heading known", shape(True), False),
    Row("untrained UNet", partial(discovered, blank=True)),
)


def found_by(row: Row, world: World, config: ko.DiscoverConfig) -> Figures | None:
    """The figures of a row; keypoints that were kept are not sought again."""
    path = world.keep_in(f"{row.name.replace(' ', '_').replace(',', '')}_{config.seed}.safetensors")
    if path is not None and path.is_file():
        return figures(world, Found(**load_file(path)))
    found = row.run(world, config)
    if not isinstance(found, Found):
        return found
    if path is not None:
        save_file({name: value.contiguous() for name, value in vars(found).items()}, path)
    return figures(world, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("meshes", type=Path)
    parser.add_argument("--kinds", nargs="+", help="only these")
    parser.add_argument("--rows", nargs="+", help="only these rows, by their names")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--headings", type=int, default=12)
    parser.add_argument("--shown", type=int, default=1, help="headings at which discovery sees each mesh")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--runs", type=Path, help="procedural tokens: RUNS/KIND/tokens.safetensors")
    parser.add_argument("--keep", type=Path, help="where tokens and keypoints are kept and taken from; one a setting")
    parser.add_argument("--json", type=Path, help="figures; a run with the same settings goes on from them")
    parser.add_argument("--markdown", type=Path, help="the table")
    args = parser.parse_args()
    models = ko.load_backend(args.model), blank_backend(0)
    settings = {"model": args.model, "steps": args.steps, "headings": args.headings, "shown": args.shown}
    settings["fingerprint"] = models[0].fingerprint
    results, kinds, work = resumed(args.json, settings), meshes_of(args.meshes), Work()
    rows = [row for row in ROWS if args.rows is None or row.name in args.rows]
    if unknown := [kind for kind in args.kinds or () if kind not in kinds]:
        raise SystemExit(f"{args.meshes} holds no {unknown[0]}; it holds {', '.join(kinds)}")
    for kind in args.kinds or [kind for kind, meshes in kinds.items() if len(meshes) >= FEWEST]:
        of_kind, world = results.setdefault(kind, {}), None
        for row in rows:
            done = of_kind.setdefault(row.name, {})
            for seed in args.seeds if row.seeded else args.seeds[:1]:
                if str(seed) in done:
                    continue
                if world is None:
                    work.clear()
                    shown, tested = split(kinds[kind])
                    chosen = [(mesh, some_heading(mesh) + turn) for turn in headings(args.shown) for mesh in shown]
                    world = World(kind, *models, chosen, tested, headings(args.headings), work, args.runs, args.keep)
                found = found_by(row, world, ko.DiscoverConfig(steps=args.steps, seed=seed))
                if found is not None:
                    done[str(seed)] = found
                    keep(args.json, settings, results)
                    told = {name: round(found[name], 3) for name in SHOWN if found.get(name) is not None}
                    print(kind, row.name, seed, told, flush=True)
    show(results, args.markdown)


def show(results: dict[str, dict[str, dict[str, Figures]]], markdown: Path | None) -> None:
    """Mean and spread over the seeds, on the terminal and as markdown."""
    lines = []
    for kind, methods in results.items():
        for name in [row.name for row in ROWS if methods.get(row.name)]:
            seeds = list(methods[name].values())
            lines.append((kind, name, *(cell([seed.get(field) for seed in seeds]) for field in SHOWN)))
    header = ("kind", "row", *SHOWN)
    table = Table(*header, title="Meshes that no generator of ours made")
    for line in lines:
        table.add_row(*line)
    Console(width=200).print(table)
    if markdown is not None:
        text = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        text += ["| " + " | ".join(line) + " |" for line in lines]
        markdown.parent.mkdir(parents=True, exist_ok=True)
        markdown.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
