"""Whether a keypoint lies where its name says: ``python benchmarks/names.py``.

The tokens that ship, of four kinds, are named as ``keyorbit name`` does it: with the tiny model's phrases of their
kind, by the agreement of heatmaps over eight of the objects that they were found on (seed 1). Whatever agrees best gets
its name here, however little it agrees. On others (seed 2) it is then measured how far the keypoint is from where the
phrase itself, read as a token, lies: a name is *right* on an object where that is within a tenth of the object's size.
The table sorts names by agreement; ``keyorbit name`` gives those of 0.5 and more. Words of another kind name nothing of
an object: how many of the keypoints they name is told below.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

import torch
from rich.console import Console
from rich.table import Table

import keyorbit as ko
from keyorbit.detection.choices import NEAR_NAME
from keyorbit.detection.detector import KeypointDetector
from keyorbit.detection.naming import agreements, choose_names
from keyorbit.detection.words import kind_phrases
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.choices import SHIPPED_KINDS
from keyorbit.diffusion.paths import shipped_tokens
from keyorbit.objects.dataset import ObjectViews
from keyorbit.synthetic.choices import MAX_OBJECTS
from keyorbit.synthetic.samples import SampleSpec, as_object, make_sample

BINS = (0.0, 0.3, 0.4, NEAR_NAME, 0.6, 0.7, 0.8, 1.0)
NEAR = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/names"), help="a stopped run goes on from it")
    parser.add_argument("--objects", type=int, default=16, help="of each kind, on which names are judged")
    parser.add_argument("--kinds", nargs="+", choices=SHIPPED_KINDS, default=list(SHIPPED_KINDS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    backend, rows, others = ko.load_backend("tiny"), [], []
    for kind in args.kinds:
        file = args.work / f"{kind}-{args.objects}.json"
        if not file.is_file():
            file.write_text(json.dumps(measured(backend, kind, args.objects)), encoding="utf-8")
        told = json.loads(file.read_text(encoding="utf-8"))
        rows += told["names"]
        others.append((kind, told["other"], told["by_other"]))
    show(rows, others)


def measured(backend: Backend, kind: str, count: int) -> dict:
    """The names of a kind's keypoints, and what words of another kind name."""
    tokens, phrases = ko.Tokens.load(shipped_tokens(kind)), kind_phrases(kind)
    seen = [thing_of(kind, MAX_OBJECTS + i) for i in range(8)]
    names = choose_names(agreements(backend, tokens, phrases, seen), phrases, 0.0)
    places = [places_of(backend, tokens, names, thing_of(kind, 2 * MAX_OBJECTS + i)) for i in range(count)]
    rows = [{"kind": kind, **vars(name), "distances": [one[i] for one in places]} for i, name in enumerate(names)]
    other = SHIPPED_KINDS[(SHIPPED_KINDS.index(kind) + 1) % len(SHIPPED_KINDS)]
    wrong = choose_names(agreements(backend, tokens, kind_phrases(other), seen), kind_phrases(other))
    return {"names": rows, "other": other, "by_other": sum(bool(name.phrase) for name in wrong)}


def thing_of(kind: str, number: int) -> ObjectViews:
    """A procedural object with its own views."""
    return as_object(make_sample(SampleSpec(kind, number)))


def places_of(backend: Backend, tokens: ko.Tokens, names: tuple, thing: ObjectViews) -> list[float]:
    """How far each keypoint is from the place of its phrase, sizes of the object."""
    words = ko.Tokens.from_phrases(backend, [name.phrase for name in names])
    found, said = (KeypointDetector(backend, some).detect_object(thing).keypoints_3d.xyz for some in (tokens, words))
    return (found - said).norm(dim=-1).tolist()


def show(rows: list[dict], others: list[tuple[str, str, int]]) -> None:
    """The tables."""
    table = Table("agreement", "names", "distance, median, %", "right, %", title="Names by agreement")
    for low, high in pairwise(BINS):
        some = [row for row in rows if low <= row["agreement"] < high or high == row["agreement"] == 1.0]
        if some:
            each = [d for row in some for d in row["distances"]]
            right = fmean(d < NEAR for d in each)
            table.add_row(f"{low:.1f} to {high:.1f}", str(len(some)), f"{100 * median(each):.1f}", f"{100 * right:.0f}")
    Console().print(table)
    for kind, other, count in others:
        print(f"{kind}: words of kind {other} name {count} of 16 keypoints")


if __name__ == "__main__":
    main()
