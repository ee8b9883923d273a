"""The command line. Exit status 0; 2 for bad use or input, with one line that says what; 1 if we failed."""

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version as package_version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Protocol, cast, get_args

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from keyorbit.app.interface import gradio, launch
from keyorbit.app.studio import open_studio
from keyorbit.backends.base import Backend
from keyorbit.backends.loading import load_backend, model_fingerprint
from keyorbit.backends.zero123plus import Zero123PlusBackend
from keyorbit.cache_build import build_cache, check_room
from keyorbit.cache_index import STORED, plan_cache
from keyorbit.captures import load_capture
from keyorbit.data import ObjectViews, load_dataset, load_image
from keyorbit.detect import PEAKS, DetectConfig, Detection, KeypointDetector
from keyorbit.discover import DiscoverConfig, config_from_settings, discover, discover_cached, untrained
from keyorbit.disk_cache import DiskCache, open_cache
from keyorbit.errors import InputError
from keyorbit.evaluate import SEEN, Evaluation, detect_all, evaluate
from keyorbit.export import make_folder, write_json, write_text
from keyorbit.inspection.architectures import ARCHITECTURES
from keyorbit.inspection.cost import Subject, measure
from keyorbit.inspection.drift import Drift, measure_drift
from keyorbit.inspection.report_text import markdown, show
from keyorbit.inspection.shape_report import inspect_model, with_measurements
from keyorbit.loss_log import LossLog
from keyorbit.pose import InputCamera
from keyorbit.prepare import PrepareConfig
from keyorbit.protocol import PROTOCOLS, ProtocolConfig, run_protocol
from keyorbit.queries import MapKind
from keyorbit.ranks import start_ranks
from keyorbit.readers import DATASETS, read_dataset
from keyorbit.report import read_run, read_scores, report_html, run_objects
from keyorbit.results import DEFAULT_FORMATS, FORMATS, find_skeleton, parse_formats, parse_skeleton, write_detection
from keyorbit.settings_file import read_toml, to_toml
from keyorbit.skeleton import check_edges
from keyorbit.synthetic.dataset import make_dataset, render_mesh
from keyorbit.synthetic.objects import CATEGORIES
from keyorbit.tables import objects_table, percent, protocol_table, summary_table
from keyorbit.tokens import Tokens
from keyorbit.training.config import TrainConfig
from keyorbit.training.train import SETTINGS, make_accelerator, train

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
protocol_app = typer.Typer(
    help="Published protocols from end to end, next to the published numbers.", no_args_is_help=True
)
app.add_typer(protocol_app, name="protocol")
DISCOVER_SETTINGS = "discover.toml"
console, errors, bars = Console(), Console(stderr=True), Console(stderr=True)

ModelOption = Annotated[
    str, typer.Option(help="'tiny' (shipped), or a folder or Hub id of Zero123++ or Stable Diffusion.")
]
UnetOption = Annotated[Path | None, typer.Option(help="A .safetensors file with other weights for the model's UNet.")]
DeviceOption = Annotated[str, typer.Option(help="Where the model runs, such as cpu or cuda.")]
DtypeOption = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
MapsOption = Annotated[
    str | None,
    typer.Option(
        help="logits, attention (softmax with the text), or stablekeypoints (softmax among the tokens, enlarged)."
    ),
]
LayersOption = Annotated[
    str | None, typer.Option(help="Pattern on the cross-attention layers' names; default the model's.")
]
TimestepOption = Annotated[
    str | None,
    typer.Option(help="How much noise the UNet sees, 0 to 999, or several such as 100,300; default the model's."),
]
WarpsOption = Annotated[int | None, typer.Option(help="Warped versions of every object; default 2.")]
NoisesOption = Annotated[int | None, typer.Option(help="Draws of noise of every version; default 1.")]
RunArgument = Annotated[Path, typer.Argument(help="The folder that 'keyorbit discover' wrote.")]


class _Tick(Protocol):
    def __call__(self, stage: str, done: int, total: int, values: dict[str, float]) -> None: ...


