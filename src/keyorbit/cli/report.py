"""``keyorbit report``: a run as one HTML page."""

from pathlib import Path
from typing import Annotated, Any

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
from keyorbit.cli.telling import JsonOption, tell_json
from keyorbit.cli.terminal import console, progress
from keyorbit.devices import AUTO
from keyorbit.diffusion.paths import tokens_file
from keyorbit.objects.sources import object_sources
from keyorbit.output.page.inputs import check_run_folder, read_scores
from keyorbit.storage.files import write_text
from keyorbit.storage.outputs import check_file
from keyorbit.values import Amount


def report_command(
    run: RunArgument,
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Objects to show: folders, files, patterns, or - for a list on stdin; default those of the run.",
            show_default=False,
        ),
    ] = None,
    objects: Annotated[int, typer.Option(help="How many of them."), Amount] = 4,
    scores: Annotated[
        Path | None, typer.Option(help="What 'evaluate --json' wrote; default RUN/scores.json if there is one.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The page; default RUN/report.html.")] = None,
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
    """Write a run as one HTML page: keypoints on objects, in 3D, heatmaps, losses, figures; it needs no network."""
    check_run_folder(run)
    tokens_file(run)
    view_choice = check_model_options(model, unet, rig, layout, dtype)
    path = out or run / "report.html"
    check_file(path, '<meta name="generator" content="keyorbit')
    beside = run / "scores.json"
    scored = read_scores(scores or beside) if scores or beside.is_file() else {}
    paths = given_paths(data or ())
    object_sources(paths)

    from keyorbit.cli.work.loading import run_backend, use_device
    from keyorbit.detection.detector import KeypointDetector
    from keyorbit.detection.found import Detection
    from keyorbit.evaluation.evaluate import detect_all
    from keyorbit.output.page.report import read_run, report_html, run_objects

    about = read_run(run)
    shown = list(run_objects(about, paths, objects))
    found: list[Detection] = []
    if shown:
        with progress() as tick:
            backend = run_backend(about.tokens, model, use_device(device, deterministic), dtype, unet, view_choice)
            detector = KeypointDetector(backend, about.tokens, force=force)
            found = detect_all(detector, shown, lambda i, n: tick("detect", i, n, {}))
    write_text(path, report_html(about, found, shown, page_figures(scored), _count(scored)))
    tell_json(json_file, "report", {"page": str(path), "objects": [thing.name for thing in shown]})
    console.print(str(path), markup=False, highlight=False, soft_wrap=True)


def page_figures(scores: dict[str, Any]) -> list[Any]:
    """What ``keyorbit evaluate --json`` wrote, as the page shows it."""
    from keyorbit.evaluation.figures import told, wrongly_turned
    from keyorbit.output.page.report import Figure

    figures = [
        Figure(figure.title, texts.get("discovered") or "–", texts.get("untrained"), figure.better == "less")
        for figure, texts in told(scores)
    ]
    names = {name: ", ".join(wrongly_turned(one)) for name, one in scores.items()}
    if any(names.values()):
        figures.append(Figure("turned the wrong way", names["discovered"] or "none", names.get("untrained"), True))
    if left_out := scores.get("discovered", {}).get("left_out"):
        figures.append(Figure("left out, for they could not be used", ", ".join(left_out), None, True))
    return figures


def _count(scores: dict[str, Any]) -> int:
    return len(scores["discovered"]["objects"]) if scores else 0
