"""``keyorbit detect``: a run's keypoints on new objects."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import typer

from keyorbit.cli.dry_run import DryRunOption, tell_detection
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
    UnetOption,
    check_model_options,
    checked_masks,
)
from keyorbit.cli.terminal import console, progress
from keyorbit.detection.choices import NOISES, PEAKS, WARPS, Peak
from keyorbit.devices import AUTO
from keyorbit.diffusion.paths import tokens_file
from keyorbit.errors import InputError
from keyorbit.objects.background import CUT_OUT_FILE, Background
from keyorbit.objects.camera_files import check_camera_files
from keyorbit.objects.paths import photographs
from keyorbit.output.choices import (
    DEFAULT_FORMATS,
    DETECTION,
    FORMATS,
    check_edges,
    parse_formats,
    parse_skeleton,
)
from keyorbit.storage.folder_names import readable
from keyorbit.storage.outputs import check_output
from keyorbit.values import Amount, Count, Seed, Share


def detect_command(
    run: Annotated[
        Path | None,
        typer.Argument(
            help="The folder that 'keyorbit discover' wrote; left out: tokens of chairs, which come along.",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Pictures, object folders, dataset folders, patterns such as '*.jpg', or - for a list on stdin.",
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
    compile: CompileOption = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    unet: UnetOption = None,
    rig: RigOption = None,
    layout: LayoutOption = None,
    device: DeviceOption = AUTO,
    dtype: DtypeOption = AUTO,
    deterministic: DeterministicOption = False,
) -> None:
    """Find a run's keypoints on new objects: 2D on every view, and 3D where the model has several.

    With --views and --cameras: on your own photographs; a picture, if given, is the input picture instead of the first.
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
    view_choice = check_model_options(model, unet, rig, layout, dtype)
    check_output(out, DETECTION, overwrite)
    if not name:
        tokens_file(run)
    elif (run / "run.json").is_file() or run.suffix == ".safetensors":
        raise InputError(f"{run} is a run, and --name gives keypoints in words instead of a run's: leave one out")
    masks = checked_masks(pictures, background, mask)
    if views and cameras:
        check_camera_files(cameras, views, photographs(views))

    from rich.table import Table

    from keyorbit.cli.loading import load_all, load_model, load_tokens, run_backend, show_cut_outs, use_device
    from keyorbit.cli.tables import input_line
    from keyorbit.detection.confidence import NO_CONFIDENCE
    from keyorbit.detection.config import DetectConfig
    from keyorbit.detection.detector import KeypointDetector
    from keyorbit.diffusion.tokens import Tokens
    from keyorbit.evaluation.evaluate import SEEN, detect_all
    from keyorbit.evaluation.figures import percent
    from keyorbit.objects.captures import load_capture
    from keyorbit.output.write import find_skeleton, write_detection, write_detections

    given = None if name else load_tokens(run)
    if min_confidence is not None and (given is None or given.info.statistics is None):
        raise InputError(f"--min-confidence has nothing to go by: {NO_CONFIDENCE}")
    check_edges(edges or (), len(name or given or ()))
    objects = [] if views else [thing for path in pictures for thing in load_all(path, background, masks, recentre)]
    on = use_device(device, deterministic)
    if given is None:
        backend = load_model(model or "tiny", on, dtype, unet, view_choice, compile)
        tokens = Tokens.from_phrases(backend, name or [])
    else:
        backend, tokens = run_backend(given, model, on, dtype, unet, view_choice, compile), given
    if views and cameras:
        picture = pictures[0] if pictures else None
        captured = load_capture(views, cameras, backend.layout, backend.view_size, picture)
        objects = [replace(captured, recentre=recentre, background=cast(Background, background or "auto"))]
    config = DetectConfig(noises, warps, cast(Peak | None, peak), seed=seed)
    detector = KeypointDetector(backend, tokens, config, force)
    if dry_run:
        tell_detection(detector, objects[0], len(objects), out, partial(write_detection, formats=chosen))
        return
    with progress() as tick:
        found = detect_all(detector, objects, lambda i, n: tick("detect", i, n, {}), batch)
    if min_confidence is not None:
        found = [detection.withholding(min_confidence) for detection in found]
    edges = find_skeleton(found) if edges is None else edges
    places = write_detections(out, found, chosen, edges, overwrite)
    table = Table("object", "keypoints", "reprojection, % of side", "written to")
    for place, detection in zip(places, found, strict=True):
        points = detection.keypoints_3d
        error = None if points is None else float(points.reprojection_error.median())
        score = detection.keypoints_2d.score[0] if points is None else points.score
        told = (str(int((score > SEEN).sum())), percent(error)) if detection.trusted else ("–", "–")
        table.add_row(detection.name, *told, readable(str(place)))
    console.print(table)
    several = backend.layout.num_views > 1
    show_cut_outs(objects, several, CUT_OUT_FILE if several else "view_0.png")
    for detection in found:
        if (trust := detection.confidence) is not None:
            said = f"{detection.name}: {trust.words}"
            console.print(said, style=trust.color, markup=False, highlight=False, soft_wrap=True)
        if detection.withheld:
            numbers = ", ".join(map(str, detection.withheld))
            console.print(f"{detection.name}: withheld, below {min_confidence:g}: {numbers}", soft_wrap=True)
        if detection.framing is not None and detection.framing.recentred:
            console.print(f"{detection.name}: {detection.framing.words}", markup=False, soft_wrap=True)
        if detection.input_camera is not None:
            console.print(f"{detection.name}: {input_line(detection.input_camera)}", markup=False, soft_wrap=True)
    if any(detection.confidence is None and detection.keypoints_3d is not None for detection in found):
        console.print(f"Confidence: {NO_CONFIDENCE}.", markup=False, soft_wrap=True)
    if any(detection.keypoints_3d is None for detection in found):
        console.print("A single view has no 3D: keypoints in 2D only, and no points.glb, points.ply or colmap.")