@app.callback(invoke_without_command=True)
def _about(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, results and errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what is done, and why.")] = False,
) -> None:
    if quiet and verbose:
        raise InputError("--quiet and --verbose exclude each other")
    bars.quiet = quiet
    if verbose:
        logging.getLogger("keyorbit").setLevel(logging.INFO)
    if version:
        console.print(package_version("keyorbit"))
        raise typer.Exit


@app.command("discover")
def discover_command(
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    data: Annotated[
        Path | None, typer.Argument(help="A dataset folder, or a folder of pictures; not needed with --cache.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="What 'keyorbit cache' wrote: needs no weights, and sets what is not given here."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="As for 'keyorbit cache'; 'tiny' unless told otherwise.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A TOML file of settings, such as a run's discover.toml; options win over it."),
    ] = None,
    tokens: Annotated[int | None, typer.Option(help="Keypoints to find; default 16.")] = None,
    candidates: Annotated[
        int | None, typer.Option(help="Tokens optimised, the best of which become keypoints; default 32.")
    ] = None,
    mode: Annotated[str | None, typer.Option(help="isolated (fast, the default) or joint (through the UNet).")] = None,
    maps: MapsOption = None,
    layers: LayersOption = None,
    steps: Annotated[int | None, typer.Option(help="Optimisation steps; default 500.")] = None,
    batch: Annotated[int | None, typer.Option(help="Objects a step; default 8.")] = None,
    timestep: TimestepOption = None,
    warps: WarpsOption = None,
    noises: NoisesOption = None,
    seed: Annotated[int | None, typer.Option(help="Of tokens, noise and batches; default 0.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a stopped run was.")] = False,
    unet: UnetOption = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
) -> None:
    """Find keypoint tokens on the objects of DATA; no labels."""
    if mode is not None:
        _one_of("--mode", mode, ("isolated", "joint"))
    if (data is None) == (cache is None):
        raise InputError("give either DATA or --cache")
    if cache is not None:
        given = {"--timestep": timestep, "--warps": warps, "--noises": noises, "--unet": unet}
        if besides := [name for name, value in given.items() if value is not None]:
            raise InputError(f"{' and '.join(besides)} cannot be chosen any more: --cache was built with its own")
    if (out / "tokens.safetensors").exists() and not resume:
        raise InputError(f"{out} holds a finished run already; give another --out, or remove it")
    kept = out / DISCOVER_SETTINGS
    if config is None and resume and kept.is_file():
        config = kept
    base = DiscoverConfig() if config is None else read_toml(config, DiscoverConfig)
    wanted = replace(base, prepare=_prepare(timestep, warps, noises, base.prepare))
    given = {"mode": mode, "maps": _maps(maps), "layers": layers, "steps": steps, "batch": batch, "seed": seed}
    count = base.num_tokens if tokens is None else tokens
    given |= {
        "num_tokens": count,
        "num_candidates": max(count, base.num_candidates if candidates is None else candidates),
    }
    wanted = replace(wanted, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    ranks = start_ranks(device)
    losses, settings = LossLog(out), to_toml(wanted)
    began = time.monotonic()
    with _progress(ranks.main) as tick:

        def report(stage: str, done: int, total: int, values: dict[str, float]) -> None:
            if stage == "step" and ranks.main:
                if not losses.begun:  # nothing is written before there is something to keep
                    write_text(make_folder(out) / DISCOVER_SETTINGS, settings)
                losses.add(done, values)
            tick(stage, done, total, values)

        if cache is not None:
            opened = _of_model(open_cache(cache, device), model)
            count, found = len(opened), discover_cached(opened, wanted, out, resume, report, ranks)
        else:
            assert data is not None
            objects = _load_all(data)
            backend = load_backend(model or "tiny", device, dtype, unet)
            count, found = len(objects), discover(backend, objects, wanted, out, resume, report, ranks)
    if not ranks.main:
        return
    found.save(make_folder(out) / "tokens.safetensors")
    write_text(out / DISCOVER_SETTINGS, settings)
    about = {"format": "keyorbit-run-1", "data": str(data or cache), "objects": count, "model": found.info.model}
    write_json(out / "run.json", about | {"seconds": time.monotonic() - began, "config": asdict(wanted)})
    console.print(f"{len(found)} keypoints from {count} objects: {out / 'tokens.safetensors'}")


@app.command("cache")
def cache_command(
    data: Annotated[Path, typer.Argument(help="A dataset folder, or a folder of pictures.")],
    out: Annotated[Path, typer.Option(help="The cache's folder; a build that was stopped there goes on.")],
    model: ModelOption = "tiny",
    maps: MapsOption = None,
    layers: LayersOption = None,
    timestep: TimestepOption = None,
    warps: WarpsOption = None,
    noises: NoisesOption = None,
    seed: Annotated[int, typer.Option(help="Of warps and noise.")] = 0,
    store: Annotated[str, typer.Option(help=f"{', '.join(STORED)}: what queries are kept in.")] = "float32",
    unet: UnetOption = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
) -> None:
    """Run the model once on every object of DATA and keep its queries: 'discover --cache' then needs no weights."""
    objects = load_dataset(data)
    backend = load_backend(model, device, dtype, unet)
    prepare = _prepare(timestep, warps, noises, DiscoverConfig().prepare)
    wanted = DiscoverConfig(layers=layers, maps=_maps(maps), seed=seed, prepare=prepare)
    ranks = start_ranks(device)
    with _progress(ranks.main) as tick:
        index = plan_cache(backend, objects, wanted, store, lambda i, n: tick("read", i, n, {}))
        check_room(index, out)
        if ranks.main:
            size = f"{index.bytes / 1e6:,.1f} MB for {len(index.objects)} objects in {index.versions} versions"
            errors.print(f"{out} will take {size}", highlight=False, soft_wrap=True, markup=False)
        build_cache(backend, objects, index, out, lambda i, n: tick("cache", i, n, {}), ranks)
    if ranks.main:
        console.print(f"{len(index.objects)} objects in {out}: keyorbit discover --cache {out} --out RUN")


@app.command("train")
def train_command(
    data: Annotated[Path, typer.Argument(help="A dataset folder whose objects have their views.")],
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    model: ModelOption = "tiny",
    tokens: Annotated[
        str | None, typer.Option(help="How many, or a run or tokens file to start from; default 16.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of settings; options win over it. With --resume the run's own.")
    ] = None,
    trained: Annotated[str | None, typer.Option("--train", help="tokens, lora or full.")] = None,
    keypoint: Annotated[float | None, typer.Option(help="Times the keypoint losses' weights; 0 for none.")] = None,
    equivariance: Annotated[float | None, typer.Option(help="The equivariance loss's weight.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimisation steps.")] = None,
    batch: Annotated[int | None, typer.Option(help="Objects in a forward pass.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Forward passes in a step.")] = None,
    unet_rate: Annotated[float | None, typer.Option(help="Learning rate of LoRA or the UNet.")] = None,
    token_rate: Annotated[float | None, typer.Option(help="Learning rate of the tokens.")] = None,
    mode: Annotated[str | None, typer.Option(help="joint or isolated.")] = None,
    precision: Annotated[str | None, typer.Option(help="no, bf16 or fp16.")] = None,
    checkpointing: Annotated[bool | None, typer.Option(help="Less memory for more time.")] = None,
    tracker: Annotated[str | None, typer.Option(help="none, tensorboard, trackio or wandb.")] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    sample_every: Annotated[int | None, typer.Option(help="Steps between sheets of views; 0 for none.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of tokens, noise and batches.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a stopped run was.")] = False,
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave the GPU alone.")] = False,
    unet: UnetOption = None,
) -> None:
    """Train novel views and keypoints together, from one forward; also under 'accelerate launch -m keyorbit train'."""
    if config is None and resume and (out / SETTINGS).is_file():
        config = out / SETTINGS
    base = TrainConfig() if config is None else read_toml(config, TrainConfig)
    start, count = _tokens_or_number(tokens)
    given = {
        "train": trained, "num_tokens": count, "steps": steps, "batch": batch, "accumulate": accumulate,
        "unet_rate": unet_rate, "token_rate": token_rate, "mode": mode, "precision": precision,
        "checkpointing": checkpointing, "tracker": tracker, "save_every": save_every, "sample_every": sample_every,
        "seed": seed,
    }  # fmt: skip
    terms = base.terms if keypoint is None else replace(base.terms, keypoint=keypoint)
    if equivariance is not None:
        terms = replace(terms, equivariance=replace(terms.equivariance, weight=equivariance))
    settings = replace(base, terms=terms, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    objects = load_dataset(data)
    accelerator = make_accelerator(settings, out, cpu)
    backend = load_backend(model, str(accelerator.device), unet=unet)
    began = time.monotonic()
    with _progress() as tick:
        found = train(
            backend, objects, settings, out, start, resume, accelerator,
            lambda i, n, terms: tick("train", i, n, {k: v for k, v in terms.items() if k in ("nvs", "keypoint")}),
        )  # fmt: skip
    if not accelerator.is_main_process:
        return
    about = {"format": "keyorbit-training-1", "data": str(data), "objects": len(objects), "model": model}
    write_json(out / "run.json", about | {"seconds": time.monotonic() - began, "config": asdict(settings)})
    console.print(f"{len(found)} tokens trained on {len(objects)} objects: {out / 'tokens.safetensors'}")


@app.command("detect")
def detect_command(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="Where the results go.")],
    pictures: Annotated[
        list[Path] | None, typer.Argument(help="Pictures, object folders or dataset folders.", show_default=False)
    ] = None,
    views: Annotated[
        Path | None, typer.Option(help="A folder of your own photographs of an object, as many as the model has views.")
    ] = None,
    cameras: Annotated[
        Path | None, typer.Option(help="Their cameras: a JSON file, or a folder with a COLMAP text model.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model; default the run's own.")] = None,
    noises: Annotated[int, typer.Option(help="Draws of noise averaged.")] = DetectConfig.noises,
    warps: Annotated[int, typer.Option(help="Warped versions averaged.")] = DetectConfig.warps,
    peak: Annotated[str | None, typer.Option(help=f"{', '.join(PEAKS)}: how a place is read off its map.")] = None,
    formats: Annotated[str, typer.Option("--format", help=f"Some of {','.join(FORMATS)}.")] = ",".join(DEFAULT_FORMATS),
    skeleton: Annotated[str, typer.Option(help="Edges such as 0-3,3-5, or 'auto': between co-moving keypoints.")] = "",
    seed: int = 0,
    unet: UnetOption = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
) -> None:
    """Find a run's keypoints on new objects: 2D on every view, and 3D where the model has several.

    With --views and --cameras: on your own photographs; a picture, if given, is the input picture instead of the first.
    """
    if noises < 1:
        raise InputError("--noises must be 1 or more")
    if warps < 0:
        raise InputError("--warps must be 0 or more")
    if peak is not None:
        _one_of("--peak", peak, PEAKS)
    chosen, edges = parse_formats(formats), parse_skeleton(skeleton)
    tokens = _tokens(run)
    check_edges(edges or (), len(tokens))
    pictures = pictures or []
    if (views is None) != (cameras is None):
        raise InputError("--views and --cameras belong together: give both, or neither")
    if len(pictures) > 1 if views else not pictures:
        raise InputError("give pictures or objects, or --views and --cameras with one input picture at most")
    objects = [] if views else [thing for path in pictures for thing in _load_all(path)]
    backend = _backend(tokens, model, device, dtype, unet)
    if views and cameras:
        picture = pictures[0] if pictures else None
        objects = [load_capture(views, cameras, backend.layout, backend.view_size, picture)]
    detector = KeypointDetector(backend, tokens, DetectConfig(noises, warps, peak, seed=seed))
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
        table.add_row(name, str(int((score > SEEN).sum())), percent(error), str(out if single else out / name))
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
    moved: Annotated[
        Path | None, typer.Option(help="The objects of DATA turned ('dataset make --turn'): adds repeatability.")
    ] = None,
    dataset: Annotated[str, typer.Option(help=f"Layout of the folders: {', '.join(DATASETS)}.")] = "keyorbit",
    split: Annotated[str, typer.Option(help="Which part of a published data set DATA is judged on.")] = "test",
    limit: Annotated[int | None, typer.Option(help="Judge no more objects than the first so many.")] = None,
    baseline: Annotated[bool, typer.Option(help="Also untrained tokens, side by side.")] = True,
    model: Annotated[str | None, typer.Option(help="The model; default the run's own.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
    unet: UnetOption = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
) -> None:
    """Measure a run's keypoints against ground truth, next to untrained tokens."""
    if limit is not None and limit < 1:
        raise InputError("--limit must be 1 or more")
    tokens = _tokens(run)

    def load(folder: Path | None, part: str) -> list[ObjectViews]:
        return [] if folder is None else list(read_dataset(dataset, folder, part)[:limit])

    objects, fit_objects, moved_objects = load(data, split), load(fit, "train"), load(moved, split)
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
            again = detect_all(detector, moved_objects, lambda i, n, s=name: tick(f"moved {s}", i, n, {}))  # type: ignore[misc]
        motion = (again, moved_objects) if moved else None
        results[name] = evaluate(found, objects, fitted, fit_objects, motion)
    if json_file:
        make_folder(json_file.parent)
        write_json(json_file, {name: result.to_dict() for name, result in results.items()})
    console.print(objects_table(results))
    console.print(summary_table(results))


@protocol_app.command("stablekeypoints")
def protocol_command(
    dataset: Annotated[str, typer.Option(help=f"One of {', '.join(PROTOCOLS)}.")],
    data: Annotated[Path, typer.Option(help="The data set's folder in its published layout.")],
    out: Annotated[Path, typer.Option(help="Where tokens and result go.")],
    model: Annotated[str, typer.Option(help="A folder or Hub id of Stable Diffusion.")],
    keypoints: Annotated[int, typer.Option(help="Keypoints kept.")] = ProtocolConfig.keypoints,
    tokens: Annotated[int, typer.Option(help="Tokens optimised.")] = ProtocolConfig.tokens,
    steps: Annotated[int, typer.Option(help="Optimisation steps.")] = ProtocolConfig.steps,
    batch: Annotated[int, typer.Option(help="Pictures a step.")] = ProtocolConfig.batch,
    pictures: Annotated[int, typer.Option(help="Train pictures to optimise on.")] = ProtocolConfig.pictures,
    fit: Annotated[int, typer.Option(help="Train pictures to regress on, at most.")] = ProtocolConfig.fit,
    test: Annotated[int | None, typer.Option(help="Test pictures, at most; default all.")] = None,
    augmentations: Annotated[int, typer.Option(help="Warps averaged in detection.")] = ProtocolConfig.augmentations,
    map_size: Annotated[int, typer.Option(help="Side of the maps.")] = ProtocolConfig.map_size,
    seed: int = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
) -> None:
    """StableKeypoints: optimise, select, regress, evaluate, beside the paper's number."""
    _one_of("--dataset", dataset, tuple(PROTOCOLS))
    if min(keypoints, tokens, pictures, fit, 1 if test is None else test, batch) < 1 or augmentations < 0:
        raise InputError("numbers of keypoints, tokens and pictures are 1 or more, and --augmentations 0 or more")
    config = ProtocolConfig(
        keypoints, tokens, steps, batch, ProtocolConfig.rate, pictures, fit, test, augmentations, map_size, seed
    )
    train_objects, test_objects = read_dataset(dataset, data, "train"), read_dataset(dataset, data, "test")
    backend = load_backend(model, device, dtype)
    with _progress() as tick:
        result = run_protocol(backend, dataset, train_objects, test_objects, config, None, tick)
    result.tokens.save(make_folder(out) / "tokens.safetensors")
    write_json(out / "protocol.json", result.to_dict())
    console.print(protocol_table(result))


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
        make_folder(json_file.parent)
        write_json(json_file, report.to_dict())
    if markdown_file:
        make_folder(markdown_file.parent)
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
    turn: Annotated[float, typer.Option(help="The same objects seen from so many degrees further round.")] = 0.0,
) -> None:
    """Write procedural objects with six views and true keypoints."""
    with _progress() as tick:
        written = make_dataset(out, category, objects, seed, size, workers, lambda i, n: tick("render", i, n, {}), turn)
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
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # a launcher ends all processes where one is gone
        signal.signal(signal.SIGTERM, _terminated)
    _quiet_libraries()
    try:
        app()
    except InputError as error:
        errors.print(f"keyorbit: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("keyorbit: stopped", markup=False)
        sys.exit(130)


def _terminated(number: int, frame: object) -> None:
    raise InputError(
        "stopped from outside, as when another process of the run is gone; what was finished is kept: start it again "
        "('discover' with --resume)"
    )


def _quiet_libraries() -> None:
    """Bars and advice of the libraries below would drown ours."""
    import diffusers
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.set_verbosity_error()


@contextmanager
def _progress(shown: bool = True) -> Iterator[_Tick]:
    """A bar per stage on a terminal; elsewhere a plain line at each tenth. Of several processes one shows it."""
    if not shown:
        yield lambda stage, done, total, values: None
        return
    if not bars.is_terminal or bars.quiet:
        yield _plain_line
        return
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=bars) as progress:
        tasks: dict[str, Any] = {}

        def tick(stage: str, done: int, total: int, values: dict[str, float]) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total, note="")
            progress.update(tasks[stage], completed=done, note=_note(values))

        yield tick


