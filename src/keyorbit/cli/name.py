"""``keyorbit name``: names for a run's keypoints."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from keyorbit.cli.inputs import given_paths
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
from keyorbit.cli.telling import JsonOption, write_told
from keyorbit.cli.terminal import console, errors, progress
from keyorbit.detection.choices import NEAR_NAME, Agreement
from keyorbit.detection.words import KINDS, kind_phrases
from keyorbit.devices import AUTO
from keyorbit.diffusion.paths import tokens_file
from keyorbit.discovery.choices import CACHE_INDEX
from keyorbit.errors import InputError, one_of
from keyorbit.objects.paths import object_paths
from keyorbit.objects.sources import object_sources
from keyorbit.output.page.inputs import check_run_folder, read_facts
from keyorbit.storage.content import json_of, text_of
from keyorbit.values import Count


def name_command(
    run: RunArgument,
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Objects to look at: folders, files, patterns, or - for a list on stdin; default those of the run.",
            show_default=False,
        ),
    ] = None,
    objects: Annotated[Path | None, typer.Option(help="What DATA was called before.", hidden=True)] = None,
    limit: Annotated[int, typer.Option(help="How many of them."), Count] = 8,
    words: Annotated[Path | None, typer.Option(help="A text file of phrases, one a line.")] = None,
    kind: Annotated[
        str | None,
        typer.Option(help=f"The tiny model's words for a kind: {', '.join(KINDS)}; default the objects' own."),
    ] = None,
    near: Annotated[
        float, typer.Option(help="Least agreement of a keypoint with its name, 0…1."), Agreement
    ] = NEAR_NAME,
    json_file: JsonOption = None,
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
    if words is not None and kind is not None:
        raise InputError(f"give --words FILE, or --kind with one of {', '.join(KINDS)}, not both")
    paths = given_paths([*(data or ()), *([] if objects is None else [objects])])
    object_sources(paths)
    if kind is not None:
        one_of("--kind", kind, KINDS)
    elif words is None:
        kind = _own_kind(run, paths, limit)
    phrases = kind_phrases(kind) if kind else _lines(words)

    from rich.table import Table

    from keyorbit.cli.work.loading import run_backend, use_device
    from keyorbit.detection.naming import agreements, choose_names
    from keyorbit.diffusion.tokens import Tokens
    from keyorbit.output.page.report import read_run, run_objects
    from keyorbit.output.palette import keypoint_name

    about = read_run(run)
    tokens, things = about.tokens, list(run_objects(about, paths, limit))
    backend = run_backend(tokens, model, use_device(device, deterministic), dtype, unet, view_choice)
    with progress() as tick:
        read = agreements(backend, tokens, phrases, things, lambda i, n: tick("objects", i, n, {}), force=force)
    names = choose_names(read, phrases, near)
    Tokens(tokens.embedding, replace(tokens.info, names=tuple(name.phrase for name in names)), tokens.helpers).save(
        file
    )
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
    write_told(json_file, {"format": "keyorbit-names-1", "near": near, "objects": len(things), "names": rows})
    table = Table("keypoint", "name", "agreement", "runner-up", "its agreement")
    for i, name in enumerate(names):
        told_name = name.phrase or "unnamed"
        table.add_row(
            keypoint_name(i), told_name, f"{name.agreement:.2f}", name.runner_up, f"{name.runner_up_agreement:.2f}"
        )
    console.print(table)


def _own_kind(run: Path, data: Sequence[Path], limit: int) -> str:
    """The kind that the objects' descriptions tell, those of ``data``, or where it is empty of the run.

    Raises:
        InputError: they tell none, several, or one without words; the message says what to give.
    """
    places = data or [Path(name) for name in read_facts(run).places]
    there = [place for place in places if place.exists() and not (place / CACHE_INDEX).is_file()]
    told = {_category(one) for one in [one for place in there for one in object_paths(place)][:limit]}
    if len(told) == 1 and (kind := told.pop()) in KINDS:
        errors.print(f"the tiny model's words for the kind {kind}", markup=False, highlight=False, soft_wrap=True)
        return kind
    raise InputError(
        f"the objects of {', '.join(map(str, data)) or run} do not tell one kind that the tiny model has words for: "
        f"give --words FILE, or --kind with one of {', '.join(KINDS)}"
    )


def _category(thing: Path) -> str:
    file = thing / "meta.json"
    told = json_of(file, infinite=True) if file.is_file() else {}
    return str(told.get("category", "")) if isinstance(told, dict) else ""


def _lines(file: Path | None) -> tuple[str, ...]:
    """The phrases of a text file, one a line; lines that are empty or begin with # do not count."""
    lines = [line.strip() for line in text_of(file).splitlines()] if file else []
    found = tuple(line for line in lines if line and not line.startswith("#"))
    if not found:
        raise InputError(f"{file} has no phrase: write one a line, such as 'front left leg'")
    return found
