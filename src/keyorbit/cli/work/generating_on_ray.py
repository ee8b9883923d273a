"""``keyorbit generate --engine ray``: workers generate and write, and one process tells what came of it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from keyorbit.cli.engine import Pool
from keyorbit.cli.terminal import progress
from keyorbit.cli.work.generating import Generating, Wanted, generated, told, wanted
from keyorbit.cli.work.loading import ModelChoice, place_words, show_words
from keyorbit.cli.work.on_ray import check_same, enter, in_goes
from keyorbit.cli.work.ray_cluster import ray_workers
from keyorbit.cli.work.several import Several
from keyorbit.cli.work.turns import speed
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.recording import settled_batch
from keyorbit.errors import InputError
from keyorbit.storage.files import folder_for


@dataclass(frozen=True)
class Facts:
    """What a worker tells before the work begins.

    Attributes:
        fingerprint: the model's.
        batch: sets of views that go through it together.
        place: in words, where it runs; empty where that needs no word.
    """

    fingerprint: str
    batch: int
    place: str


@dataclass(frozen=True)
class Done:
    """What became of some objects.

    Attributes:
        count: how many.
        told: lines about them.
        problems: why some were left out.
    """

    count: int
    told: Sequence[str]
    problems: Sequence[InputError]


@dataclass(frozen=True)
class _Generating:
    """What workers are told once.

    Attributes:
        model: which.
        how: views are generated.
        folder: in which the command was called.
        needed: places that have to be there.
        fingerprint: the model's, by the first worker that was asked; empty for that one.
    """

    model: ModelChoice
    how: Generating
    folder: Path
    needed: tuple[Path, ...]
    fingerprint: str = ""

    def begin(self) -> Callable[[Any], Any]:
        enter(self.folder, self.needed)
        backend = self.model.load_zero123plus()
        if not self.fingerprint:
            return partial(_facts, backend)
        check_same({"model": backend.fingerprint}, {"model": self.fingerprint})
        return partial(_done, backend, self.how)


def _facts(backend: Zero123PlusBackend, batch: int | None) -> Facts:
    place = place_words("model", backend.device, backend.precision)
    return Facts(backend.fingerprint, settled_batch(batch, backend.device), place)


def _done(backend: Zero123PlusBackend, how: Generating, some: Sequence[Wanted]) -> Done:
    lines = list[str]()
    problems = list(generated(some, backend, how, lines.append))
    return Done(len(some), lines, problems)


def generate_on_ray(
    objects: Several, out: Path, folders: Sequence[Path], model: ModelChoice, how: Generating, pool: Pool
) -> list[InputError]:
    """What :func:`keyorbit.cli.work.generating.generate_several` does, by workers of Ray.

    All of them have to see ``out``.

    Raises:
        InputError: as there, or as :func:`keyorbit.cli.work.ray_cluster.ray_workers`.
    """
    problems, count, began = list[InputError](), 0, time.monotonic()
    with folder_for(out), ray_workers(pool) as workers, progress() as tick:
        job = _Generating(model.on_workers(workers.gpus), how, Path.cwd(), (*objects.needed, out.absolute()))
        facts: Facts = workers.ask(job, how.batch)
        show_words(facts.place)
        left = wanted(objects, folders, how, facts.fingerprint)
        parts = in_goes(left, workers.most, max(1, facts.batch // how.sampling.sets))
        done: Done
        for done in workers.results(replace(job, fingerprint=facts.fingerprint), parts):
            for line in done.told:
                told(line)
            if done.problems and objects.strict:
                raise done.problems[0]
            problems += done.problems
            count += done.count
            tick("generate", count, len(left), speed(count, began))
    return problems
