"""``keyorbit demo``: the main job from start to end, on chairs that are made here."""

import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from keyorbit.cli.telling import JsonOption, tell_json
from keyorbit.cli.terminal import console
from keyorbit.diffusion.paths import shipped_tokens
from keyorbit.errors import InputError
from keyorbit.storage.outputs import OutputKind, replaced_folder


@dataclass(frozen=True)
class Plan:
    """How much is done.

    Attributes:
        train: objects that keypoints are discovered on.
        test: others that they are measured on.
        steps: of the discovery.
        takes: how long all takes on two cores, in words.
    """

    train: int
    test: int
    steps: int
    takes: str


FULL, QUICK = Plan(60, 20, 500, "about four minutes"), Plan(12, 6, 100, "about a minute and a half")
OBJECTS = OutputKind("demo's objects")
# Without the ray caster: of the eight chairs that ship.
SHIPPED = Plan(6, 2, 100, "about a minute")


def demo_command(
    out: Annotated[Path, typer.Option(help="The folder to fill; what an earlier demo left there is replaced.")] = Path(
        "keyorbit-demo"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer objects and steps: less time, larger errors.")] = False,
    json_file: JsonOption = None,
) -> None:
    """Make chairs, discover keypoints on them without labels, measure them on other chairs, and write a report.

    It needs no data, no network and no GPU, and tells beforehand how long it takes.
    """
    # Here, since main imports this module beside theirs.
    from keyorbit.cli.dataset import dataset_make
    from keyorbit.cli.detect import detect_command
    from keyorbit.cli.discover import discover_command
    from keyorbit.cli.evaluate import evaluate_command
    from keyorbit.cli.report import report_command

    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder for the demo")
    can_render = find_spec("embreex") is not None
    plan = SHIPPED if not can_render else QUICK if quick else FULL
    train, test = out / "train", out / "test"
    _say(f"The whole job takes {plan.takes} on two cores, and fills {out}")
    if can_render:
        _say(f"1/5 Objects: {plan.train} chairs to learn from, {plan.test} others to test on")
        workers = max(1, min(8, os.cpu_count() or 1))
        for folder, count, seed in ((train, plan.train, 1), (test, plan.test, 2)):
            dataset_make(folder, "chair", count, seed, workers=workers, overwrite=True)
    else:
        _say("1/5 Objects: eight chairs that ship; with pip install 'keyorbit[synthetic]' new ones are made")
        _copy_shipped(train, slice(plan.train))
        _copy_shipped(test, slice(plan.train, None))
    run = out / "run"
    _say("2/5 Discover 16 keypoints, without labels")
    discover_command(run, [train], steps=plan.steps, overwrite=True)
    chair = sorted(path for path in test.iterdir() if path.is_dir())[-1]
    _say(f"3/5 Detect them on {chair.name}, not seen before: from its six views, and from one picture alone")
    detect_command(run, [chair], out / "given_views", overwrite=True)
    detect_command(run, [chair / "cond.png"], out / "one_picture", overwrite=True)
    _say("4/5 Measure them against the truth, next to untrained tokens")
    evaluate_command(run, [test], fit=train, json_file=out / "scores.json")
    _say("5/5 All of it on one page")
    report_command(run, [test], scores=out / "scores.json")
    _say(f"Look at {run / 'report.html'} and {out / 'given_views' / 'overlay.png'}; go on with your own pictures:")
    _say(f"  keyorbit detect {run} picture.png --out found")
    made = {"run": run, "scores": out / "scores.json", "page": run / "report.html", "found": out / "given_views"}
    tell_json(json_file, "demo", {"out": str(out), **{name: str(path) for name, path in made.items()}})


def _copy_shipped(folder: Path, which: slice) -> None:
    """Copy some of the chairs that ship, in place of those that an earlier demo copied there."""
    chairs = sorted(path for path in (shipped_tokens().parent).iterdir() if path.is_dir())[which]
    with replaced_folder(folder, OBJECTS, overwrite=True) as partial:
        for chair in chairs:
            shutil.copytree(chair, partial / chair.name)


def _say(line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
