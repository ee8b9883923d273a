"""Keypoints on meshes that no generator of ours made: ``python benchmarks/real.py MESHES --json real.json``.

`real_data.py` says what MESHES holds, which of them are for the test, and what the truth is. Of every kind with four
meshes or more, 16 keypoints are discovered on two thirds, each seen at one heading; the others are seen at twelve.

- landmark_3d, its median: of landmarks as weighted means of keypoints, fitted on the discovery's meshes; object sizes
- wrong_turns: share of the test's pictures on which the landmarks are turned by more than 45 degrees
- dual_alignment: of the test's meshes at one heading, mean over the headings
- reprojection: median, sides of the view
- same_place: share of keypoints within a tenth of the size of where another heading has them, turned back; all pairs of
  headings; the least of all meshes is same_place_worst

Turns that look alike (`real_meshes.json`) count as the same. Figures are written after every row, and a run with the
same settings goes on from them.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import torch
from jaxtyping import Bool, Float
from rich.console import Console
from rich.table import Table
from torch import Tensor

import keyorbit as ko
from baselines import mean_shape
from foreign import NEAR
from keyorbit.app.calls import EXAMPLES
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.recording import Recording
from keyorbit.discovery.initial import untrained
from keyorbit.evaluation.landmarks import Judged, predict_landmarks
from keyorbit.evaluation.metrics import dual_alignment_score
from keyorbit.geometry.alignment import turns_by
from keyorbit.geometry.keypoints import Keypoints3D
from matching import features, matched, points_of
from phrases import PHRASES, phrase_tokens
from quality import Figures, blank_backend, cell, keep, resumed
from real_data import NEAREST, RealMesh, headings, meshes_of, seen, some_heading, split
from shared_work import SharedWork

FEWEST = 4
WRONG_DEG = 45.0
SHOWN = (
    *("landmark_3d", "landmark_3d_median", "wrong_turns", "dual_alignment", "reprojection", "same_place"),
    *("same_place_worst", "seconds"),
)
# Every turn looks alike on a round object: so many are tried.
_ANY_TURN = 72


@dataclass(frozen=True)
class World:
    """A kind's objects, and what its rows share. Of the test: a row a mesh, with the mesh at every heading."""

    kind: str
    backend: Zero123PlusBackend
    blank: Zero123PlusBackend
    meshes: list[RealMesh]
    headings: list[float]
    train: list[ko.ObjectViews]
    test: list[list[ko.ObjectViews]]
    work: SharedWork
    runs: Path | None
    kept: Path | None

    @property
    def angles(self) -> list[Float[Tensor, " angle"]]:
        """Of each test mesh, the turns in radians that look alike."""
        counts = [mesh.symmetry or _ANY_TURN for mesh in self.meshes]
        return [torch.arange(count) * (2 * torch.pi / count) for count in counts]


@dataclass(frozen=True, eq=False)
class Found:
    """Keypoints of the discovery's objects, and of the test's with every mesh's front towards +x."""

    fit: Float[Tensor, "item keypoint 3"]
    points: Float[Tensor, "mesh heading keypoint 3"]
    reprojection: float


@dataclass(frozen=True)
class Row:
    """One method: what gives its figures for a seed; None where a kind lacks what it needs.

    ``seeded``: whether the seed changes anything.
    """

    name: str
    run: Callable[[World, ko.DiscoverConfig], Figures | None]
    seeded: bool = True


def world_of(
    kind: str,
    meshes: Sequence[RealMesh],
    turns: list[float],
    models: tuple[Zero123PlusBackend, Zero123PlusBackend],
    work: SharedWork,
    runs: Path | None = None,
    kept: Path | None = None,
) -> World:
    """The objects of a kind, rendered."""
    discovery, test = split(meshes)
    size = models[0].view_size
    train = [seen(mesh, some_heading(mesh), size) for mesh in discovery]
    shown = [[seen(mesh, turn, size) for turn in turns] for mesh in test]
    return World(kind, *models, test, turns, train, shown, work, runs, kept)


