"""``keyorbit detect``: a run's keypoints on new objects."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import typer

from keyorbit.cli.dry_run import DryRunOption, tell_detection
from keyorbit.cli.engine import EngineOption, GpusOption, PoolOption, check_alone, chosen_pool
from keyorbit.cli.inputs import run_and_pictures
from keyorbit.cli.options import (
    BackgroundOption,
    BatchOption,
    CompileOption,
    DeterministicOption,
    DeviceOption,
    DtypeOption,
    ForceOption,
    LayoutOption,
    MaskOption,
    OverwriteOption,
    RecentreOption,
    RigOption,
    StrictOption,
    UnetOption,
    UpOption,
    check_model_options,
    given_meshes,
    masks_of,
)
from keyorbit.cli.telling import JsonOption, tell_json
from keyorbit.detection.choices import NOISES, PEAKS, WARPS, Peak
from keyorbit.devices import AUTO
from keyorbit.diffusion.choices import SHIPPED_KINDS, ShippedKind
from keyorbit.diffusion.paths import shipped_tokens, tokens_file
from keyorbit.errors import InputError
from keyorbit.objects.background import Background
from keyorbit.objects.camera_files import check_camera_files
from keyorbit.objects.paths import photographs
from keyorbit.objects.sources import mesh_sources, object_sources
from keyorbit.output.choices import (
    DEFAULT_FORMATS,
    DETECTION,
    FORMATS,
    PerObject,
    check_edges,
    check_per_object,
    parse_formats,
    parse_skeleton,
)
from keyorbit.output.results import check_several
from keyorbit.ranks import start_ranks
from keyorbit.storage.outputs import check_output
from keyorbit.synthetic.choices import AUTO_UP
from keyorbit.values import Amount, Count, Seed, Share


def detect_command(
    run: Annotated[
        Path | None,
        typer.Argument(
            help="The folder that 'keyorbit discover' wrote; left out: tokens that come along, see --kind.",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Pictures, meshes, object or dataset folders, shards (.tar, .parquet), addresses (s3://…), patterns "
            "such as '*.jpg', or - for a list on stdin.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the results go.")] = Path("found"),
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name", help="A keypoint in words, such as 'front left leg', instead of a run's; may be repeated."
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help=f"Without a run: {', '.join(SHIPPED_KINDS)}; default the kind whose tokens know the object best."
        ),
        ShippedKind,
    ] = None,
    views: Annotated[
        Path | None, typer.Option(help="A folder of your own photographs of an object, as many as the model has views.")
    ] = None,
    cameras: Annotated[
        Path | None,
        typer.Option(help="Their cameras: a COLMAP model or project, a transforms.json, or a JSON file of matrices."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model; default the run's own.")] = None,
    noises: Annotated[int, typer.Option(help="Draws of noise averaged."), Count] = NOISES,
    warps: Annotated[int, typer.Option(help="Warped versions averaged."), Amount] = WARPS,
    peak: Annotated[
        str | None, typer.Option(help=f"{', '.join(PEAKS)}: how a place is read off its map."), Peak
    ] = None,
    formats: Annotated[str, typer.Option("--format", help=f"Some of {','.join(FORMATS)}.")] = ",".join(DEFAULT_FORMATS),
    per_object: Annotated[
        str | None,
        typer.Option(
            help="Of several objects, beside results.jsonl: all files (default), json (keypoints.json alone), none."
        ),
        PerObject,
    ] = None,
    strict: StrictOption = False,
    min_confidence: Annotated[
        float | None,
        typer.Option(help="Withhold keypoints that are less likely than this at their part, 0 to 1."),
        Share,
    ] = None,
    skeleton: Annotated[str, typer.Option(help="Edges such as 0-3,3-5, or 'auto': between co-moving keypoints.")] = "",
    background: BackgroundOption = None,
    mask: MaskOption = None,
    recentre: RecentreOption = True,
    seed: Annotated[int, typer.Option(help="Of noise, warps and generated views."), Seed] = 0,
    batch: BatchOption = None,
    up: UpOption = AUTO_UP,
    compile: CompileOption = False,
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
    dry_run: DryRunOption = False,
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
    """Find a run's keypoints on new objects: 2D on every view, and 3D where the model has several.

    Several objects go through one after the other, shared by the processes of a launcher; the same command goes on
    where it was stopped. What cannot be used is left out and listed, and the exit status is then 2.
    With --views and --cameras: on your own photographs; a picture, if given, is the input picture instead of the first.
    Meshes (GLB, OBJ, PLY, STL …) are rendered, and keypoints also put on their surfaces.
    Without a run the kind of each object is looked for, told, and written into its files.
    With --name there is no run: keypoints are what the model's text encoder makes of the words.
    """
    chosen, edges = parse_formats(formats), parse_skeleton(skeleton)
    run, pictures = run_and_pictures(run, pictures or [], bool(name))
    if (views is None) != (cameras is None):
        raise InputError("--views and --cameras belong together: give both, or neither")
    if len(pictures) > 1 if views else not pictures:
        raise InputError("give pictures or objects, or --views and --cameras with one input picture at most")
    if views and mask is not None:
        raise InputError("--mask is for pictures whose views are generated, and --views gives them: leave one out")
    check_per_object(per_object, chosen, views is not None)
    view_choice = check_model_options(model, unet, rig, layout, dtype)
    if kind is not None and (run is not None or name):
        raise InputError(f"--kind chooses among the tokens that ship, and {'--name' if name else run} gives others")
    if run is not None and not name:
        tokens_file(run)
    elif run is not None and ((run / "run.json").is_file() or run.suffix == ".safetensors"):
        raise InputError(f"{run} is a run, and --name gives keypoints in words instead of a run's: leave one out")
    pictures, meshes = given_meshes(pictures, mask, up)
    if views and meshes:
        raise InputError(f"--views gives the views, and {meshes[0]} is a mesh: leave one out")
    sources = object_sources(pictures)
    masks = masks_of(sources, background, mask)
    here = not any(source.elsewhere for source in sources)
    sources += mesh_sources(meshes)
    several = not views and (len(sources) > 1 or per_object in ("json", "none"))
    pool = chosen_pool(engine, workers, gpus, device)
    if pool is not None:
        check_alone(several, dry_run)
    check_several(out, overwrite) if several else check_output(out, DETECTION, overwrite)
    if several and run is None and not (name or kind) and (edges is None or edges):
        raise InputError("--skeleton joins keypoints of one kind of object: give --kind too")
    if views and cameras:
        check_camera_files(cameras, views, photographs(views))

    from keyorbit.cli.work.detecting import detect_one, detect_several
    from keyorbit.cli.work.detectors import DetectorChoice
    from keyorbit.cli.work.loading import ModelChoice, kinds_tokens, load_tokens, use_device
    from keyorbit.cli.work.several import Several, load_all, meshes_at
    from keyorbit.cli.work.turns import Writing
    from keyorbit.detection.confidence import NO_CONFIDENCE
    from keyorbit.detection.config import DetectConfig
    from keyorbit.objects.captures import load_capture
    from keyorbit.output.write import write_detection

    kinds = None if name or kind or run else kinds_tokens()
    file = shipped_tokens(cast(ShippedKind, kind)) if kind else run
    given = None if name or file is None else load_tokens(file)
    known = given or (next(iter(kinds.values())) if kinds else None)
    if min_confidence is not None and (known is None or known.info.statistics is None):
        raise InputError(f"--min-confidence has nothing to go by: {NO_CONFIDENCE}")
    check_edges(edges or (), len(name or known or ()))
    config = DetectConfig(noises, warps, cast(Peak | None, peak), seed=seed)
    on_model = ModelChoice(model, device, dtype, unet, view_choice, compile, None, deterministic)
    choice = DetectorChoice(kinds or given, name or (), on_model, config, force)
    writing = Writing(out, chosen, edges, cast(PerObject, per_object or "all"), min_confidence, overwrite, json_file)
    shown_as = cast(Background, background or "auto")
    if pool is not None:
        from keyorbit.cli.work.detecting_on_ray import detect_on_ray

        objects = Several(sources, masks, shown_as, recentre, batch, strict, up=up)
        detect_on_ray(choice, objects, meshes, writing, pool)
        return
    early = pictures and here and not (views or several)
    alone = load_all(pictures[0], background, masks, recentre)[0] if early else None
    on = use_device(device, deterministic)
    ranks = start_ranks(on)  # before the model is loaded: each process has a GPU of its own
    if not (several or ranks.main):
        return
    detector = choice.load(on)
    backend = detector.backend
    if views and cameras:
        picture = pictures[0] if pictures else None
        captured = load_capture(views, cameras, backend.layout, backend.view_size, picture)
        alone = replace(captured, recentre=recentre, background=shown_as)
    rendered = meshes_at(meshes, backend.cameras, up)
    if rendered and not several:
        alone = replace(rendered[0](), recentre=recentre)
    objects = Several(sources, masks, shown_as, recentre, batch, strict, alone, rendered, up, backend.cameras)
    if alone is None and not several:
        alone = objects.read(0)
    if dry_run:
        write = partial(write_detection, formats=chosen)
        tell_json(json_file, "detect", tell_detection(detector, objects.read(0), len(sources) or 1, out, write))
        return
    if alone is not None:
        detect_one(detector, alone, writing)
    else:
        detect_several(detector, objects, writing, ranks)
