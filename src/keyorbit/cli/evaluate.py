"""``keyorbit evaluate``: a run against ground truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from keyorbit.cli.engine import EngineOption, GpusOption, PoolOption, chosen_pool
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
from keyorbit.objects.sources import ObjectSource, object_sources
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
    engine: EngineOption = None,
    workers: PoolOption = None,
    gpus: GpusOption = None,
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
    words = {"objects": list(data)} | {name: [path] for name, path in (("fit", fit), ("moved", moved)) if path}
    given = dict[str, tuple[Sequence[ObjectSource], Sequence[Path], Path | None]]()
    for name, paths in words.items():
        if dataset == "keyorbit":
            others, meshes = given_meshes(given_paths(paths), None, up)
            given[name] = object_sources(others), meshes, None
        elif paths[1:]:
            raise InputError(f"--dataset {dataset} takes one folder, and {len(data)} are given: leave the others out")
        else:
            check_dataset(dataset, paths[0])
            given[name] = (), (), paths[0]
    pool = chosen_pool(engine, workers, gpus, device)

    from keyorbit.cli.tables import objects_table, summary_table, wrong_turn_lines
    from keyorbit.cli.work.evaluating import evaluate_parts
    from keyorbit.cli.work.evaluators import EvaluatorChoice, Measured
    from keyorbit.cli.work.keeping import Keeping, finish, first_problems, made_by
    from keyorbit.cli.work.loading import ModelChoice, load_tokens, use_device

    measured = {name: Measured(*one) for name, one in given.items()}
    on_model = ModelChoice(model, device, dtype, unet, view_choice, compile, None, deterministic)
    how = (dataset, split, limit, up, turns, generate, baseline, on_model, force)
    choice = EvaluatorChoice(load_tokens(run), measured, *how)
    keeping = Keeping(out, {"generate": generate, "symmetry": symmetry}, overwrite)
    if pool is not None:
        from keyorbit.cli.work.evaluating_on_ray import evaluate_on_ray

        done = evaluate_on_ray(choice, keeping, pool, batch, strict)
    else:
        on = use_device(device, deterministic)
        ranks = start_ranks(on)  # before the model is loaded: each process has a GPU of its own
        detectors, parts = choice.load(on)
        kept = keeping.begin(parts, made_by(detectors), ranks)
        shared = evaluate_parts(detectors, parts, kept, ranks, batch, strict)
        if shared is None:
            return
        done = shared
    scores = {name: result.to_dict() for name, result in done.results.items()}
    if out is not None:
        finish(out, scores, done.problems)
    write_told(json_file, scores)
    console.print(objects_table(done.results))
    console.print(summary_table(scores))
    for line in wrong_turn_lines(scores):
        console.print(line, markup=False, highlight=False)
    if done.counts["objects"] + done.counts.get("fit", 0) == 1:
        console.print("One object was its own fit, so landmark errors mean nothing: give more objects, or --fit.")
    if done.problems:
        place = "" if out is None else f"; all are listed in {out / LEFT_OUT}"
        raise left_out(first_problems(done.problems, PROBLEMS), len(done.problems), sum(done.counts.values()), place)


def _symmetry(text: str | None) -> Symmetry | None:
    if text is None:
        return None
    if text == "round":
        return "round"
    check_value("--symmetry", int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else text, Symmetry)
    return int(text)