def figures(world: World, found: Found) -> Figures:
    """Everything that is told of keypoints."""
    shares = [same_place(points, angles) for points, angles in zip(found.points, world.angles, strict=True)]
    told: Figures = {"reprojection": found.reprojection, "same_place": fmean(shares), "same_place_worst": min(shares)}
    truths = [[thing.truth for thing in row] for row in world.test]
    if not any(truth is not None and bool(truth.known.any()) for row in truths for truth in row):
        return told
    fit = [thing.truth for thing in world.train]
    fitted = Judged(
        found.fit, torch.stack([truth.keypoints_3d for truth in fit]), torch.stack([truth.known for truth in fit])
    )
    known = torch.stack([row[0].known for row in truths])
    landmarks = torch.stack(
        [back(truth.keypoints_3d, turn) for row in truths for truth, turn in zip(row, world.headings, strict=True)]
    ).unflatten(0, found.points.shape[:2])
    every = known[:, None].expand(*landmarks.shape[:-1])
    judged = Judged(found.points.flatten(0, 1), landmarks.flatten(0, 1), every.flatten(0, 1))
    predicted = predict_landmarks(judged, fitted).unflatten(0, found.points.shape[:2])
    rows = zip(predicted, landmarks, known, world.angles, found.points, strict=True)
    each = [judged_mesh(*row) for row in rows if bool(row[2].any())]
    errors = [error for mesh in each for error in mesh.errors]
    told |= {"landmark_3d": fmean(errors), "landmark_3d_median": median(errors)}
    told["wrong_turns"] = fmean(wrong for mesh in each for wrong in mesh.wrong)
    if len(each) > 1:
        turned = torch.stack([mesh.points for mesh in each], 1)
        true, there = torch.stack([landmarks[i] for i in range(len(known)) if known[i].any()], 1), known[known.any(-1)]
        scores = [dual_alignment_score(one, other, there) for one, other in zip(turned, true, strict=True)]
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
    landmarks: Float[Tensor, "heading landmark 3"],
    known: Bool[Tensor, " landmark"],
    angles: Float[Tensor, " angle"],
    points: Float[Tensor, "heading keypoint 3"],
) -> JudgedMesh:
    """Landmarks against the truth, under the best of the turns that look alike."""
    turned = torch.einsum("aij,hlj->hali", turns_by(angles), predicted[:, known])
    errors = (turned - landmarks[:, None, known]).norm(dim=-1).mean(-1)
    best = errors.min(-1)
    fitting = turned[torch.arange(len(turned)), best.indices]
    off = [turn_between(one, other) for one, other in zip(fitting, landmarks[:, known], strict=True)]
    own = torch.einsum("hij,hkj->hki", turns_by(angles[best.indices]), points)
    return JudgedMesh(best.values.tolist(), [abs(angle) > WRONG_DEG for angle in off], own)


def turn_between(one: Float[Tensor, "point 3"], other: Float[Tensor, "point 3"]) -> float:
    """The turn about the vertical, degrees, that brings points nearest to others."""
    (x, y), (u, v) = ((points - points.mean(0))[:, :2].unbind(-1) for points in (one, other))
    return float(torch.rad2deg(torch.atan2((x * v - y * u).sum(), (x * u + y * v).sum())))


def same_place(points: Float[Tensor, "heading keypoint 3"], angles: Float[Tensor, " angle"]) -> float:
    """Share of keypoints that lie where another heading has them, over all pairs, in the best turn that looks alike."""
    one, other = torch.triu_indices(len(points), len(points), 1)
    turned = torch.einsum("aij,pkj->paki", turns_by(angles), points[one])
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
    return Found(torch.stack(fit), torch.stack(points), float(errors.median()))


def judge(world: World, tokens: ko.Tokens, backend: Zero123PlusBackend | None = None) -> Figures:
    """The figures of tokens."""
    detector = ko.KeypointDetector(backend or world.backend, tokens)

    def reader(thing: ko.ObjectViews) -> Keypoints3D:
        return world.work.detect_all(detector, [thing])[0].keypoints_3d

    return figures(world, read(world, reader))


