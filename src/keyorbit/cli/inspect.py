"""``keyorbit inspect``: a model's shapes, memory and cost."""

from pathlib import Path
from typing import Annotated, Any

import typer

from keyorbit.cli.inputs import one_picture
from keyorbit.cli.options import DeviceOption, DtypeOption, LayoutOption, RigOption, check_model_options
from keyorbit.cli.telling import JsonOption, write_told
from keyorbit.cli.terminal import console, errors, progress
from keyorbit.devices import AUTO
from keyorbit.diffusion.choices import ARCHITECTURE_NAMES
from keyorbit.diffusion.paths import check_architecture
from keyorbit.discovery.choices import NUM_TOKENS
from keyorbit.errors import InputError
from keyorbit.storage.files import make_folder, write_text
from keyorbit.storage.outputs import check_file
from keyorbit.values import Count


def inspect_command(
    model: Annotated[str, typer.Option(help=f"tiny, {', '.join(ARCHITECTURE_NAMES)}, a folder, or a Hub id.")] = "tiny",
    tokens: Annotated[int, typer.Option(help="Learnable tokens behind the text."), Count] = NUM_TOKENS,
    json_file: JsonOption = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write the tables here.")] = None,
    measured: Annotated[bool, typer.Option("--measure", help="Run the model: time and peak memory.")] = False,
    drift: Annotated[bool, typer.Option("--drift", help="Generate views: how far the tokens move them.")] = False,
    picture: Annotated[
        Path | None,
        typer.Option(help="Input picture for --drift: a picture, an object, a pattern, or -; default a drawn box."),
    ] = None,
    rig: RigOption = None,
    layout: LayoutOption = None,
    device: DeviceOption = AUTO,
    dtype: DtypeOption = AUTO,
) -> None:
    """Show a model's shapes, memory and cost without and with tokens; reads no weights unless asked to run it."""
    if drift and model in ARCHITECTURE_NAMES:
        raise InputError(f"--drift needs trained weights; {model} is an architecture: give tiny, a folder or a Hub id")
    if json_file and markdown_file and json_file.resolve() == markdown_file.resolve():
        raise InputError(f"--json and --markdown both name {json_file}; give each a file of its own")
    if markdown_file:
        check_file(markdown_file, " text tokens OLD, ")
    view_choice = check_model_options(rig=rig, layout=layout, dtype=dtype)
    check_architecture(model)
    if picture is not None:
        picture = one_picture(picture)

    from keyorbit.cli.work.loading import load_model, quiet_libraries
    from keyorbit.diffusion.inspection.cost import Subject, measure
    from keyorbit.diffusion.inspection.report_text import markdown, show
    from keyorbit.diffusion.inspection.shape_report import inspect_model, with_measurements
    from keyorbit.objects.pictures import load_image

    quiet_libraries()
    image = None if picture is None else load_image(picture)
    report = inspect_model(model, tokens, layout)
    with progress() as tick:
        if measured:
            gigabytes = 4e-9 * report.observation.parameters["unet"]
            if model in ARCHITECTURE_NAMES:
                words = f"random weights: time and memory are right, pictures are not; needs over {gigabytes:.1f} GB"
                errors.print(f"keyorbit: {model} runs with {words}", style="yellow", soft_wrap=True)
            subject = Subject(model, tokens, False, device, dtype, view_choice)
            costs = measure(subject, progress=lambda stage, i, n: tick("measure", i, n, {}))
            report = with_measurements(report, costs=tuple(costs))
        if drift:
            backend = load_model(model, device, dtype, views=view_choice)
            moved = _drift(backend, image, lambda stage, i, n: tick(stage, i, n, {}))
            report = with_measurements(report, report.costs, tuple(moved))
    write_told(json_file, report.to_dict())
    if markdown_file:
        make_folder(markdown_file.parent)
        write_text(markdown_file, markdown(report))
    show(report, console)


def _drift(backend: Any, image: Any, tick: Any) -> Any:
    from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
    from keyorbit.diffusion.inspection.drift import measure_drift

    if not isinstance(backend, Zero123PlusBackend):
        raise InputError(f"--drift works on Zero123++ models; {backend.name} generates no views from a picture")
    return measure_drift(backend, image, progress=tick)