def _plain_line(stage: str, done: int, total: int, values: dict[str, float]) -> None:
    if done == total or done % max(1, total // 10) == 0:
        bars.print(f"{stage} {done}/{total} {_note(values)}".rstrip(), markup=False, highlight=False, soft_wrap=True)


def _note(values: dict[str, float]) -> str:
    shown = {name: value for name, value in values.items() if name != "seconds"}
    return " ".join(f"{name} {value:.4f}" for name, value in shown.items())


def _one_of(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{option} is {' or '.join(known)}, not '{value}'")


def _maps(value: str | None) -> MapKind | None:
    if value is not None:
        _one_of("--maps", value, get_args(MapKind))
    return cast(MapKind | None, value)


def _prepare(timestep: str | None, warps: int | None, noises: int | None, base: PrepareConfig) -> PrepareConfig:
    """``base`` with what was given."""
    several = [] if timestep is None else timestep.split(",")
    if not all(t.strip().isdecimal() and int(t) <= 999 for t in several):
        raise InputError(f"--timestep is 0 to 999, or several with commas between, not {timestep}")
    if (warps or 0) < 0 or (1 if noises is None else noises) < 1:
        raise InputError("--warps is 0 or more, and --noises 1 or more")
    chosen = tuple(int(t) for t in several)
    single = chosen[0] if len(chosen) == 1 else chosen or None
    given = {"timestep": single, "warps": warps, "noises": noises}
    return replace(base, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def _of_model(cache: DiskCache, model: str | None) -> DiskCache:
    """The cache, if it was built with that model; without one, whatever it was built with."""
    if model is not None and (found := model_fingerprint(model)) != cache.facts.fingerprint:
        raise InputError(
            f"{cache.folder} was built with {cache.facts.name} ({cache.facts.fingerprint}), not with {model} "
            f"({found}): build it again, or leave --model out"
        )
    return cache


def _load_all(path: Path) -> list[ObjectViews]:
    """Every object read now, so that a damaged file is found before any work is done."""
    return list(load_dataset(path))


def _tokens(run: Path) -> Tokens:
    return Tokens.load(run if run.is_file() else run / "tokens.safetensors")


def _tokens_or_number(given: str | None) -> tuple[Tokens | None, int | None]:
    """``--tokens`` of training: tokens to start from, or how many fresh ones."""
    if given is None:
        return None, None
    if given.isdecimal():
        return None, int(given)
    return _tokens(Path(given)), None


def _backend(tokens: Tokens, model: str | None, device: str, dtype: str, unet: Path | None) -> Backend:
    return load_backend(model or tokens.info.model or "tiny", device, dtype, unet)


def _drift(backend: Any, image: Any, tick: Any) -> list[Drift]:
    if not isinstance(backend, Zero123PlusBackend):
        raise InputError(f"--drift works on Zero123++ models; {backend.name} generates no views from a picture")
    return measure_drift(backend, image, progress=tick)


def _distinct(names: Sequence[str]) -> list[str]:
    """Names as folder names, numbered where two are the same."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return out


def _input_line(camera: InputCamera) -> str:
    if float(camera.score) == 0:
        return "the input picture's elevation cannot be known from these keypoints"
    return (
        f"the input picture's elevation is {float(camera.elevation_deg):.1f}° ± {float(camera.elevation_std_deg):.1f}°"
    )
