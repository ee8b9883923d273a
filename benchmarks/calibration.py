"""Fit and measure the confidence of detections: ``python benchmarks/calibration.py --work runs/calibration``.

The folder ``--work`` keeps what was done, so that a stopped run goes on: ``tokens/KIND.safetensors``, discovered where
they are not there, and what each kind's tokens read on each object.

*Within 10 % of its part.* A keypoint's part on an object is the landmark-weighted place of that keypoint, whose weights
are fitted on other objects of the kind (seed 2); landmarks that not all of these have are left out. On meshes, which
have no landmarks, it is the keypoint's median place in the boxes of the kind's other meshes, in the files' own axes;
chairs, whose files face anywhere, are turned by their backs, stools and aeroplanes have no truth. On objects of another
kind no keypoint has a part.

*Split.* The weights are fitted with the tokens of chairs and cars, which fit their own kind well and badly, on
procedural objects (seed 3) with true views and from one picture, on meshes with true views, and on noise. Every figure
of the second table is of what the fit has not seen: the tokens of aeroplanes, animals and people on everything, and
photographs and cut-outs with any tokens. The tiny model was never trained on people.
"""

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize
from torch import Tensor

import keyorbit as ko
from keyorbit.detection.confidence import KEYPOINT, OBJECT, keypoint_clues, object_clues, weighed
from keyorbit.evaluation.metrics import apply_landmark_weights, fit_landmark_weights
from keyorbit.geometry.hull import surface_points
from keyorbit.objects.dataset import ObjectViews, load_object
from keyorbit.objects.pictures import load_image
from keyorbit.output.plotting import save_figure
from keyorbit.storage.checkpoint import load_checkpoint, save_checkpoint
from keyorbit.synthetic.choices import MAX_OBJECTS
from keyorbit.synthetic.dataset import render_mesh
from keyorbit.synthetic.samples import SampleSpec, as_object, make_samples
from photographs import photographs

FITTED, TESTED = ("chair", "car"), ("aeroplane", "animal", "person")
# Kinds that only serve as other kinds.
OTHERS = ("lamp", "mug", "table")
# Without meshes from one picture, of which it is not known whether the model made its own kind of them.
FIT_GROUPS = ("true", "generated", "mesh", "noise")
NEAR = 0.1
BINS = 10
# Chosen by fitting on one of the two kinds of FITTED and judging on the other, as were the clues: with fit and margin
# of the turn and the evidence at the keypoints, which a discovery knows too, log-likelihood there was worse.
RIDGE = 3e-3
# No clue of an object or a keypoint may count against its meaning: 1 speaks for it, -1 against it.
OBJECT_SIGNS, KEYPOINT_SIGNS = (-1, 1, -1), (-1, 1, 1)
# Kinds whose mesh files stand in one direction; chairs are turned by their backs.
FACING = ("animal", "car", "person")
# How far the top fifth of a chair is behind its middle, in world units, where it has a back.
BACK = 0.05


@dataclass(frozen=True, eq=False)
class Case:
    """What one kind's tokens read on one object.

    Attributes:
        tokens: the kind that they were found on.
        kind: of the object.
        group: true, generated, mesh, mesh generated, photograph or noise; and ``fit`` for the parts' own objects.
        thing: name of the object.
        clues: of the object, see :func:`~keyorbit.detection.confidence.object_clues`.
        each: [keypoint 2], those of its keypoints but for the last one, the object's logit.
        xyz: the keypoints.
        truth: its landmarks and which it has; None without.
        box: lowest and highest corner of its visual hull in its own frame, and its heading in radians; meshes only.
    """

    tokens: str
    kind: str
    group: str
    thing: str
    clues: Tensor
    each: Tensor
    xyz: Tensor
    truth: tuple[Tensor, Tensor] | None = None
    box: tuple[Tensor, Tensor, float] | None = None

    def save(self, path: Path) -> None:
        """Keep it."""
        tensors = {"clues": self.clues, "each": self.each, "xyz": self.xyz}
        words: dict[str, Any] = {name: getattr(self, name) for name in ("tokens", "kind", "group", "thing")}
        if self.truth is not None:
            tensors["landmarks"], tensors["known"] = self.truth
        if self.box is not None:
            tensors["box"], words["heading"] = torch.stack(self.box[:2]), self.box[2]
        save_checkpoint(path, tensors, words)

    @classmethod
    def load(cls, path: Path) -> "Case":
        """What was kept."""
        found, words = load_checkpoint(path)
        truth = (found["landmarks"], found["known"]) if "known" in found else None
        box = (*found["box"], words.pop("heading")) if "box" in found else None
        return cls(**words, **{name: found[name] for name in ("clues", "each", "xyz")}, truth=truth, box=box)


