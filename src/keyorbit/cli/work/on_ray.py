"""Jobs on Ray: workers of which each loads what it needs once.

What is sent is pickled, as Ray sends everything; nothing is ever unpickled from a file.
"""

import logging
import os
import pickle
import socket
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from keyorbit.errors import InputError

log = logging.getLogger(__name__)
# How often the objects of one part are begun again where their worker died: an object that kills it must not do so
# for ever.
_RETRIES = 3
# As often workers are started in all, since a node may go with its workers and what they had made.
_ROUNDS = 4
# Of each worker.
CPUS = 1
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
        remote = ray.remote(num_cpus=CPUS, num_gpus=self.gpus, max_calls=1)(_answer)
        return _opened(ray.get(remote.remote(job, pickle.dumps(question))))

    def results(self, job: Job, parts: Sequence[Sequence[Any]]) -> Iterator[Any]:
        """The result of each part, in the order in which they are finished; a worker gets each part as a list.

        A part whose worker died is done again by another one, up to three times. Where a node is gone with what it had,
        workers are started anew for the parts that are left, up to three times, too.

        Raises:
            InputError: as :meth:`ask`.
        """
        left = {number: pickle.dumps(list(part)) for number, part in enumerate(parts)}
        for again in range(_ROUNDS):
            try:
                for number, made in self.round(job, left):
                    del left[number]
                    yield _opened(made)
                return
            except _node_is_gone() as error:
                if again == _ROUNDS - 1:
                    raise
                log.info("%s: %d parts are begun anew", type(error).__name__, len(left))

    def round(self, job: Job, parts: Mapping[int, bytes]) -> Iterator[tuple[int, bytes]]:
        """What some workers make of parts, by their numbers; once they are gone, so are these."""
        if not parts:
            return
        import pyarrow
        import ray.data

        kinds = {"number": pyarrow.int64(), "sent": pyarrow.binary()}
        blocks = [
            pyarrow.table(
                {name: pyarrow.array([one], kind) for (name, kind), one in zip(kinds.items(), part, strict=True)}
            )
            for part in parts.items()
        ]
        found = ray.data.from_arrow(blocks).map_batches(
            _Worker,
            fn_constructor_args=(job,),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=min(self.least, len(parts)), max_size=min(self.most, len(parts))
            ),
            num_cpus=CPUS,
            num_gpus=self.gpus,
            ray_remote_args_fn=_remote_options,
        )
        for batch in found.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from zip(batch["number"].to_pylist(), batch["made"].to_pylist(), strict=True)


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


def check_same(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Whether what results depend on is here, in a worker, as it was on the node that was asked first.

    Raises:
        InputError: it is not.
    """
    if other := ", ".join(name for name in made if made[name] != wanted.get(name)):
        raise InputError(
            f"on {socket.gethostname()}, a node of the Ray cluster, {other} is another than on the node that was "
            "asked first: all nodes need the same files and the same keyorbit"
        )


def in_goes(things: Sequence[T], workers: int, batch: int) -> list[Sequence[T]]:
    """Things in parts of whole batches, of which each worker has several, so that they end together."""
    size = max(1, min(_TOGETHER, len(things) // (workers * _GOES)) // batch) * batch
    return [things[first : first + size] for first in range(0, len(things), size)]


def _node_is_gone() -> tuple[type[Exception], ...]:
    """What Ray raises where a node went: it gives up a part once it was refused a few times within seconds."""
    from ray.exceptions import ActorUnavailableError, NodeDiedError, ObjectLostError

    return ActorUnavailableError, NodeDiedError, ObjectLostError


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
        return pyarrow.table({"number": batch["number"], "made": pyarrow.array(made, pyarrow.binary())})

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
