"""The command line. Exit status 0; 2 for bad use or input, with one line that says what; 1 if we failed."""

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version as package_version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, Protocol, cast, get_args

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from keyorbit.app.interface import gradio, launch
from keyorbit.app.studio import open_studio
from keyorbit.backends.base import Backend
from keyorbit.backends.loading import load_backend
from keyorbit.backends.zero123plus import Zero123PlusBackend
from keyorbit.data import ObjectViews, load_dataset, load_image
from keyorbit.detect import DetectConfig, Detection, KeypointDetector
from keyorbit.discover import DiscoverConfig, config_from_settings, discover, untrained
from keyorbit.errors import InputError
from keyorbit.evaluate import SEEN, Evaluation, detect_all, evaluate
from keyorbit.export import write_json, write_text
from keyorbit.inspection.architectures import ARCHITECTURES
from keyorbit.inspection.cost import Subject, measure
from keyorbit.inspection.drift import Drift, measure_drift
from keyorbit.inspection.report_text import markdown, show
from keyorbit.inspection.shape_report import inspect_model, with_measurements
from keyorbit.loss_log import LossLog
from keyorbit.pose import InputCamera
from keyorbit.prepare import PrepareConfig
from keyorbit.query_cache import MapKind
from keyorbit.report import read_run, read_scores, report_html, run_objects
from keyorbit.results import DEFAULT_FORMATS, FORMATS, find_skeleton, parse_formats, parse_skeleton, write_detection
from keyorbit.skeleton import check_edges
from keyorbit.synthetic.dataset import make_dataset, render_mesh
from keyorbit.synthetic.objects import CATEGORIES
from keyorbit.tokens import Tokens

app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
dataset_app = typer.Typer(
    help="Procedural objects with ground truth, and mesh files at the model's cameras.", no_args_is_help=True
)
app.add_typer(dataset_app, name="dataset")
console, errors = Console(), Console(stderr=True)

ModelOption = Annotated[
    str, typer.Option(help="'tiny' (shipped), or a folder or Hub id of Zero123++ or Stable Diffusion.")
]
UnetOption = Annotated[Path | None, typer.Option(help="A .safetensors file with other weights for the model's UNet.")]
DeviceOption = Annotated[str, typer.Option(help="Where the model runs, such as cpu or cuda.")]
DtypeOption = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
RunArgument = Annotated[Path, typer.Argument(help="The folder that 'keyorbit discover' wrote.")]


class _Tick(Protocol):
    def __call__(self, stage: str, done: int, total: int, values: dict[str, float]) -> None: ...