def parts_by_landmarks(fit: Sequence[Case], cases: Sequence[Case]) -> list[Tensor]:
    """Where each keypoint's part is on each object, by landmarks that all objects of ``fit`` have."""
    known = torch.stack([case.truth[1] for case in fit]).all(0)
    marks = torch.stack([case.truth[0][known] for case in fit])
    weights = fit_landmark_weights(marks, torch.stack([case.xyz for case in fit]))
    found = []
    for case in cases:
        has = case.truth[1][known]
        place = apply_landmark_weights(weights, case.truth[0][known].nan_to_num())
        found.append(place if bool(has.all()) else torch.full_like(place, torch.nan))
    return found


def parts_by_boxes(cases: Sequence[Case]) -> list[Tensor]:
    """The same of meshes: the median place in the boxes of the kind's other meshes, in each one's own frame."""
    inside = []
    for case in cases:
        low, high, heading = case.box
        inside.append((case.xyz @ _turn(heading).T - low) / (high - low).clamp_min(0.05))
    found = []
    for i, case in enumerate(cases):
        low, high, heading = case.box
        others = torch.stack([one for j, one in enumerate(inside) if j != i])
        found.append((others.median(0).values * (high - low) + low) @ _turn(heading))
    return found


def _turn(heading: float) -> Tensor:
    c, s = np.cos(heading), np.sin(heading)
    return torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float32)


def rights(cases: Sequence[Case]) -> list[Tensor]:
    """Of each case, which keypoints are within 10 % of their part: 1, 0, or NaN where that is not known."""
    found: dict[int, Tensor] = {}
    for kind in {case.tokens for case in cases}:
        fit = [c for c in cases if c.tokens == c.kind == kind and c.group == "fit"]
        own = [c for c in cases if c.tokens == c.kind == kind and c.group != "fit"]
        marked, boxed = [c for c in own if c.truth is not None], [c for c in own if c.box is not None]
        places = list(zip(marked, parts_by_landmarks(fit, marked), strict=True)) if fit else []
        # Only true views: a part's place must not rest on what is judged.
        meshes = [c for c in boxed if c.group == "mesh"]
        places += list(zip(meshes, parts_by_boxes(meshes), strict=True)) if len(meshes) > 2 else []
        for case, place in places:
            away = torch.linalg.vector_norm(case.xyz - place, dim=-1)
            found[id(case)] = torch.where(away.isnan(), torch.nan, (away <= NEAR).float())
    nowhere = [torch.full((len(c.xyz),), torch.nan if c.tokens == c.kind else 0.0) for c in cases]
    return [found.get(id(case), other) for case, other in zip(cases, nowhere, strict=True)]


def logistic(clues: Tensor, right: Tensor, signs: Sequence[int], weight: Tensor) -> tuple[float, ...]:
    """Weights of a logistic regression whose clues count only in the direction of their sign, and the constant."""
    x, y, w = (value.double().numpy() for value in (clues, right, weight / weight.mean()))
    spread = x.std(0) + 1e-6

    def loss(theta: np.ndarray) -> float:
        logit = x @ theta[:-1] + theta[-1]
        return float((w * (np.logaddexp(0, logit) - y * logit)).mean() + RIDGE * ((theta[:-1] * spread) ** 2).mean())

    bounds = [(0, None) if sign > 0 else (None, 0) for sign in signs] + [(None, None)]
    start = np.array([0.1 * sign for sign in signs] + [0.0])
    found = minimize(loss, start, method="L-BFGS-B", bounds=bounds, options={"maxiter": 2000, "maxfun": 100_000})
    return tuple(round(float(value), 3) for value in found.x)


def auroc(right: Sequence[float], wrong: Sequence[float]) -> float:
    """The chance that one of ``right`` is above one of ``wrong``; ties count half."""
    a, b = np.asarray(right)[:, None], np.asarray(wrong)[None]
    return float((a > b).mean() + 0.5 * (a == b).mean()) if a.size and b.size else float("nan")


