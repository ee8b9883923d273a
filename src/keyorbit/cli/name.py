"""``keyorbit name``: names for a run's keypoints."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from keyorbit.cli.options import (
    DeterministicOption,
    DeviceOption,
    DtypeOption,
    ForceOption,
    LayoutOption,
    RigOption,
    RunArgument,
    UnetOption,
    check_model_options,
)
from keyorbit.cli.terminal import console, progress
from keyorbit.detection.choices import NEAR_NAME, Agreement
from keyorbit.detection.words import KINDS, kind_phrases
from keyorbit.devices import AUTO
from keyorbit.diffusion.paths import tokens_file
from keyorbit.errors import InputError, one_of
from keyorbit.objects.sources import object_sources
from keyorbit.output.page.inputs import check_run_folder
from keyorbit.storage.content import text_of
from keyorbit.storage.files import write_json
from keyorbit.storage.outputs import check_file
from keyorbit.values import Count

NAMES_MARK = '"keyorbit-names-1"'


def name_command(
    run: RunArgument,
    data: Annotated[
        Path | None, typer.Option("--objects", help="Objects to look at; default those of the run.")
    ] = None,
    limit: Annotated[int, typer.Option(help="How many of them."), Count] = 8,
    words: Annotated[Path | None, typer.Option(help="A text file of phrases, one a line.")] = None,
    kind: Annotated[
        str | None, typer.Option(help=f"The tiny model's words for a kind instead: {', '.join(KINDS)}.")
    ] = None,
    near: Annotated[
        float, typer.Option(help="Least agreement of a keypoint with its name, 0…1."), Agreement
    ] = NEAR_NAME,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write names and agreements here.")] = None,
    model: Annotated[str | None, typer.Option(help="The model; default the run's own.")] = None,
    force: ForceOption = False,
    unet: UnetOption = None,
    rig: RigOption = None,
    layout: LayoutOption = None,
    device: DeviceOption = AUTO,
    dtype: DtypeOption = AUTO,
    deterministic: DeterministicOption = False,
) -> None:
    """Name a run's keypoints: each gets the phrase whose attention agrees best with it, kept with its tokens."""
    check_run_folder(run)
    file = tokens_file(run)
    view_choice = check_model_options(model, unet, rig, layout, dtype)
    if json_file:
        check_file(json_file, NAMES_MARK)
    if (words is None) == (kind is None):
        raise InputError(f"give --words FILE, or --kind with one of {', '.join(KINDS)}")
    if kind is not None:
        one_of("--kind", kind, KINDS)
    phrases = kind_phrases(kind) if kind else _lines(words)
    if data is not None:
        object_sources([data])

    from rich.table import Table

    from keyorbit.cli.loading import run_backend, use_device
    from keyorbit.detection.naming import agreements, choose_names
    from keyorbit.diffusion.tokens import Tokens
    from keyorbit.output.page.report import read_run, run_objects
    from keyorbit.output.palette import keypoint_name

    about = read_run(run)
    tokens, objects = about.tokens, list(run_objects(about, data, limit))
    backend = run_backend(tokens, model, use_device(device, deterministic), dtype, unet, view_choice)
    with progress() as tick:
        read = agreements(backend, tokens, phrases, objects, lambda i, n: tick("objects", i, n, {}), force=force)
    names = choose_names(read, phrases, near)
    Tokens(tokens.embedding, replace(tokens.info, names=tuple(name.phrase for name in names)), tokens.helpers).save(
        file
    )
    if json_file:
        rows = [
            {
                "keypoint": keypoint_name(i),
                "name": name.phrase,
                "agreement": name.agreement,
                "runner_up": name.runner_up,
                "runner_up_agreement": name.runner_up_agreement,
            }
            for i, name in enumerate(names)
        ]
        write_json(json_file, {"format": "keyorbit-names-1", "near": near, "objects": len(objects), "names": rows})
    table = Table("keypoint", "name", "agreement", "runner-up", "its agreement")
    for i, name in enumerate(names):
        told_name = name.phrase or "unnamed"
        table.add_row(
            keypoint_name(i), told_name, f"{name.agreement:.2f}", name.runner_up, f"{name.runner_up_agreement:.2f}"
        )
    console.print(table)


def _lines(file: Path | None) -> tuple[str, ...]:
    """The phrases of a text file, one a line; lines that are empty or begin with # do not count."""
    lines = [line.strip() for line in text_of(file).splitlines()] if file else []
    found = tuple(line for line in lines if line and not line.startswith("#"))
    if not found:
        raise InputError(f"{file} has no phrase: write one a line, such as 'front left leg'")
    return found
