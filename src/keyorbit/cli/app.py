"""``keyorbit app``: the web app."""

from pathlib import Path
from typing import Annotated

import typer

from keyorbit.cli.options import (
    DeviceOption,
    DtypeOption,
    ForceOption,
    LayoutOption,
    RigOption,
    UnetOption,
    check_model_options,
)
from keyorbit.cli.serving import HostOption, PortOption, serving, wait_for_the_end
from keyorbit.devices import AUTO
from keyorbit.diffusion.paths import tokens_file


def app_command(
    run: Annotated[
        Path | None, typer.Argument(help="A run; default the tokens of four kinds, which come along.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model; default the run's own.")] = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = None,
    force: ForceOption = False,
    unet: UnetOption = None,
    rig: RigOption = None,
    layout: LayoutOption = None,
    device: DeviceOption = AUTO,
    dtype: DtypeOption = AUTO,
) -> None:
    """Serve the web app: keypoints of a dropped picture, points of your own, discovery, attention maps."""
    view_choice = check_model_options(model, unet, rig, layout, dtype)
    if run is not None:
        tokens_file(run)

    from keyorbit.app.interface import launch
    from keyorbit.app.parts import gradio
    from keyorbit.app.studio import open_studio
    from keyorbit.cli.work.loading import quiet_libraries, show_model

    with serving() as scratch:
        gradio()
        quiet_libraries()
        studio = open_studio(run, model, device, dtype, unet, scratch, view_choice, force)
        show_model(studio.backend)
        with launch(studio, host, port) as address:
            wait_for_the_end(address)