def reliability(
    chance: Sequence[float], right: Sequence[float], weight: Sequence[float] | None = None
) -> tuple[float, list[tuple[float, float, int]]]:
    """The expected calibration error over ten bins of equal width (Guo et al. 2017), and each bin's means and count."""
    p, y = np.asarray(chance), np.asarray(right)
    w = np.ones(len(p)) if weight is None else np.asarray(weight)
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    rows, error = [], 0.0
    for b in sorted(set(place.tolist())):
        there = place == b
        said, true = (float(np.average(x[there], weights=w[there])) for x in (p, y))
        error += float(w[there].sum() / w.sum()) * abs(said - true)
        rows.append((said, true, int(there.sum())))
    return error, rows


# What is measured: the data.


def procedural(kind: str, seed: int, numbers: Iterable[int]) -> Iterator[ObjectViews]:
    """Objects as ``keyorbit dataset make`` draws them."""
    for number in numbers:
        yield as_object(next(iter(make_samples([SampleSpec(kind, seed * MAX_OBJECTS + number)], 1))))


def by_picture(thing: ObjectViews) -> ObjectViews:
    """The object by its input picture alone."""
    return replace(thing, views=None, masks=None)


def pool(args: argparse.Namespace) -> Iterator[tuple[str, str, str, float | None, ObjectViews]]:
    """Name, kind, group, heading (of meshes) and the object itself, the cheapest first."""
    for kind in (*FITTED, *TESTED):
        for thing in procedural(kind, 2, range(12)):
            yield f"proc2-{kind}-{thing.name.split('_')[-1]}", kind, "fit", None, thing
    for kind in (*FITTED, *TESTED, *OTHERS):
        for thing in procedural(kind, 3, range(args.objects)):
            yield f"proc3-{kind}-{thing.name.split('_')[-1]}", kind, "true", None, thing
    draw = np.random.default_rng(0)
    for folder in sorted(args.meshes.iterdir()) if args.meshes else []:
        if not folder.is_dir():
            continue
        for path in sorted(folder.iterdir())[: args.objects if folder.name in (*FITTED, *TESTED) else 3]:
            heading, elevation, out = float(draw.uniform(0, 360)), float(draw.uniform(0, 40)), args.work / "meshes"
            out = out / f"{folder.name}-{path.stem}"
            if not (out / "meta.json").exists():
                render_mesh(path, out, 64, elevation, heading)
            yield f"real-{folder.name}-{path.stem}", folder.name, "mesh", math.radians(heading), load_object(out)
    for number in range(args.pictures):
        for kind in (*FITTED, *TESTED):
            (thing,) = procedural(kind, 3, [number])
            yield f"gen3-{kind}-{thing.name.split('_')[-1]}", kind, "generated", None, by_picture(thing)
    for number, pasted in enumerate(photographs(args.pictures, 3000, [], [])):
        name, kind = f"pasted-{number}", pasted.name.split()[0]
        yield name, kind, "photograph", None, ObjectViews(name, pasted.picture)
    for group, folder in (("photograph", args.photographs), ("cut-out", args.cut_outs)):
        for path in sorted(folder.iterdir()) if folder else []:
            kind = next((name for name in (*FITTED, *TESTED) if name in path.stem), "other")
            yield f"pic-{path.stem}", kind, group, None, ObjectViews(path.stem, load_image(path))
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (128, 128, 3) if number % 2 else (9, 9, 3), np.uint8)
        picture = Image.fromarray(noise).resize((128, 128), Image.Resampling.BICUBIC)
        yield f"noise-{number}", "noise", "noise", None, ObjectViews("noise", picture)


def detectors(work: Path, backend: Any) -> dict[str, ko.KeypointDetector]:
    """One for each kind; tokens that are not there are discovered on 24 objects of seed 1."""
    found = {}
    for kind in (*FITTED, *TESTED):
        path = work / "tokens" / f"{kind}.safetensors"
        if not path.exists():
            things = list(procedural(kind, 1, range(24)))
            ko.discover(backend, things, ko.DiscoverConfig(steps=200)).save(path)
        found[kind] = ko.KeypointDetector(backend, ko.Tokens.load(path))
    return found


