"""Jobs on Ray: workers of which each loads what it needs once, on a cluster that is joined, or started for the job.

What is sent is pickled, as Ray sends everything; nothing is ever unpickled from a file.
"""

import logging
import os
import pickle
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from keyorbit.cli.engine import INSTALL, Pool
from keyorbit.cli.terminal import bars
from keyorbit.errors import InputError, first_line

log = logging.getLogger(__name__)
# Of this machine's memory, for what is on its way between processes: some lines an object.
_STORE = 256 * 2**20
# How often the objects of one part are begun again where their worker died: an object that kills it must not do so
# for ever.
_RETRIES = 3
# Seconds: until a cluster answers, and until it has room for the first worker, which an autoscaler may have to start.
_ANSWER, _ROOM = 10, 600
_CPUS = 1
# Objects that a worker does in one go, at the most: as many are begun again where it dies. And how many goes there are
# for each worker, at the least, so that they end together.
_TOGETHER, _GOES = 64, 16
T = TypeVar("T")


@runtime_checkable
class Job(Protocol):
    """What a worker is to do. It is pickled: what it loads, it loads in :meth:`begin`."""

    def begin(self) -> Callable[[Any], Any]:
        """Load what is needed; what then makes a part's result of each part."""
        ...


@dataclass(frozen=True)
class Workers:
    """Workers of a cluster.

    Attributes:
        least: how many there are at the least.
        most: how many there may be.
        gpus: of each.
    """

    least: int
    most: int
    gpus: float

    def ask(self, job: Job, question: Any) -> Any:
        """One answer of one worker, which ends with it and gives back its memory.

        Raises:
            InputError: the worker says so, or ended without an answer. Any other error is the worker's own.
        """
        import ray

        # A new process for each call: with the model in it, an idle one would hold its memory for as long as the job.
        remote = ray.remote(num_cpus=_CPUS, num_gpus=self.gpus, max_calls=1)(_answer)
        return _opened(ray.get(remote.remote(job, pickle.dumps(question))))

    def results(self, job: Job, parts: Sequence[Any]) -> Iterator[Any]:
        """The result of each part, in the order in which they are finished.

        A part whose worker died is done again by another one, up to three times.

        Raises:
            InputError: as :meth:`ask`.
        """
        if not parts:
            return
        import pyarrow
        import ray.data

        _quiet()
        blocks = [pyarrow.table({"sent": pyarrow.array([pickle.dumps(part)], pyarrow.binary())}) for part in parts]
        found = ray.data.from_arrow(blocks).map_batches(
            _Worker,
            fn_constructor_args=(job,),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=min(self.least, len(parts)), max_size=min(self.most, len(parts))
            ),
            num_cpus=_CPUS,
            num_gpus=self.gpus,
            ray_remote_args_fn=_remote_options,
        )
        for batch in found.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for result in batch["made"]:
                yield _opened(result.as_py())


def enter(folder: Path, needed: Sequence[Path]) -> None:
    """Begin in a worker: go to the folder in which the command was called, so that relative paths mean the same.

    Raises:
        InputError: a place that all have to see is not there.
    """
    with suppress(OSError):  # where all is elsewhere, no node needs it
        os.chdir(folder)
    for place in needed:
        if not place.exists():
            raise InputError(
                f"{place} is not there on {socket.gethostname()}, a node of the Ray cluster: put it on a disk that all "
                "nodes share, under the same path"
            )


def in_goes(things: Sequence[T], workers: int, batch: int) -> list[list[T]]:
    """Things in parts of whole batches, of which each worker has several, so that they end together."""
    size = max(1, min(_TOGETHER, len(things) // (workers * _GOES)) // batch) * batch
    return [list(things[first : first + size]) for first in range(0, len(things), size)]


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
        if pool.least is not None and pool.least * _CPUS > (os.cpu_count() or 1):
            options["num_cpus"] = pool.least * _CPUS
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
        wanted = f"{pool.least or 1} workers of {_CPUS} CPU and {gpus:g} GPU each"
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
    by_cpu = int(_there("CPU") // _CPUS)
    return min(by_cpu, int(_there("GPU") / gpus + 1e-6)) if gpus else by_cpu


def _remote_options() -> dict[str, Any]:
    """What a worker that died may cost: it is started again, and its part is begun again so often."""
    return {"max_restarts": -1, "max_task_retries": _RETRIES}


class _Worker:
    """A process of Ray's that does parts. What goes wrong is a result, too: Ray would begin it again."""

    def __init__(self, job: Job) -> None:
        self.work: Callable[[Any], Any] | None = None
        self.failed = b""
        try:
            self.work = job.begin()
        except Exception as error:
            self.failed = _failed(error)

    def __call__(self, batch: Any) -> Any:
        import pyarrow

        made = [self._made(sent.as_py()) for sent in batch["sent"]]
        return pyarrow.table({"made": pyarrow.array(made, pyarrow.binary())})

    def _made(self, sent: bytes) -> bytes:
        if self.work is None:
            return self.failed
        try:
            return pickle.dumps((True, self.work(pickle.loads(sent))))
        except Exception as error:
            return _failed(error)


def _answer(job: Job, question: bytes) -> bytes:
    return _Worker(job)._made(question)


def _failed(error: Exception) -> bytes:
    where = "".join(traceback.format_exception(error))
    try:
        pickle.loads(sent := pickle.dumps((False, error)))
    except Exception:  # an exception of a library that cannot be sent
        return pickle.dumps((False, RuntimeError(where)))
    if isinstance(error, InputError):
        return sent
    error.add_note(f"in a worker on Ray:\n{where}")
    return pickle.dumps((False, error))


def _opened(made: bytes) -> Any:
    good, result = pickle.loads(made)
    if good:
        return result
    raise result
