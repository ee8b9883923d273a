"""``keyorbit generate``: a picture's views, as objects that the other commands read."""

from pathlib import Path
from typing import Annotated

import typer

from keyorbit.cli.dry_run import DryRunOption, tell_generation
from keyorbit.cli.inputs import given_paths
from keyorbit.cli.options import (
    BackgroundOption,
    BatchOption,
    CompileOption,
    DeterministicOption,
    DeviceOption,
    DtypeOption,
    LayoutOption,
    MaskOption,
    ModelOption,
    OverwriteOption,
    RecentreOption,
    RigOption,
    UnetOption,
    check_model_options,
    checked_masks,
)
from keyorbit.cli.terminal import bars, console, progress
from keyorbit.devices import AUTO
from keyorbit.diffusion.choices import GUIDANCE, STEPS, Guidance, SamplingSteps
from keyorbit.diffusion.paths import check_model
from keyorbit.errors import InputError
from keyorbit.objects.paths import check_picture
from keyorbit.storage.outputs import VIEWS, check_output
from keyorbit.values import Count, NotNegative, Seed

# Of v1.1 and of v1.2.
DEPTH, NORMALS = "sudo-ai/controlnet-zp11-depth-v1", "sudo-ai/controlnet-zp12-normal-gen-v1"


def generate_command(
    pictures: Annotated[
        list[Path],
        typer.Argument(
            help="Pictures, folders of them, patterns such as '*.jpg', - for a list on stdin, or objects, of which the "
            "input picture is used."
        ),
    ],
    out: Annotated[Path, typer.Option(help="A folder; for each set of views one is made in it.")],
    model: ModelOption = "tiny",
    num: Annotated[int, typer.Option(help="Sets of views of each picture, each from the next seed."), Count] = 1,
    seed: Annotated[int, typer.Option(help="Of the noise; with the same, detect sees the same views."), Seed] = 0,
    steps: Annotated[int, typer.Option(help="Denoising steps."), SamplingSteps] = STEPS,
    guidance: Annotated[
        float, typer.Option(help="Classifier-free guidance: how closely the picture is followed; 1: none."), Guidance
    ] = GUIDANCE,
    depth: Annotated[
        str | None,
        typer.Option(help="Depths that the views follow: a picture tiled as the grid is; auto: of their visual hull."),
    ] = None,
    normals: Annotated[bool, typer.Option("--normals", help="Also make normals.png, the views' normal maps.")] = False,
    controlnet: Annotated[
        str | None, typer.Option(help="For either: a folder or Hub id; default the published one.")
    ] = None,
    control_scale: Annotated[
        float | None, typer.Option(help="How much it weighs; default 0.75 for depths, 1 for normals."), NotNegative
    ] = None,
    background: BackgroundOption = None,
    mask: MaskOption = None,
    recentre: RecentreOption = True,
    batch: BatchOption = None,
    compile: CompileOption = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    unet: UnetOption = None,
    rig: RigOption = None,
    layout: LayoutOption = None,
    device: DeviceOption = AUTO,
    dtype: DtypeOption = AUTO,
    deterministic: DeterministicOption = False,
) -> None:
    """Generate the model's views of pictures: for each an object folder with grid.png, view_0.png … and meta.json."""
    view_choice = check_model_options(model, unet, rig, layout, dtype)
    if depth is not None and normals:
        raise InputError("--depth and --normals need different ControlNets: choose one of them")
    if depth is None and not normals and (controlnet or control_scale is not None):
        raise InputError("--controlnet and --control-scale are for --depth or --normals: give one of these too")
    if (depth or normals) and controlnet is None:
        if model == "tiny":
            raise InputError("the tiny model has no ControlNet of its own: give --controlnet, or another --model")
        controlnet = NORMALS if normals else DEPTH
    if controlnet is not None:
        check_model(controlnet, f"no ControlNet at {controlnet}; give a folder, or a Hub id such as {DEPTH}")
    pictures = given_paths(pictures)
    masks = checked_masks(pictures, background, mask)
    if depth and depth != AUTO:
        check_picture(Path(depth))

    from keyorbit.cli.loading import load_all, load_model, show_cut_outs, use_device
    from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
    from keyorbit.diffusion.control import Control, load_depths
    from keyorbit.diffusion.generation import Sampling, generate_objects, object_folders

    things = [thing for path in pictures for thing in load_all(path, background, masks, recentre)]
    folders = object_folders(out, things, num)
    for folder in folders:
        check_output(folder, VIEWS, overwrite)
    given = load_depths(Path(depth)) if depth and depth != AUTO else depth
    control = Control(given, normals, control_scale) if depth or normals else None
    backend = load_model(model, use_device(device, deterministic), dtype, unet, view_choice, compile, controlnet)
    if not isinstance(backend, Zero123PlusBackend):
        raise InputError(f"{model} is a model of a single view, which generates none: give a Zero123++ model")
    if dry_run:
        tell_generation(backend, [thing.framed_image for thing in things], num, steps, out)
        return
    with progress() as tick:
        how = Sampling(seed, num, steps, guidance)

        def told(done: int, total: int) -> None:
            tick("generate", done, total, {})

        generate_objects(folders, things, backend, how, control, batch, told, overwrite)
    show_cut_outs(things, True, "cond.png")
    for thing in things:
        if thing.framing.recentred:
            bars.print(f"{thing.name}: {thing.framing.words}", soft_wrap=True, highlight=False)
    console.print("\n".join(str(folder) for folder in folders), soft_wrap=True, highlight=False)