def cases(args: argparse.Namespace) -> list[Case]:
    """What every kind's tokens read on every object; kept in the work folder, one file a pair."""
    backend = ko.load_backend(args.model)
    folder, found, by_kind = args.work / "cases", [], detectors(args.work, backend)
    for name, kind, group, heading, thing in pool(args):
        recording = None
        for tokens, detector in by_kind.items():
            path = folder / f"{name}@{tokens}.safetensors"
            if group == "fit" and kind != tokens:
                continue
            if not path.exists():
                recording = recording or detector.record(thing)
                seen = detector.read(replace(recording, config=detector.recording))
                truth = thing.truth
                marks = None if truth is None else (truth.keypoints_3d, truth.known)
                box = None if heading is None or kind != tokens else _box(recording, heading, kind)
                camera = seen.input_camera
                apart = None if camera is None or thing.views is not None else camera.apart / _scale(seen)
                found_3d, statistics = seen.keypoints_3d, detector.tokens.info.statistics
                clues = object_clues(seen.reading, found_3d, statistics, apart)
                # Without the object's logit, of weights that are fitted later.
                each = keypoint_clues(seen.reading, found_3d, statistics, clues[0])[:, :-1]
                Case(tokens, kind, group, name, clues, each, found_3d.xyz, marks, box).save(path)
            found.append(Case.load(path))
    return found


def _scale(seen: ko.Detection) -> float:
    """Of places on the input picture, against those in the square that the model was shown."""
    return seen.framing.scale_and_shift[0] if seen.framing is not None and seen.framing.recentred else 1.0


def _box(recording: Any, heading: float, kind: str) -> tuple[Tensor, Tensor, float] | None:
    """The box of an object in its own axes; None where it is not known which way it faces."""
    surface = surface_points(recording.shown.distance, recording.cameras) @ _turn(heading).T
    if kind == "chair":
        low, high = surface.amin(0), surface.amax(0)
        back = surface[surface[:, 2] > low[2] + 0.8 * (high[2] - low[2])].mean(0) - (low + high) / 2
        if float(back[:2].norm()) < BACK:
            return None
        turn = math.pi - round(2 / math.pi * math.atan2(float(back[1]), float(back[0]))) * math.pi / 2
        heading, surface = heading + turn, surface @ _turn(turn).T
    elif kind not in FACING:
        return None
    return surface.amin(0), surface.amax(0), heading


# What is fitted, and what is told.


@dataclass(frozen=True, eq=False)
class Scored:
    """A case, and which of its keypoints are right."""

    case: Case
    right: Tensor

    @property
    def own(self) -> bool:
        """Whether the tokens are to know it: not in a photograph with its background, whatever that shows."""
        return self.case.tokens == self.case.kind and self.case.group != "photograph"

    def logit(self, weights: Sequence[float] = OBJECT) -> Tensor:
        return weighed(self.case.clues, tuple(weights))

    def each(self, weights: Sequence[float] = OBJECT) -> Tensor:
        own = self.case.each
        return torch.cat([own, self.logit(weights).expand(len(own), 1)], -1)


def scored(found: Sequence[Case]) -> list[Scored]:
    told = [Scored(case, right) for case, right in zip(found, rights(found), strict=True)]
    return [one for one in told if one.case.group != "fit"]


