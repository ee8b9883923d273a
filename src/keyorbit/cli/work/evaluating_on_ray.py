"""``keyorbit evaluate --engine ray``: workers detect and reduce, and one process keeps what each object gave."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyorbit.cli.engine import Pool
from keyorbit.cli.terminal import progress
from keyorbit.cli.work.keeping import Done, Keeping, keep, made_by, measured, unfinished
from keyorbit.cli.work.loading import place_words, show_words
from keyorbit.cli.work.on_ray import check_same, enter, in_goes
from keyorbit.cli.work.ray_cluster import ray_workers
from keyorbit.cli.work.several import folder_needed
from keyorbit.cli.work.turns import speed
from keyorbit.detection.detector import KeypointDetector
from keyorbit.diffusion.recording import settled_batch
from keyorbit.errors import InputError
from keyorbit.evaluation.judging import judge_many
from keyorbit.evaluation.outcome import Judgement
from keyorbit.evaluation.parts import Part
from keyorbit.ranks import Ranks

if TYPE_CHECKING:
    from keyorbit.cli.work.evaluators import EvaluatorChoice

# An object: the place of its part among all, and its number there.
Numbered = tuple[int, int]


@dataclass(frozen=True)
class Facts:
    """What a worker tells before the work begins.

    Attributes:
        made: what figures depend on there: :func:`keyorbit.cli.work.keeping.made_by`.
        batch: objects that go through the model together.
        place: in words, where it runs; empty where that needs no word.
    """

    made: Mapping[str, Any]
    batch: int
    place: str


@dataclass(frozen=True)
class _Evaluating:
    """What workers are told once.

    Attributes:
        choice: the objects and the detectors.
        batch: objects that go through the model together; None: what suits the device.
        folder: in which the command was called.
        needed: places that have to be there.
        made: what figures depend on, by the first worker that was asked; None for that one.
    """

    choice: "EvaluatorChoice"
    batch: int | None
    folder: Path
    needed: tuple[Path, ...]
    made: Mapping[str, Any] | None = None

    def begin(self) -> Callable[[Any], Any]:
        enter(self.folder, self.needed)
        detectors, parts = self.choice.load(self.choice.model.usable())
        if self.made is None:
            return partial(_facts, detectors)
        check_same(made_by(detectors), self.made)
        return partial(_judged, detectors, parts, self.batch)


def _facts(detectors: Mapping[str, KeypointDetector], batch: int | None) -> Facts:
    backend = next(iter(detectors.values())).backend
    place = place_words("model", backend.device, backend.precision)
    return Facts(made_by(detectors), settled_batch(batch, backend.device), place)


def _judged(
    detectors: Mapping[str, KeypointDetector], parts: Sequence[Part], batch: int | None, some: Sequence[Numbered]
) -> list[tuple[Numbered, Judgement | InputError]]:
    todo = ((i, partial(parts[part].read, number)) for i, (part, number) in enumerate(some))
    return [(some[i], found) for i, found in judge_many(detectors, todo, batch)]


def evaluate_on_ray(
    choice: "EvaluatorChoice",
    keeping: Keeping,
    pool: Pool,
    batch: int | None,
    strict: bool,
) -> Done:
    """What :func:`keyorbit.cli.work.evaluating.evaluate_parts` does, by workers of Ray. This process loads no model.

    Args:
        choice: the objects and the detectors. Where workers have no GPU, and the device is left open, it is on the CPU.
        keeping: how what becomes of objects is kept.
        pool: the workers.
        batch: objects that go through the model together; None: what suits the device.
        strict: stop at the first object that cannot be used.

    Raises:
        InputError: as there, or as :func:`keyorbit.cli.work.ray_cluster.ray_workers`.
    """
    parts = choice.parts(None)
    numbers = {part.name: i for i, part in enumerate(parts)}
    with ray_workers(pool) as workers, progress() as tick:
        choice = replace(choice, model=choice.model.on_workers(workers.gpus))
        job = _Evaluating(choice, batch, Path.cwd(), _needed(choice))
        facts: Facts = workers.ask(job, batch)
        show_words(facts.place)
        kept = keeping.begin(parts, facts.made, Ranks())
        left = [(numbers[part.name], number) for part, number in unfinished(parts, kept)]
        began, done = time.monotonic(), 0
        for some in workers.results(replace(job, made=facts.made), in_goes(left, workers.most, facts.batch)):
            for (part, number), found in some:
                keep(kept, parts[part], number, found, strict)
                done += 1
                tick("objects", done, len(left), speed(done, began))
    return measured(list(facts.made["tokens"]), parts, kept)


def _needed(choice: "EvaluatorChoice") -> tuple[Path, ...]:
    """What all nodes have to see."""
    found = list[Path]()
    for given in choice.given.values():
        paths = [*(source.path for source in given.sources[:1]), *given.meshes[:1]]
        found += [folder_needed(path) for path in paths]
        if given.folder is not None:
            found.append(given.folder.absolute())
    return tuple(place for place in dict.fromkeys(found) if place.is_dir())
