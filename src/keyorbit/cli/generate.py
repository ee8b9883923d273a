"""``keyorbit generate``: a picture's views, as objects that the other commands read."""

from pathlib import Path
from typing import Annotated, cast

import typer

from keyorbit.cli.dry_run import DryRunOption, tell_generation
from keyorbit.cli.engine import EngineOption, GpusOption, PoolOption, check_alone, chosen_pool
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
    StrictOption,
    UnetOption,
    check_model_options,
    masks_of,
)
from keyorbit.cli.telling import JsonOption, tell_json
from keyorbit.cli.terminal import PROBLEMS, console, left_out, progress
from keyorbit.devices import AUTO
from keyorbit.diffusion.choices import GUIDANCE, STEPS, Guidance, SamplingSteps
from keyorbit.diffusion.paths import check_model
from keyorbit.errors import InputError
from keyorbit.objects.background import Background
from keyorbit.objects.paths import check_picture
from keyorbit.objects.sources import object_sources
from keyorbit.ranks import Ranks, start_ranks
from keyorbit.storage.outputs import VIEWS, check_output
from keyorbit.values import Count, NotNegative, Seed

# Of v1.1 and of v1.2.
DEPTH, NORMALS = "sudo-ai/controlnet-zp11-depth-v1", "sudo-ai/controlnet-zp12-normal-gen-v1"


def generate_command(
    pictures: Annotated[
        list[Path],
        typer.Argument(
            help="Pictures, folders of them, shards (.tar, .parquet), addresses (s3://…), patterns such as '*.jpg', - "
            "for a list on stdin, or objects, of which the input picture is used."
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
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
    dry_run: DryRunOption = False,
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
    """Generate the model's views of pictures: for each an object folder with grid.png, view_0.png … and meta.json.

    The same command goes on where it was stopped. Of several pictures, those that cannot be used are left out and
    listed, and the exit status is then 2.
    """
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
    sources = object_sources(given_paths(pictures))
    masks = masks_of(sources, background, mask)
    if depth and depth != AUTO:
        check_picture(Path(depth))
    pool = chosen_pool(engine, workers, gpus, device)
    if pool is not None:
        check_alone(len(sources) > 1, dry_run)

    from keyorbit.cli.work.generating import Generating, generate_several
    from keyorbit.cli.work.loading import ModelChoice, use_device
    from keyorbit.cli.work.several import Several, load_all
    from keyorbit.diffusion.control import Control, load_depths
    from keyorbit.diffusion.generation import Sampling, object_folders

    early = len(sources) == 1 and not sources[0].elsewhere
    alone = load_all(sources[0].path, background, masks, recentre)[0] if early else None
    folders = object_folders(out, [source.name for source in sources], num)
    there = sum((folder / "meta.json").is_file() for folder in folders)
    for folder in folders:
        check_output(folder, VIEWS, overwrite or 0 < there < len(folders))  # some are there: what is missing is made
    given = load_depths(Path(depth)) if depth and depth != AUTO else depth
    control = Control(given, normals, control_scale) if depth or normals else None
    how = Generating(Sampling(seed, num, steps, guidance), control, batch, overwrite)
    choice = ModelChoice(model, device, dtype, unet, view_choice, compile, controlnet, deterministic)
    shown_as = cast(Background, background or "auto")
    objects, ranks = Several(sources, masks, shown_as, recentre, batch, strict, alone), Ranks()
    if pool is not None:
        from keyorbit.cli.work.generating_on_ray import generate_on_ray

        problems = generate_on_ray(objects, out, folders, choice, how, pool)
    else:
        on = use_device(device, deterministic)
        ranks = start_ranks(on)  # before the model is loaded: each process has a GPU of its own
        backend = choice.load_zero123plus(on)
        if dry_run:
            told = tell_generation(backend, objects.read(0).framed_image, len(sources), num, steps, out)
            tell_json(json_file, "generate", told)
            return
        with progress(ranks.main) as tick:
            problems = generate_several(objects, folders, backend, how, ranks, tick)
    if len(sources) == 1 and problems:
        raise problems[0]
    if ranks.main:
        made = [str(folder) for folder in folders if folder.is_dir()]
        console.print("\n".join(made), soft_wrap=True, highlight=False)
        left = [str(problem) for problem in problems]
        tell_json(json_file, "generate", {"out": str(out), "folders": made, "left_out": left})
    if problems:
        raise left_out([str(problem) for problem in problems[-PROBLEMS:]], len(problems), len(sources))