def fitted(some: Sequence[Scored]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The weights; own objects and others weigh the same in all."""
    own = torch.tensor([float(one.own) for one in some])
    weight = own / own.sum() + (1 - own) / (1 - own).sum()
    known = logistic(torch.stack([one.case.clues for one in some]), own, OBJECT_SIGNS, weight)
    clues, right = (torch.cat(rows) for rows in zip(*((one.each(known), one.right) for one in some), strict=True))
    each = weight.repeat_interleave(len(some[0].right))
    there = ~right.isnan()
    return known, logistic(clues[there], right[there], KEYPOINT_SIGNS, each[there])


def known_rights(some: Sequence[Scored]) -> tuple[list[float], list[float], list[float]]:
    """The probabilities of all keypoints whose truth is known, whether they are right, and weights.

    Keypoints of own objects and of others weigh the same in all, as in the fit: half of what is shown is of the kind.
    """
    chance = torch.cat([weighed(one.each(), KEYPOINT).sigmoid() for one in some])
    right = torch.cat([one.right for one in some])
    own = torch.cat([torch.full_like(one.right, float(one.own)) for one in some])
    there = ~right.isnan()
    chance, right, own = chance[there], right[there], own[there]
    weight = own / own.sum().clamp_min(1) + (1 - own) / (1 - own).sum().clamp_min(1)
    return chance.tolist(), right.tolist(), weight.tolist()


def told(some: Sequence[Scored], title: str) -> tuple[Table, dict[str, Any]]:
    """Of groups of cases: mean probability, share that is right, ECE, and AUROC of own against other kinds."""
    table = Table("objects", "n", "known, mean", "unknown, %", "keypoints right, %", "said, %", "ECE, %", title=title)
    rows = {}
    groups = sorted({(one.own, one.case.group) for one in some}, reverse=True)
    for own, group in groups:
        these = [one for one in some if (one.own, one.case.group) == (own, group)]
        known = [float(one.logit().sigmoid()) for one in these]
        chance, right, _ = known_rights(these)
        error, bins = reliability(chance, right)
        name = f"{'own kind' if own else 'others'}, {group}"
        cells = [100 * float(np.mean(x)) if x else math.nan for x in (right, chance)]
        rows[name] = {"n": len(these), "known": known, "right": cells[0], "said": cells[1], "ece": error, "bins": bins}
        unknown = 100 * float(np.mean(np.asarray(known) < 0.5))
        marks = [f"{x:.0f}" for x in cells] + [f"{100 * error:.1f}"] if chance else ["–"] * 3
        table.add_row(name, str(len(these)), f"{np.mean(known):.2f}", f"{unknown:.0f}", *marks)
    return table, rows


def figure(some: Sequence[Scored], path: Path) -> None:
    """Reliability of the keypoints' probabilities, and how the object's lie for own and other kinds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    page = Figure(figsize=(9, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(page)
    left, right = page.subplots(1, 2)
    error, bins = reliability(*known_rights(some))
    left.plot([0, 1], [0, 1], color="#999999", lw=1)
    left.plot([b[0] for b in bins], [b[1] for b in bins], "-", color="#0072B2", lw=1.5)
    left.scatter([b[0] for b in bins], [b[1] for b in bins], [12 + b[2] / 8 for b in bins], color="#0072B2")
    words = "probability that is said", "share within 10 % of their part"
    left.set(
        xlabel=words[0], ylabel=words[1], title=f"keypoints, n = {sum(b[2] for b in bins)}: ECE {100 * error:.1f} %"
    )
    edges = np.linspace(0, 1, 21)
    for own, color, name in ((True, "#009E73", "own kind"), (False, "#D55E00", "others")):
        values = [float(s.logit().sigmoid()) for s in some if s.own == own]
        right.hist(values, edges, color=color, alpha=0.65, label=f"{name} ({len(values)})")
    right.set(xlabel="probability that the tokens know the object", ylabel="objects")
    right.axvline(0.5, color="#777777", lw=1, ls="--")
    right.legend(frameon=False)
    save_figure(page, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--meshes", type=Path, help="a folder of folders of meshes, by kind; y is up")
    parser.add_argument("--photographs", type=Path, help="a folder of pictures with backgrounds")
    parser.add_argument("--cut-outs", type=Path, help="a folder of pictures without")
    parser.add_argument("--objects", type=int, default=10, help="of each kind, with true views")
    parser.add_argument("--pictures", type=int, default=4, help="of each kind, from one picture")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--kept", action="store_true", help="only the cases that are in the work folder already")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    kept = sorted((args.work / "cases").glob("*.safetensors"))
    some = scored([Case.load(path) for path in kept] if args.kept else cases(args))
    fit = [s for s in some if s.case.tokens in FITTED and s.case.group in FIT_GROUPS]
    test = [s for s in some if s not in fit]
    console = Console(width=120)
    known, each = fitted(fit)
    console.print(f"OBJECT = {known}\nKEYPOINT = {each}")
    if (known, each) != (OBJECT, KEYPOINT):
        console.print("these are not the weights of keyorbit.detection.confidence, with which the tables are made")
    written = {}
    for title, these in (("what the weights were fitted on", fit), ("what the fit has not seen", test)):
        table, rows = told(these, title)
        own, other = ([float(s.logit()) for s in these if s.own == one] for one in (True, False))
        error, _ = reliability(*known_rights(these))
        as_they_come, _ = reliability(*known_rights(these)[:2])
        console.print(table)
        console.print(
            f"AUROC of own kind against others {auroc(own, other):.3f}; ECE of all keypoints {100 * error:.1f} %"
        )
        written[title] = {"groups": rows, "auroc": auroc(own, other), "ece": error, "ece_as_they_come": as_they_come}
    if args.json:
        args.json.write_text(
            json.dumps({"object": known, "keypoint": each, **written}, indent=1) + "\n", encoding="utf-8"
        )
    if args.figure:
        figure(test, args.figure)


if __name__ == "__main__":
    main()