def discovered(world: World, config: ko.DiscoverConfig, blank: bool = False) -> Figures:
    """Discovery as it is, by default with the trained model."""
    backend = world.blank if blank else world.backend
    began = time.monotonic()
    tokens = world.work.discover(backend, world.train, config)
    seconds = time.monotonic() - began
    if world.kept is not None and not blank:
        place = world.kept / world.kind
        place.mkdir(parents=True, exist_ok=True)
        tokens.save(place / f"tokens_{config.seed}.safetensors")
    return judge(world, tokens, backend) | {"seconds": seconds}


def nearest_neighbours(world: World, config: ko.DiscoverConfig) -> Figures:
    """Features of points of one of the discovery's objects, matched on all others."""
    detector = ko.KeypointDetector(world.backend, untrained(world.backend, config))

    def looked(thing: ko.ObjectViews) -> tuple[Recording, Tensor]:
        with features(world.backend) as maps:
            return detector.record(thing), maps[0]

    points = points_of(*looked(world.train[config.seed % len(world.train)]), config.num_tokens)
    return figures(world, read(world, lambda thing: matched(points, *looked(thing))))


def shipped(world: World, config: ko.DiscoverConfig) -> Figures | None:
    """Tokens that were discovered on procedural objects of the nearest kind; those of chairs ship with the package."""
    near = NEAREST.get(world.kind, world.kind)
    path = None if world.runs is None else world.runs / near / "tokens.safetensors"
    if path is None or not path.is_file():
        path = EXAMPLES / "tokens.safetensors" if near == "chair" else None
    return None if path is None else judge(world, ko.Tokens.load(path))


def told_by_phrases(world: World, config: ko.DiscoverConfig) -> Figures | None:
    """Phrases that the model's training tied to parts, where it has any of the nearest kind."""
    near = NEAREST.get(world.kind, world.kind)
    return judge(world, phrase_tokens(world.backend, near, config)) if near in PHRASES else None


def shape(turned: bool) -> Callable[[World, ko.DiscoverConfig], Figures | None]:
    """The mean landmarks of the discovery's objects, as every object's answer."""

    def run(world: World, _: ko.DiscoverConfig) -> Figures | None:
        everything = [thing for row in world.test for thing in row]
        if not any(thing.truth is not None and bool(thing.truth.known.any()) for thing in everything):
            return None
        return {"landmark_3d": mean_shape(world.train, everything, turned)}

    return run


ROWS = (
    Row("discovered", discovered),
    Row("random tokens", lambda world, config: judge(world, untrained(world.backend, config))),
    Row("nearest neighbours of features", nearest_neighbours),
    Row("tokens of the nearest procedural kind", shipped, False),
    Row("phrases, no discovery", told_by_phrases, False),
    Row("mean shape", shape(False), False),
    Row("mean shape, heading known", shape(True), False),
    Row("untrained UNet", lambda world, config: discovered(world, config, True)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("meshes", type=Path)
    parser.add_argument("--kinds", nargs="+", help="only these")
    parser.add_argument("--rows", nargs="+", help="only these rows, by their names")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--headings", type=int, default=12)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--runs", type=Path, help="procedural tokens: RUNS/KIND/tokens.safetensors")
    parser.add_argument("--keep", type=Path, help="where tokens that are discovered are kept")
    parser.add_argument("--json", type=Path, help="figures; a run with the same settings goes on from them")
    parser.add_argument("--markdown", type=Path, help="the table")
    args = parser.parse_args()
    models = ko.load_backend(args.model), blank_backend(0)
    settings = {"model": args.model, "steps": args.steps, "headings": args.headings}
    settings["fingerprint"] = models[0].fingerprint
    results, kinds, work = resumed(args.json, settings), meshes_of(args.meshes), SharedWork()
    rows = [row for row in ROWS if args.rows is None or row.name in args.rows]
    for kind in args.kinds or [kind for kind, meshes in kinds.items() if len(meshes) >= FEWEST]:
        of_kind, world = results.setdefault(kind, {}), None
        for row in rows:
            done = of_kind.setdefault(row.name, {})
            for seed in args.seeds if row.seeded else args.seeds[:1]:
                if str(seed) in done:
                    continue
                if world is None:
                    work.clear()
                    world = world_of(kind, kinds[kind], headings(args.headings), models, work, args.runs, args.keep)
                found = row.run(world, ko.DiscoverConfig(steps=args.steps, seed=seed))
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
