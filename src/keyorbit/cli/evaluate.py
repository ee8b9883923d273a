"""``keyorbit evaluate``: a run against ground truth."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from keyorbit.cli.inputs import given_paths
from keyorbit.cli.options import (
    BatchOption,
    CompileOption,
    DeterministicOption,
    DeviceOption,
    DtypeOption,
    ForceOption,
    LayoutOption,
    OverwriteOption,
    RigOption,
    RunArgument,
    StrictOption,
    UnetOption,
    UpOption,
    check_model_options,
    given_meshes,
)
from keyorbit.cli.telling import JsonOption, write_told
from keyorbit.cli.terminal import PROBLEMS, console, left_out
from keyorbit.devices import AUTO
from keyorbit.diffusion.paths import tokens_file
from keyorbit.errors import InputError
from keyorbit.evaluation.choices import DATASETS, EVALUATION, LEFT_OUT, check_dataset
from keyorbit.objects.description import Symmetry
from keyorbit.objects.sources import object_sources
from keyorbit.ranks import launched, start_ranks
from keyorbit.storage.going_on import check_goes_on
from keyorbit.synthetic.choices import AUTO_UP
from keyorbit.values import Count, check_value


def evaluate_command(
    run: RunArgument,
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Objects with ground truth, or meshes with landmarks: folders, files, shards, addresses, patterns, or "
            "- for a list on stdin; with --dataset one folder.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="A folder that keeps what each object gave: the same command goes on, and processes share."),
    ] = None,
    fit: Annotated[
        Path | None,
        typer.Option(help="Objects on which landmark weights are fitted; default half of DATA for the other."),
    ] = None,
    moved: Annotated[
        Path | None, typer.Option(help="The objects of DATA turned ('dataset make --turn'): adds repeatability.")
    ] = None,
    generate: Annotated[
        bool,
        typer.Option("--generate", help="Look at views that the model makes of each input picture, not at DATA's."),
    ] = False,
    dataset: Annotated[str, typer.Option(help=f"Layout of the folders: {', '.join(DATASETS)}.")] = "keyorbit",
    split: Annotated[str, typer.Option(help="Which part of a published data set DATA is judged on.")] = "test",
    limit: Annotated[int | None, typer.Option(help="Judge no more objects than the first so many."), Count] = None,
    symmetry: Annotated[
        str | None,
        typer.Option(
            help="How many turns about the vertical bring every object onto itself, or 'round'; default as each says."
        ),
    ] = None,
    baseline: Annotated[bool, typer.Option(help="Also untrained tokens, side by side.")] = True,
    model: Annotated[str | None, typer.Option(help="The model; default the run's own.")] = None,
    json_file: JsonOption = None,
    strict: StrictOption = False,
    up: UpOption = AUTO_UP,
    batch: BatchOption = None,
    overwrite: OverwriteOption = False,
    compile: CompileOption = False,
    force: ForceOption = False,
    unet: UnetOption = None,
    rig: RigOption = None,
    layout: LayoutOption = None,
    device: DeviceOption = AUTO,
    dtype: DtypeOption = AUTO,
    deterministic: DeterministicOption = False,
) -> None:
    """Measure a run's keypoints against ground truth, next to untrained tokens.

    Objects go through one after the other. What cannot be used is left out, listed and counted, the figures are of the
    others, and the exit status is then 2. With --out the same command goes on where it was stopped, and the processes
    of a launcher share the objects.
    """
    tokens_file(run)
    view_choice = check_model_options(model, unet, rig, layout, dtype)
    turns = _symmetry(symmetry)
    if out is not None:
        check_goes_on(out, EVALUATION, overwrite)
    elif launched() > 1:
        raise InputError("several processes share an evaluation in a folder: give --out FOLDER")
    given = {"objects": list(data)} | {name: [path] for name, path in (("fit", fit), ("moved", moved)) if path}
    own = dataset == "keyorbit"
    if own:
        places = {name: given_meshes(given_paths(words), None, up) for name, words in given.items()}
        sources = {name: object_sources(others) for name, (others, _) in places.items()}
    elif data[1:]:
        raise InputError(f"--dataset {dataset} takes one folder, and {len(data)} are given: leave the others out")
    else:
        for (folder,) in given.values():
            check_dataset(dataset, folder)

    from keyorbit.cli.tables import objects_table, summary_table, wrong_turn_lines
    from keyorbit.cli.work.evaluating import (
        InFolder,
        InMemory,
        begin,
        checked,
        evaluate_parts,
        finish,
        first_problems,
        settings_of_parts,
    )
    from keyorbit.cli.work.evaluation_parts import own_part, published_part
    from keyorbit.cli.work.loading import load_tokens, run_backend, use_device
    from keyorbit.cli.work.several import without_views
    from keyorbit.detection.detector import KeypointDetector
    from keyorbit.diffusion.backends.base import Backend
    from keyorbit.discovery.config import config_from_settings
    from keyorbit.discovery.initial import untrained
    from keyorbit.evaluation.judging import Part
    from keyorbit.objects.dataset import ObjectViews

    tokens = load_tokens(run)
    on = use_device(device, deterministic)
    ranks = start_ranks(on)  # before the model is loaded: each process has a GPU of its own

    def on_model() -> Backend:
        return run_backend(tokens, model, on, dtype, unet, view_choice, compile)

    # Meshes are rendered at its cameras; of other objects the first is read, and refused, before it is loaded.
    backend = on_model() if own and any(meshes for _, meshes in places.values()) else None
    parts = []
    for name, words in given.items():
        if own:
            cameras = None if backend is None else backend.cameras
            parts.append(own_part(name, sources[name], places[name][1], cameras, up, limit))
        else:
            parts.append(published_part(name, dataset, words[0], "train" if name == "fit" else split, limit))
    parts = checked(parts)
    backend = backend or on_model()

    def change(part: Part, number: int) -> ObjectViews:
        thing = part.read(number)
        thing = thing if turns is None else replace(thing, symmetry=turns)
        return without_views(thing) if generate and part.name != "fit" else thing

    parts = [replace(part, read=partial(change, part)) for part in parts]
    candidates = {"discovered": tokens}
    if baseline and tokens.info.settings:
        candidates["untrained"] = untrained(backend, config_from_settings(tokens.info.settings))
    detectors = {name: KeypointDetector(backend, chosen, force=force) for name, chosen in candidates.items()}
    if out is not None:
        if ranks.main:
            begin(out, settings_of_parts(detectors, parts, {"generate": generate, "symmetry": symmetry}), overwrite)
        ranks.wait()
    done = evaluate_parts(detectors, parts, InMemory() if out is None else InFolder(out), ranks, batch, strict)
    if done is None:
        return
    scores = {name: result.to_dict() for name, result in done.results.items()}
    if out is not None:
        finish(out, scores, done.problems)
    write_told(json_file, scores)
    console.print(objects_table(done.results))
    console.print(summary_table(scores))
    for line in wrong_turn_lines(scores):
        console.print(line, markup=False, highlight=False)
    if sum(part.count for part in parts if part.name != "moved") == 1:
        console.print("One object was its own fit, so landmark errors mean nothing: give more objects, or --fit.")
    if done.problems:
        place = "" if out is None else f"; all are listed in {out / LEFT_OUT}"
        raise left_out(first_problems(done.problems, PROBLEMS), len(done.problems), done.total, place)


def _symmetry(text: str | None) -> Symmetry | None:
    if text is None:
        return None
    if text == "round":
        return "round"
    check_value("--symmetry", int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else text, Symmetry)
    return int(text)
