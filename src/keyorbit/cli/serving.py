"""How commands serve the app: where its files are, and how a signal ends it."""

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

from keyorbit.cli.terminal import console

Port = Annotated[int, Meta(ge=0, le=65535)]
HostOption = Annotated[
    str, typer.Option(help="Bind address: 127.0.0.1 serves this machine only, 0.0.0.0 all networks.")
]
PortOption = Annotated[int | None, typer.Option(help="Default the first free one from 7860."), Port]


# SIGHUP is not known everywhere.
_ENDS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


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