@app.callback(invoke_without_command=True)
def _about(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        console.print(package_version("keyorbit"))
        raise typer.Exit


@app.command("discover")
def discover_command(
    data: Annotated[Path, typer.Argument(help="A dataset folder, or a folder of pictures.")],
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    model: ModelOption = "tiny",
    tokens: Annotated[int, typer.Option(help="Keypoints to find.")] = DiscoverConfig.num_tokens,
    candidates: Annotated[
        int, typer.Option(help="Tokens optimised; the best become keypoints.")
    ] = DiscoverConfig.num_candidates,
    mode: Annotated[str, typer.Option(help="isolated (fast) or joint (through the UNet).")] = DiscoverConfig.mode,
    maps: Annotated[
        str | None,
        typer.Option(
            help="logits, attention (softmax with the text), or stablekeypoints (softmax among the tokens, enlarged)."
        ),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Pattern on the cross-attention layers' names; default the model's.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimisation steps.")] = DiscoverConfig.steps,
    batch: Annotated[int, typer.Option(help="Objects a step.")] = DiscoverConfig.batch,
    timestep: Annotated[
        int | None, typer.Option(help="How much noise the UNet sees, 0 to 999; default the model's.")
    ] = None,
    warps: Annotated[int, typer.Option(help="Warped versions of every object.")] = 2,
    seed: Annotated[int, typer.Option(help="Of tokens, noise and batches.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a stopped run was.")] = False,
    unet: UnetOption = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
) -> None:
    """Find keypoint tokens on the objects of DATA; no labels."""
    _one_of("--mode", mode, ("isolated", "joint"))
    if maps is not None:
        _one_of("--maps", maps, get_args(MapKind))
    if timestep is not None and not 0 <= timestep <= 999:
        raise InputError(f"--timestep is 0 to 999, not {timestep}")
    if (out / "tokens.safetensors").exists() and not resume:
        raise InputError(f"{out} holds a finished run already; give another --out, or remove it")
    config = DiscoverConfig(
        num_tokens=tokens,
        num_candidates=max(tokens, candidates),
        layers=layers,
        mode=cast(Literal["isolated", "joint"], mode),
        maps=cast(MapKind | None, maps),
        steps=steps,
        batch=batch,
        seed=seed,
        prepare=PrepareConfig(timestep=timestep, warps=warps),
    )
    objects = _load_all(data)
    backend = load_backend(model, device, dtype, unet)
    losses = LossLog(out)
    began = time.monotonic()
    with _progress() as tick:

        def report(stage: str, done: int, total: int, values: dict[str, float]) -> None:
            if stage == "step":
                losses.add(done, values)
            tick(stage, done, total, values)

        found = discover(backend, objects, config, out, resume, report)
    found.save(out / "tokens.safetensors")
    about = {"format": "keyorbit-run-1", "data": str(data), "objects": len(objects), "model": model}
    write_json(out / "run.json", about | {"seconds": time.monotonic() - began, "config": asdict(config)})
    console.print(f"{len(found)} keypoints from {len(objects)} objects: {out / 'tokens.safetensors'}")


@app.command("detect")
def detect_command(
    run: RunArgument,
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, object folders or dataset folders.")],
    out: Annotated[Path, typer.Option(help="Where the results go.")],
    model: Annotated[str | None, typer.Option(help="The model; default the run's own.")] = None,
    noises: Annotated[int, typer.Option(help="Draws of noise averaged.")] = DetectConfig.noises,
    formats: Annotated[str, typer.Option("--format", help=f"Some of {','.join(FORMATS)}.")] = ",".join(DEFAULT_FORMATS),
    skeleton: Annotated[str, typer.Option(help="Edges such as 0-3,3-5, or 'auto': between co-moving keypoints.")] = "",
    seed: int = 0,
    unet: UnetOption = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
) -> None:
    """Find a run's keypoints on new objects: 2D on every view, and 3D where the model has several."""
    if noises < 1:
        raise InputError("--noises must be 1 or more")
    chosen, edges = parse_formats(formats), parse_skeleton(skeleton)
    tokens = _tokens(run)
    check_edges(edges or (), len(tokens))
    objects = [thing for path in pictures for thing in _load_all(path)]
    detector = KeypointDetector(
        _backend(tokens, model, device, dtype, unet), tokens, DetectConfig(noises=noises, seed=seed)
    )
    with _progress() as tick:
        found = detect_all(detector, objects, lambda i, n: tick("detect", i, n, {}))
    single = len(found) == 1
    names = _distinct([d.name for d in found])
    edges = find_skeleton(found) if edges is None else edges
    for name, detection in zip(names, found, strict=True):
        write_detection(out if single else out / name, detection, chosen, edges)
    table = Table("object", "keypoints", "reprojection, % of side", "written to")
    for name, detection in zip(names, found, strict=True):
        points = detection.keypoints_3d
        error = None if points is None else float(points.reprojection_error.median())
        score = detection.keypoints_2d.score[0] if points is None else points.score
        table.add_row(name, str(int((score > SEEN).sum())), _percent(error), str(out if single else out / name))
    console.print(table)
    for name, detection in zip(names, found, strict=True):
        if detection.input_camera is not None:
            console.print(f"{name}: {_input_line(detection.input_camera)}", markup=False, soft_wrap=True)
    if any(detection.keypoints_3d is None for detection in found):
        console.print("A single view has no 3D: keypoints in 2D only, and no points.glb, points.ply or colmap.")


@app.command("evaluate")
def evaluate_command(
    run: RunArgument,
    data: Annotated[Path, typer.Argument(help="A dataset folder with ground truth.")],
    fit: Annotated[
        Path | None,
        typer.Option(help="Objects on which landmark weights are fitted; default half of DATA for the other."),
    ] = None,
    baseline: Annotated[bool, typer.Option(help="Also untrained tokens, side by side.")] = True,
    model: Annotated[str | None, typer.Option(help="The model; default the run's own.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
    unet: UnetOption = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
) -> None:
    """Measure a run's keypoints against ground truth, next to untrained tokens."""
    tokens = _tokens(run)
    objects, fit_objects = _load_all(data), _load_all(fit) if fit else []
    backend = _backend(tokens, model, device, dtype, unet)
    candidates = {"discovered": tokens}
    if baseline and tokens.info.settings:
        candidates["untrained"] = untrained(backend, config_from_settings(tokens.info.settings))
    results: dict[str, Evaluation] = {}
    for name, chosen in candidates.items():
        detector = KeypointDetector(backend, chosen)
        with _progress() as tick:
            fitted = detect_all(detector, fit_objects, lambda i, n, s=name: tick(f"fit {s}", i, n, {}))  # type: ignore[misc]
            found = detect_all(detector, objects, lambda i, n, s=name: tick(s, i, n, {}))  # type: ignore[misc]
        results[name] = evaluate(found, objects, fitted, fit_objects)
    if json_file:
        _made(json_file.parent)
        write_json(json_file, {name: result.to_dict() for name, result in results.items()})
    _print_objects(results)
    _print_summary(results)


@app.command("report")
def report_command(
    run: RunArgument,
    data: Annotated[Path | None, typer.Argument(help="Objects to show; default those of the run.")] = None,
    objects: Annotated[int, typer.Option(help="How many of them.")] = 4,
    scores: Annotated[
        Path | None, typer.Option(help="What 'evaluate --json' wrote; default RUN/scores.json if there is one.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The page; default RUN/report.html.")] = None,
    model: Annotated[str | None, typer.Option(help="The model; default the run's own.")] = None,
    unet: UnetOption = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
) -> None:
    """Write a run as one HTML page: keypoints on objects, in 3D, heatmaps, losses, figures; it needs no network."""
    if objects < 0:
        raise InputError("--objects must be 0 or more")
    about = read_run(run)
    beside = run / "scores.json"
    figures = read_scores(scores or beside) if scores or beside.is_file() else None
    shown = list(run_objects(about, data, objects))
    found: list[Detection] = []
    if shown:
        with _progress() as tick:
            backend = _backend(about.tokens, model, device, dtype, unet)
            found = detect_all(KeypointDetector(backend, about.tokens), shown, lambda i, n: tick("detect", i, n, {}))
    path = out or run / "report.html"
    write_text(path, report_html(about, found, shown, figures))
    console.print(str(path), markup=False, highlight=False, soft_wrap=True)


@app.command("app")
def app_command(
    run: Annotated[Path | None, typer.Argument(help="A run; default tokens for chairs, which come along.")] = None,
    model: Annotated[str | None, typer.Option(help="The model; default the run's own.")] = None,
    host: Annotated[str, typer.Option(help="Who may come: 127.0.0.1 this machine, 0.0.0.0 everyone.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Default the first free one from 7860.")] = None,
    unet: UnetOption = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
) -> None:
    """Serve the web app: keypoints of a dropped picture, discovery with a preview, attention layer by layer."""
    gradio()
    with TemporaryDirectory(prefix="keyorbit_") as scratch:
        served = launch(open_studio(run, model, device, dtype, unet, Path(scratch)), host, port, block=False)
        console.print(f"{served.local_url} (Ctrl-C ends it)", markup=False, highlight=False, soft_wrap=True)
        served.block_thread()


@app.command("inspect")
def inspect_command(
    model: Annotated[str, typer.Option(help=f"tiny, {', '.join(ARCHITECTURES)}, a folder, or a Hub id.")] = "tiny",
    tokens: Annotated[int, typer.Option(help="Learnable tokens behind the text.")] = DiscoverConfig.num_tokens,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything here.")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write the tables here.")] = None,
    measured: Annotated[bool, typer.Option("--measure", help="Run the model: time and peak memory.")] = False,
    drift: Annotated[bool, typer.Option("--drift", help="Generate views: how far the tokens move them.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Input picture for --drift; default a drawn box.")] = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
) -> None:
    """Show a model's shapes, memory and cost without and with tokens; reads no weights unless asked to run it."""
    if drift and model in ARCHITECTURES:
        raise InputError(f"--drift needs trained weights; {model} is an architecture: give tiny, a folder or a Hub id")
    image = None if picture is None else load_image(picture)
    report = inspect_model(model, tokens)
    with _progress() as tick:
        if measured:
            gigabytes = 4e-9 * report.observation.parameters["unet"]
            if model in ARCHITECTURES:
                words = f"random weights: time and memory are right, pictures are not; needs over {gigabytes:.1f} GB"
                errors.print(f"keyorbit: {model} runs with {words}", style="yellow", soft_wrap=True)
            subject = Subject(model, tokens, False, device, dtype)
            costs = measure(subject, progress=lambda stage, i, n: tick("measure", i, n, {}))
            report = with_measurements(report, costs=tuple(costs))
        if drift:
            moved = _drift(load_backend(model, device, dtype), image, lambda stage, i, n: tick(stage, i, n, {}))
            report = with_measurements(report, report.costs, tuple(moved))
    if json_file:
        _made(json_file.parent)
        write_json(json_file, report.to_dict())
    if markdown_file:
        _made(markdown_file.parent)
        write_text(markdown_file, markdown(report))
    show(report, console)


@dataset_app.command("make")
def dataset_make(
    out: Annotated[Path, typer.Argument(help="The folder to fill.")],
    category: Annotated[str, typer.Option(help="Which kind of object; see 'dataset list'.")] = "chair",
    objects: Annotated[int, typer.Option(help="How many.")] = 60,
    seed: Annotated[int, typer.Option(help="0 to 999; another seed, other objects.")] = 0,
    size: Annotated[int, typer.Option(help="Pixels a view.")] = 64,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
) -> None:
    """Write procedural objects with six views and true keypoints."""
    with _progress() as tick:
        written = make_dataset(out, category, objects, seed, size, workers, lambda i, n: tick("render", i, n, {}))
    console.print(f"{len(written)} objects in {out}")


@dataset_app.command("render")
def dataset_render(
    mesh: Annotated[Path, typer.Argument(help="A mesh file: OBJ, GLB, PLY, STL …")],
    out: Annotated[Path, typer.Option(help="The object folder to write.")],
    size: Annotated[int, typer.Option(help="Pixels a view.")] = 320,
    elevation: Annotated[float, typer.Option(help="Of the input view, degrees.")] = 20.0,
    azimuth: Annotated[float, typer.Option(help="Of the input view, degrees.")] = 0.0,
    up: Annotated[str, typer.Option(help="The file's upward axis, y or z.")] = "y",
) -> None:
    """Render a mesh file: the input view and the model's six views."""
    _one_of("--up", up, ("y", "z"))
    if not -89 <= elevation <= 89 or size < 8:
        raise InputError("--elevation is -89 to 89 degrees, and --size 8 pixels or more")
    render_mesh(mesh, out, size, elevation, azimuth, up)
    console.print(f"{out / 'cond.png'} and {out / 'grid.png'}")


@dataset_app.command("list")
def dataset_list(
    data: Annotated[Path | None, typer.Argument(help="A dataset folder; none for the known categories.")] = None,
) -> None:
    """List the known categories, or the objects of a folder."""
    if data is None:
        table = Table("category", "keypoints")
        for name, category in CATEGORIES.items():
            table.add_row(name, ", ".join(category.keypoint_names))
    else:
        table = Table("object", "views", "landmarks", "caption")
        for thing in _load_all(data):
            views = "to be generated" if thing.views is None else str(len(thing.views))
            known = "" if thing.truth is None else str(int(thing.truth.known.sum()))
            table.add_row(thing.name, views, known, thing.caption)
    console.print(table)


def main() -> None:
    """Entry point of ``keyorbit`` and ``python -m keyorbit``."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    _quiet_libraries()
    try:
        app()
    except InputError as error:
        errors.print(f"keyorbit: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("keyorbit: stopped", markup=False)
        sys.exit(130)


def _quiet_libraries() -> None:
    """Bars and advice of the libraries below would drown ours."""
    import diffusers
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.set_verbosity_error()


@contextmanager
def _progress() -> Iterator[_Tick]:
    """A bar per stage on a terminal; elsewhere a plain line at each tenth."""
    if not errors.is_terminal:
        yield _plain_line
        return
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=errors) as progress:
        tasks: dict[str, Any] = {}

        def tick(stage: str, done: int, total: int, values: dict[str, float]) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total, note="")
            progress.update(tasks[stage], completed=done, note=_note(values))

        yield tick


def _plain_line(stage: str, done: int, total: int, values: dict[str, float]) -> None:
    if done == total or done % max(1, total // 10) == 0:
        errors.print(f"{stage} {done}/{total} {_note(values)}".rstrip(), markup=False, highlight=False, soft_wrap=True)


def _note(values: dict[str, float]) -> str:
    shown = {name: value for name, value in values.items() if name != "seconds"}
    return " ".join(f"{name} {value:.4f}" for name, value in shown.items())


def _one_of(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{option} is {' or '.join(known)}, not '{value}'")


def _load_all(path: Path) -> list[ObjectViews]:
    """Every object read now, so that a damaged file is found before any work is done."""
    return list(load_dataset(path))


def _tokens(run: Path) -> Tokens:
    return Tokens.load(run if run.is_file() else run / "tokens.safetensors")


def _backend(tokens: Tokens, model: str | None, device: str, dtype: str, unet: Path | None) -> Backend:
    return load_backend(model or tokens.info.model or "tiny", device, dtype, unet)


def _drift(backend: Any, image: Any, tick: Any) -> list[Drift]:
    if not isinstance(backend, Zero123PlusBackend):
        raise InputError(f"--drift works on Zero123++ models; {backend.name} generates no views from a picture")
    return measure_drift(backend, image, progress=tick)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error}") from error
    return folder


def _distinct(names: Sequence[str]) -> list[str]:
    """Names as folder names, numbered where two are the same."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return out


def _print_objects(results: dict[str, Evaluation]) -> None:
    table = Table("object")
    for name in results:
        table.add_column(f"{name}\nkeypoints", justify="right")
        table.add_column("reprojection\n% of side", justify="right")
        table.add_column("landmarks\n% of size", justify="right")
    for rows in zip(*(result.objects for result in results.values()), strict=True):
        cells = [rows[0].name]
        for row in rows:
            cells += [
                str(row.keypoints),
                _percent(row.reprojection),
                _percent(row.landmark_2d if row.landmark_3d is None else row.landmark_3d),
            ]
        table.add_row(*cells)
    console.print(table)


def _print_summary(results: dict[str, Evaluation]) -> None:
    table = Table("all objects", *results)
    fields = {
        "reprojection error, % of view side (median)": lambda e: _percent(e.reprojection),
        "3D landmark error, % of object size (mean)": lambda e: _percent(e.landmark_3d),
        "2D landmark error, visible ones, % of view side (mean)": lambda e: _percent(e.landmark_2d),
        "dual alignment score (Skeleton Merger), 0…1": lambda e: _number(e.dual_alignment),
        "landmarks with a keypoint within 10 %, %": lambda e: _percent(e.coverage),
        "input picture: elevation error, degrees (median)": lambda e: _number(e.input and e.input.elevation_error_deg),
        "input picture: reprojection error, % of side (median)": lambda e: _percent(e.input and e.input.reprojection),
        "keypoints on the object, %": lambda e: _percent(e.on_object),
    }
    for name, read in fields.items():
        table.add_row(name, *(read(result) for result in results.values()))  # type: ignore[no-untyped-call]
    console.print(table)


def _input_line(camera: InputCamera) -> str:
    if float(camera.score) == 0:
        return "the input picture's elevation cannot be known from these keypoints"
    return (
        f"the input picture's elevation is {float(camera.elevation_deg):.1f}° ± {float(camera.elevation_std_deg):.1f}°"
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
