"""``keyorbit evaluate``: a run against ground truth."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from keyorbit.cli.options import (
    BatchOption,
    CompileOption,
    DeterministicOption,
    DeviceOption,
    DtypeOption,
    ForceOption,
    LayoutOption,
    RigOption,
    RunArgument,
    UnetOption,
    UpOption,
    check_model_options,
    given_meshes,
)
from keyorbit.cli.terminal import console, progress
from keyorbit.devices import AUTO
from keyorbit.diffusion.paths import tokens_file
from keyorbit.evaluation.choices import DATASETS, check_dataset
from keyorbit.objects.description import Symmetry
from keyorbit.objects.sources import object_sources
from keyorbit.storage.files import make_folder, write_json
from keyorbit.storage.outputs import check_file
from keyorbit.synthetic.choices import AUTO_UP
from keyorbit.values import Count, check_value

# What a file of scores begins with.
SCORES_MARK = '"discovered": {'


def evaluate_command(
    run: RunArgument,
    data: Annotated[Path, typer.Argument(help="A dataset folder or shards with truth, or meshes with landmarks.")],
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
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
    up: UpOption = AUTO_UP,
    batch: BatchOption = None,
    compile: CompileOption = False,
    force: ForceOption = False,
    unet: UnetOption = None,
    rig: RigOption = None,
    layout: LayoutOption = None,
    device: DeviceOption = AUTO,
    dtype: DtypeOption = AUTO,
    deterministic: DeterministicOption = False,
) -> None:
    """Measure a run's keypoints against ground truth, next to untrained tokens."""
    if json_file:
        check_file(json_file, SCORES_MARK)
    tokens_file(run)
    view_choice = check_model_options(model, unet, rig, layout, dtype)
    turns = _symmetry(symmetry)
    places = [folder for folder in (data, fit, moved) if folder is not None]
    meshes = [folder for folder in places if dataset == "keyorbit" and given_meshes([folder], None, up)[1]]
    for folder in (folder for folder in places if folder not in meshes):
        check_dataset(dataset, folder)
        if dataset == "keyorbit":
            object_sources([folder])

    from keyorbit.cli.loading import load_tokens, run_backend, true_meshes, use_device, without_views
    from keyorbit.cli.tables import objects_table, summary_table, wrong_turn_lines
    from keyorbit.detection.detector import KeypointDetector
    from keyorbit.diffusion.backends.base import Backend
    from keyorbit.discovery.config import config_from_settings
    from keyorbit.discovery.initial import untrained
    from keyorbit.evaluation.evaluate import Evaluation, detect_each, evaluate
    from keyorbit.evaluation.landmarks import check_landmarks
    from keyorbit.evaluation.readers import read_dataset
    from keyorbit.objects.dataset import ObjectDataset, ObjectViews, changed

    tokens = load_tokens(run)

    def on_model() -> Backend:
        return run_backend(tokens, model, use_device(device, deterministic), dtype, unet, view_choice, compile)

    # Meshes are rendered at its cameras; other objects are read, and refused, before it is loaded.
    backend = on_model() if meshes else None

    def change(thing: ObjectViews) -> ObjectViews:
        return thing if turns is None else replace(thing, symmetry=turns)

    def shown(folder: Path | None, part: str) -> ObjectDataset:
        """The objects, each read when it is its turn."""
        if folder is None:
            return ObjectDataset(0, lambda i: [][i])
        if folder in meshes and backend is not None:
            return changed(true_meshes(folder, backend.cameras, up, limit), change)
        return changed(read_dataset(dataset, folder, part)[:limit], change)

    seen, seen_fit, seen_moved = shown(data, split), shown(fit, "train"), shown(moved, split)
    # Every file is read once before the work, and the truth is kept of it.
    objects, fit_objects, moved_objects = (
        [thing.without_pictures() for thing in things] for things in (seen, seen_fit, seen_moved)
    )
    check_landmarks([*objects, *fit_objects, *moved_objects])
    backend = backend or on_model()
    if generate:
        seen, seen_moved = changed(seen, without_views), changed(seen_moved, without_views)
    candidates = {"discovered": tokens}
    if baseline and tokens.info.settings:
        candidates["untrained"] = untrained(backend, config_from_settings(tokens.info.settings))
    detectors = {name: KeypointDetector(backend, chosen, force=force) for name, chosen in candidates.items()}
    with progress() as tick:
        fitted = detect_each(detectors, seen_fit, lambda i, n: tick("fit", i, n, {}), batch, pictures=False)
        found = detect_each(detectors, seen, lambda i, n: tick("objects", i, n, {}), batch, pictures=False)
        again = detect_each(detectors, seen_moved, lambda i, n: tick("moved", i, n, {}), batch, pictures=False)
    results: dict[str, Evaluation] = {}
    for name in detectors:
        motion = (again[name], moved_objects) if moved else None
        results[name] = evaluate(found[name], objects, fitted[name], fit_objects, motion)
    scores = {name: result.to_dict() for name, result in results.items()}
    if json_file:
        make_folder(json_file.parent)
        write_json(json_file, scores)
    console.print(objects_table(results))
    console.print(summary_table(scores))
    for line in wrong_turn_lines(scores):
        console.print(line, markup=False, highlight=False)
    if len(objects) == 1 and not fit_objects and objects[0].truth is not None:
        console.print("One object was its own fit, so landmark errors mean nothing: give more objects, or --fit.")


def _symmetry(text: str | None) -> Symmetry | None:
    if text is None:
        return None
    if text == "round":
        return "round"
    check_value("--symmetry", int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else text, Symmetry)
    return int(text)
