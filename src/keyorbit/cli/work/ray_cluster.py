"""A Ray cluster that is joined, or started for one command alone."""

import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from keyorbit.cli.engine import INSTALL, Pool
from keyorbit.cli.terminal import bars
from keyorbit.cli.work.on_ray import CPUS, Workers
from keyorbit.errors import InputError, first_line

log = logging.getLogger(__name__)
# Of this machine's memory, for what is on its way between processes: some lines an object.
_STORE = 256 * 2**20
# Seconds: until a cluster answers, and until it has room for the first worker, which an autoscaler may have to start.
_ANSWER, _ROOM = 10, 600


@contextmanager
def ray_workers(pool: Pool) -> Iterator[Workers]:
    """Workers on the cluster that ``RAY_ADDRESS`` names; without it, on one that is started here and ended after.

    Raises:
        InputError: there is no Ray, the cluster does not answer, or has no such workers; or workers died too often.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    joined = address not in ("", "local")
    if joined:
        _check_address(address)
    if not log.isEnabledFor(logging.INFO):  # --verbose tells it all; Ray reads these when it is imported
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    try:
        import ray
        import ray.data
        from ray.exceptions import RayError
    except ImportError as error:
        raise InputError(INSTALL) from error

    _start(address if joined else "local", pool)
    # Ray's own handler ends the process without a word of Python's: so 'ray job stop' does what Ctrl-C does.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield _workers(pool, joined)
    except RayError as error:
        log.info("", exc_info=True)
        raise InputError(
            "workers on Ray died again and again at the same objects, or could not be reached "
            f"({type(error).__name__}); what was finished is kept. Where memory ran out, fewer --workers or a smaller "
            "--batch need less; -v shows what Ray says"
        ) from error
    finally:
        ray.shutdown()  # of a cluster that was joined it only takes leave
        signal.signal(signal.SIGTERM, before)


def _check_address(address: str) -> None:
    """Raise InputError where nothing answers; Ray itself would try for minutes."""
    if "://" in address:
        raise InputError(
            f"RAY_ADDRESS is {address}, of a client from outside: start the command within the cluster, such as with "
            "'ray job submit -- keyorbit …'"
        )
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({error}): it is HOST:6379 of a head node that "
            "'ray start --head' started; without the variable, Ray is started on this machine"
        ) from error


def _start(address: str, pool: Pool) -> None:
    import ray

    told = log.isEnabledFor(logging.INFO)
    options: dict[str, Any] = {"log_to_driver": told, "logging_level": logging.INFO if told else logging.CRITICAL}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody was asked
        options |= {"include_dashboard": False, "object_store_memory": _STORE}
        if pool.least is not None and pool.least * CPUS > (os.cpu_count() or 1):
            options["num_cpus"] = pool.least * CPUS
    began = time.monotonic()
    try:
        with nullcontext() if told else _without_stderr():
            ray.init(address=address, **options)
    except Exception as error:  # of many kinds: a version that differs, no port, no place for its files
        if address == "local":
            raise InputError(f"Ray cannot be started here: {first_line(error)}") from error
        raise InputError(
            f"the Ray cluster at RAY_ADDRESS={address} cannot be joined ({first_line(error)}): its Python and Ray have "
            "to be of the same versions as here, and if it asks for a token, RAY_AUTH_MODE=token has Ray send it"
        ) from error
    _quiet()
    log.info("Ray %s: %s in %.1f s", ray.__version__, address, time.monotonic() - began)


@contextmanager
def _without_stderr() -> Iterator[None]:
    """What Ray's C++ says while it starts goes nowhere, whatever its level; errors come as exceptions."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _quiet() -> None:
    """Ray's own bars and lines; importing ``ray.data`` sets them anew."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if not log.isEnabledFor(logging.INFO):
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def _workers(pool: Pool, joined: bool) -> Workers:
    """The workers that there can be. Waits for a cluster that has no room for any as yet."""
    patience, told = time.monotonic() + (_ROOM if joined else 0), False
    while (fit := _fitting(gpus := _gpus(pool))) < (1 if joined else pool.least or 1):
        cpus, there = _there("CPU"), _there("GPU")
        words = f"{'the Ray cluster' if joined else 'this machine'} has {cpus:g} CPUs and {there:g} GPUs"
        wanted = f"{pool.least or 1} workers of {CPUS} CPU and {gpus:g} GPU each"
        if time.monotonic() >= patience:
            raise InputError(f"{words}, and cannot hold {wanted}: give fewer --workers, or fewer --gpus")
        if not told:
            bars.print(f"{words}: waiting until it can hold {wanted}", highlight=False, soft_wrap=True)
            told = True
        time.sleep(1)
    least = fit if pool.least is None else pool.least
    return Workers(least, pool.most or least, gpus)


def _there(what: str) -> float:
    import ray

    return float(ray.cluster_resources().get(what, 0.0))


def _gpus(pool: Pool) -> float:
    return pool.gpus if pool.gpus is not None else float(_there("GPU") >= 1)


def _fitting(gpus: float) -> int:
    by_cpu = int(_there("CPU") // CPUS)
    return min(by_cpu, int(_there("GPU") / gpus + 1e-6)) if gpus else by_cpu
