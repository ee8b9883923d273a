"""``keyorbit generate``: a picture's views, as objects that the other commands read."""

from pathlib import Path
from typing import Annotated

import typer

from keyorbit.cli.options import (
    BatchOption,
    CamerasOption,
    CompileOption,
    DeterministicOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    OverwriteOption,
    UnetOption,
    check_model_options,
)
from keyorbit.cli.terminal import console, progress
from keyorbit.devices import AUTO
from keyorbit.diffusion.choices import GUIDANCE, STEPS, Guidance, SamplingSteps
from keyorbit.errors import InputError
from keyorbit.objects.paths import object_paths
from keyorbit.storage.outputs import OBJECT, check_output
from keyorbit.values import Count, Seed


def generate_command(
    pictures: Annotated[
        list[Path],
        typer.Argument(help="Pictures, folders of them, or objects, of which the input picture is used."),
    ],
    out: Annotated[Path, typer.Option(help="A folder; for each set of views one is made in it.")],
    model: ModelOption = "tiny",
    num: Annotated[int, typer.Option(help="Sets of views of each picture, each from the next seed."), Count] = 1,
    seed: Annotated[int, typer.Option(help="Of the noise; with the same, detect sees the same views."), Seed] = 0,
    steps: Annotated[int, typer.Option(help="Denoising steps."), SamplingSteps] = STEPS,
    guidance: Annotated[
        float, typer.Option(help="Classifier-free guidance: how closely the picture is followed; 1: none."), Guidance
    ] = GUIDANCE,
    batch: BatchOption = None,
    compile: CompileOption = False,
    overwrite: OverwriteOption = False,
    unet: UnetOption = None,
    cameras_of: CamerasOption = None,
    device: DeviceOption = AUTO,
    dtype: DtypeOption = AUTO,
    deterministic: DeterministicOption = False,
) -> None:
    """Generate the model's views of pictures: for each an object folder with grid.png, view_0.png … and meta.json."""
    check_model_options(model, unet, cameras_of, dtype)
    for path in pictures:
        object_paths(path)

    from keyorbit.cli.loading import load_all, load_model, use_device
    from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
    from keyorbit.diffusion.generation import Sampling, generate_objects, object_folders

    things = [thing for path in pictures for thing in load_all(path)]
    folders = object_folders(out, things, num)
    for folder in folders:
        check_output(folder, OBJECT, overwrite)
    backend = load_model(model, use_device(device, deterministic), dtype, unet, cameras_of, compile)
    if not isinstance(backend, Zero123PlusBackend):
        raise InputError(f"{model} is a model of a single view, which generates none: give a Zero123++ model")
    with progress() as tick:
        how = Sampling(seed, num, steps, guidance)
        generate_objects(folders, things, backend, how, batch, lambda i, n: tick("generate", i, n, {}), overwrite)
    console.print("\n".join(str(folder) for folder in folders), soft_wrap=True, highlight=False)
