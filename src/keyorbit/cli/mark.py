"""``keyorbit mark``: points that are marked on one object, or a few, become the keypoints of a run."""

import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from keyorbit.cli.inputs import given_paths, named_paths
from keyorbit.cli.options import (
    BackgroundOption,
    DeterministicOption,
    DeviceOption,
    DtypeOption,
    LayoutOption,
    MaskOption,
    OverwriteOption,
    RigOption,
    UnetOption,
    check_model_options,
    checked_masks,
)
from keyorbit.cli.telling import JsonOption, tell_json
from keyorbit.cli.terminal import console, progress
from keyorbit.devices import AUTO
from keyorbit.diffusion.paths import tokens_file
from keyorbit.discovery.choices import MARKED_RUN, MARKS, PLACED
from keyorbit.discovery.marks_config import MarkConfig
from keyorbit.errors import InputError
from keyorbit.objects.marks import check_marks, marks_of, read_marks, write_marks
from keyorbit.objects.points.read import TOOLS, read_points
from keyorbit.storage.files import write_json
from keyorbit.storage.outputs import begin_output, check_output
from keyorbit.values import Amount, Seed


def mark_command(
    objects: Annotated[
        list[Path],
        typer.Argument(
            help="The marked objects, and others of their kind, which help: folders, pictures, patterns, or - for a "
            "list on stdin.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    points: Annotated[
        Path | None, typer.Option(help="A JSON file of marks: names, and places in views or in space; docs/marks.md.")
    ] = None,
    coco: Annotated[
        Path | None, typer.Option(help=f"The same as a tool exported it, a file, folder or archive: {TOOLS}.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="A run of 'keyorbit discover', whose tokens help to find an object's turn.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the run's keypoints too; a mark of the same name replaces one.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="The model; default the run's own, else 'tiny'.")] = None,
    steps: Annotated[
        int, typer.Option(help="Steps on the objects without marks, after those on the marks."), Amount
    ] = MarkConfig.steps,
    background: BackgroundOption = None,
    mask: MaskOption = None,
    seed: Annotated[int, typer.Option(help="Of tokens, noise and generated views."), Seed] = 0,
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
    unet: UnetOption = None,
    rig: RigOption = None,
    layout: LayoutOption = None,
    device: DeviceOption = AUTO,
    dtype: DtypeOption = AUTO,
    deterministic: DeterministicOption = False,
) -> None:
    """Make keypoints of points that are marked on some of the objects; they are found on all others as any run's."""
    file = points or coco
    if file is None or (points is not None and coco is not None):
        raise InputError("give the marks: either --points FILE or --coco FILE")
    if keep and run is None:
        raise InputError("--keep keeps the keypoints of a run: give it with --run")
    view_choice = check_model_options(model, unet, rig, layout, dtype)
    check_output(out, MARKED_RUN, overwrite)
    if run is not None:
        tokens_file(run)
        if run.resolve() == out.resolve():
            raise InputError(f"{out} is the run that --run gives: give another folder for the new one")
    marks = () if points is None else read_marks(points)
    annotated = () if coco is None else read_points(coco)
    paths = given_paths(objects)
    masks = checked_masks(paths, background, mask)

    from rich.table import Table

    from keyorbit.cli.work.loading import load_model, load_tokens, run_backend, use_device
    from keyorbit.cli.work.several import load_all
    from keyorbit.detection.marking import mark
    from keyorbit.objects.picture_marks import marks_on

    began = time.monotonic()
    base = None if run is None else load_tokens(run)
    things = [thing for path in paths for thing in load_all(path, background, masks)]
    if twice := [name for name, count in Counter(thing.name for thing in things).items() if count > 1]:
        raise InputError(f"two objects are called {twice[0]}: marks could be of either; rename one")
    if coco is None:
        marks_of(marks, [thing.name for thing in things])  # what is wrong with them is told before there is a model
    on = use_device(device, deterministic)
    if base is None:
        backend = load_model(model or "tiny", on, dtype, unet, view_choice)
    else:
        backend = run_backend(base, model, on, dtype, unet, view_choice)
    if coco is not None:
        marks = marks_on(annotated, things, backend.layout, str(coco))
        check_marks(marks, str(coco))
    config = MarkConfig(steps=steps, seed=seed)
    with progress() as tick:
        found = mark(backend, things, marks, config, base, keep, tick)
    begin_output(out, MARKED_RUN, overwrite, checked=True)
    write_marks(out / MARKS, marks)
    write_json(out / PLACED, {"format": "keyorbit-placed-1", "marks": [asdict(one) for one in found.placed]})
    about: dict[str, Any] = {
        "format": "keyorbit-run-1",
        "data": named_paths(paths),
        "objects": len(things),
        "model": backend.name,
    }
    about |= {"marked": len({one.object for one in found.placed}), "seconds": time.monotonic() - began}
    about |= {"config": asdict(config)}
    write_json(out / "run.json", about)
    found.tokens.save(out / "tokens.safetensors")
    table = Table("object", "point", "where", "x, y, z", "seen in views")
    for one in found.placed:
        place = "–" if one.xyz is None else ", ".join(f"{value:.3f}" for value in one.xyz)
        seen = ", ".join(str(i) for i, there in enumerate(one.seen) if there) or "none"
        table.add_row(one.object, one.name, one.words, place, seen)
    made: dict[str, Any] = {"out": str(out), "tokens": str(out / "tokens.safetensors"), "keypoints": len(found.tokens)}
    tell_json(json_file, "mark", made | {"run": about, "placed": [asdict(one) for one in found.placed]})
    console.print(table)
    count = len({one.object for one in found.placed})
    console.print(
        f"{len(found.tokens)} keypoints from {count} marked of {len(things)} objects: {out / 'tokens.safetensors'}",
        soft_wrap=True,
    )
