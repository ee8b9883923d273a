"""``keyorbit app``: the web app."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from msgspec import Meta

from keyorbit.cli.options import (
    DeviceOption,
    DtypeOption,
    ForceOption,
    LayoutOption,
    RigOption,
    UnetOption,
    check_model_options,
)
from keyorbit.cli.terminal import console
from keyorbit.devices import AUTO
from keyorbit.diffusion.paths import tokens_file

Port = Annotated[int, Meta(ge=0, le=65535)]

# SIGHUP is not known everywhere.
_ENDS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def app_command(
    run: Annotated[Path | None, typer.Argument(help="A run; default tokens for chairs, which come along.")] = None,
    model: Annotated[str | None, typer.Option(help="The model; default the run's own.")] = None,
    host: Annotated[
        str, typer.Option(help="Bind address: 127.0.0.1 serves this machine only, 0.0.0.0 all networks.")
    ] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Default the first free one from 7860."), Port] = None,
    force: ForceOption = False,
    unet: UnetOption = None,
    rig: RigOption = None,
    layout: LayoutOption = None,
    device: DeviceOption = AUTO,
    dtype: DtypeOption = AUTO,
) -> None:
    """Serve the web app: keypoints of a dropped picture, discovery with a preview, attention layer by layer."""
    view_choice = check_model_options(model, unet, rig, layout, dtype)
    if run is not None:
        tokens_file(run)

    from keyorbit.app.interface import gradio, launch
    from keyorbit.app.studio import open_studio
    from keyorbit.cli.loading import quiet_libraries, show_model

    with serving() as scratch:
        gradio()
        quiet_libraries()
        studio = open_studio(run, model, device, dtype, unet, scratch, view_choice, force)
        show_model(studio.backend)
        with launch(studio, host, port) as address:
            wait_for_the_end(address)


@contextmanager
def serving() -> Iterator[Path]:
    """Yield the folder of the app's own files; a signal ends the block, and the folder is removed.

    Gradio is imported within the block.
    """
    with _ended_by_signals(), TemporaryDirectory(prefix="keyorbit_", ignore_cleanup_errors=True) as scratch:
        try:
            # All that Gradio writes goes to the same folder, which it looks up once.
            os.environ["GRADIO_TEMP_DIR"] = scratch
            yield Path(scratch)
        finally:
            for number in _ENDS:  # a second one would leave files behind
                signal.signal(number, signal.SIG_IGN)


def wait_for_the_end(address: str) -> None:
    """Tell where the app is, and wait for the signal that ends it."""
    console.print(f"{address} (Ctrl-C ends it)", markup=False, highlight=False, soft_wrap=True)
    while True:
        time.sleep(3600)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Within the block, SIGTERM and a closed terminal do what Ctrl-C does: they end it, and what it made is removed."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in _ENDS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN or number == signal.SIGINT:  # `nohup` ignores SIGHUP, a shell's & SIGINT
            signal.signal(number, end)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
