"""The engine that does a command's work, and its workers; no library is loaded for these."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Literal

import typer

from keyorbit.devices import AUTO
from keyorbit.errors import InputError
from keyorbit.ranks import launched
from keyorbit.values import Share, short

Engine = Literal["ray"]
INSTALL = "--engine ray needs Ray: pip install 'keyorbit[ray]'"
_MOST = 100_000

EngineOption = Annotated[
    str | None,
    typer.Option(
        help="ray: workers of Ray, on the cluster that RAY_ADDRESS names, else on this machine; default: this process."
    ),
    Engine,
]
PoolOption = Annotated[
    str | None,
    typer.Option(
        "--workers", help="With --engine ray: how many, or 1-64: as many as Ray finds use for; default all that fit."
    ),
]
GpusOption = Annotated[
    float | None,
    typer.Option("--gpus", help="With --engine ray: GPUs of each worker, 0 to 1; default 1 if there are any, else 0."),
    Share,
]


@dataclass(frozen=True)
class Pool:
    """The workers that are wanted.

    Attributes:
        least: how many there are at the least; None: as many as fit.
        most: how many there may be; None: as many as ``least``.
        gpus: of each, 0 to 1; None: 1 where there are any, else 0.
    """

    least: int | None = None
    most: int | None = None
    gpus: float | None = None


def chosen_pool(engine: str | None, workers: str | None, gpus: float | None, device: str = AUTO) -> Pool | None:
    """The workers by ``--engine``, ``--workers``, ``--gpus`` and ``--device``; None without an engine.

    Raises:
        InputError: Ray is not installed, or they contradict each other.
    """
    if engine is None:
        if workers is not None or gpus is not None:
            raise InputError("--workers and --gpus are for --engine ray: give it too, or leave them out")
        return None
    least, most = (None, None) if workers is None else _numbers(workers)
    if launched() > 1:
        raise InputError("--engine ray starts workers itself: call it without torchrun, accelerate or mpirun")
    if gpus and device.startswith("cpu"):
        raise InputError("--gpus gives each worker a GPU, and --device cpu uses none: leave one of them out")
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise InputError(INSTALL)
    return Pool(least, most, 0.0 if gpus is None and device.startswith("cpu") else gpus)


def check_alone(several: bool, dry_run: bool = False) -> None:
    """Raise an error where an engine has nothing to share.

    Raises:
        InputError: there is one object, which would have results of another form; or nothing is to be done.
    """
    if not several:
        raise InputError("--engine ray shares several objects among workers: leave it out for one")
    if dry_run:
        raise InputError("--dry-run measures a little of the work here: leave --engine out for it")


def _numbers(text: str) -> tuple[int, int | None]:
    parts = [int(part) if len(part) < 10 and part.isdecimal() else 0 for part in text.split("-")]
    if len(parts) > 2 or not 1 <= parts[0] <= parts[-1] <= _MOST:
        raise InputError(f"--workers is a number such as 4, or two such as 1-64, up to {_MOST:,}; not {short(text)}")
    return parts[0], parts[1] if parts[1:] else None
