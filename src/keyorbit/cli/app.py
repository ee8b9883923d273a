"""``keyorbit app``: the web app."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from msgspec import Meta

from keyorbit.cli.options import CamerasOption, DeviceOption, DtypeOption, UnetOption, check_model_options
from keyorbit.cli.terminal import console
from keyorbit.devices import AUTO
from keyorbit.diffusion.paths import tokens_file

Port = Annotated[int, Meta(ge=0, le=65535)]


def app_command(
    run: Annotated[Path | None, typer.Argument(help="A run; default tokens for chairs, which come along.")] = None,
    model: Annotated[str | None, typer.Option(help="The model; default the run's own.")] = None,
    host: Annotated[
        str, typer.Option(help="Bind address: 127.0.0.1 serves this machine only, 0.0.0.0 all networks.")
    ] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Default the first free one from 7860."), Port] = None,
    unet: UnetOption = None,
    cameras_of: CamerasOption = None,
    device: DeviceOption = AUTO,
    dtype: DtypeOption = AUTO,
) -> None:
    """Serve the web app: keypoints of a dropped picture, discovery with a preview, attention layer by layer."""
    check_model_options(model, unet, cameras_of, dtype)
    if run is not None:
        tokens_file(run)

    from keyorbit.app.interface import gradio, launch
    from keyorbit.app.studio import open_studio
    from keyorbit.cli.loading import quiet_libraries, show_model

    gradio()
    quiet_libraries()
    with TemporaryDirectory(prefix="keyorbit_") as scratch:
        studio = open_studio(run, model, device, dtype, unet, Path(scratch), cameras_of)
        show_model(studio.backend)
        served = launch(studio, host, port, block=False)
        console.print(f"{served.local_url} (Ctrl-C ends it)", markup=False, highlight=False, soft_wrap=True)
        served.block_thread()
