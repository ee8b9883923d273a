"""``keyorbit detect --engine ray``: workers detect and write objects' folders, and one process writes the lines."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from keyorbit.cli.detected import Told
from keyorbit.cli.engine import Pool
from keyorbit.cli.terminal import progress
from keyorbit.cli.work.loading import place_words, show_words
from keyorbit.cli.work.on_ray import Workers, check_same, enter, in_goes
from keyorbit.cli.work.ray_cluster import ray_workers
from keyorbit.cli.work.several import Several, meshes_at
from keyorbit.cli.work.turns import (
    ROWS,
    SKELETON_OBJECTS,
    Share,
    Turn,
    Writing,
    attempts,
    finish,
    made_with,
    settings_of,
    speed,
    stopped,
    told_of,
    written,
)
from keyorbit.detection.attempt import Attempt
from keyorbit.detection.detector import KeypointDetector
from keyorbit.detection.many import detect_many
from keyorbit.diffusion.recording import settled_batch
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.output.choices import Edge
from keyorbit.output.results import Part, open_part, part_path
from keyorbit.output.skeleton import co_moving_skeleton
from keyorbit.output.write import skeleton_places
from keyorbit.ranks import Ranks

if TYPE_CHECKING:
    from keyorbit.cli.work.detectors import DetectorChoice


@dataclass(frozen=True)
class Facts:
    """What a worker tells before the work begins.

    Attributes:
        made: what results depend on there: :func:`keyorbit.cli.work.turns.made_with`.
        cameras: the model's.
        batch: objects that go through it together.
        place: in words, where it runs; empty where that needs no word.
    """

    made: Mapping[str, Any]
    cameras: Cameras | None
    batch: int
    place: str


@dataclass(frozen=True)
class Done:
    """What became of some objects.

    Attributes:
        count: how many.
        lines: of the results.
        told: of those that were found, with their numbers, where it is asked for.
        problem: of the first that was left out; empty where none was.
    """

    count: int
    lines: bytes
    told: Sequence[tuple[int, Told]]
    problem: str


@dataclass(frozen=True)
class Place:
    """Where the keypoints of one of the first objects are, from which edges are found.

    Attributes:
        number: of the object.
        xyz: of its keypoints.
        known: which of them are seen.
    """

    number: int
    xyz: torch.Tensor
    known: torch.Tensor


@dataclass(frozen=True)
class _Detecting:
    """What workers are told once.

    Attributes:
        choice: the detector.
        writing: what is written, and where.
        batch: objects that go through the model together; None: what suits the device.
        folder: in which the command was called.
        needed: places that have to be there.
        made: what results depend on, by the first worker that was asked; None for that one.
        edges: of the skeleton; None where they are to be found, and nothing is written.
        few: whether each object is told.
    """

    choice: "DetectorChoice"
    writing: Writing
    batch: int | None
    folder: Path
    needed: tuple[Path, ...]
    made: Mapping[str, Any] | None = None
    edges: Sequence[Edge] | None = None
    few: bool = False

    def begin(self) -> Callable[[Any], Any]:
        enter(self.folder, self.needed)
        detector = self.choice.load(self.choice.model.usable())
        if self.made is None:
            return partial(_facts, detector)
        check_same(made_with(detector), self.made)
        return partial(_places if self.edges is None else _done, detector, self)

    def detect(self, detector: KeypointDetector) -> Callable[..., Iterator[Attempt]]:
        """How many objects are detected."""
        return partial(detect_many, detector, batch=self.batch, least=self.writing.least)


def _facts(detector: KeypointDetector, batch: int | None) -> Facts:
    backend = detector.backend
    cameras = backend.cameras
    if cameras is not None:  # whoever asks may have no such device
        here = (cameras.world_to_camera.cpu(), cameras.intrinsics.cpu())
        cameras = replace(cameras, world_to_camera=here[0], intrinsics=here[1])
    place = place_words("model", backend.device, backend.precision)
    return Facts(made_with(detector), cameras, settled_batch(batch, backend.device), place)


def _places(detector: KeypointDetector, job: _Detecting, turns: Sequence[Turn]) -> list[Place]:
    found = []
    for _, attempt in attempts(turns, job.detect(detector)):
        if attempt.detection is not None:
            xyz, known = skeleton_places(attempt.detection)
            found.append(Place(attempt.number, xyz.cpu(), known.cpu()))
    return found


def _done(detector: KeypointDetector, job: _Detecting, turns: Sequence[Turn]) -> Done:
    lines, shown, problems = BytesIO(), list[tuple[int, Told]](), list[InputError]()
    part = Part(lines, part_path(job.writing.out))
    for turn, attempt in attempts(turns, job.detect(detector)):
        problem = written(turn, attempt, job.writing, job.edges or (), part)
        if problem is not None:
            problems.append(problem)
        elif job.few and (one := told_of(turn, attempt, job.writing)):
            shown.append((turn.number, one))
    return Done(len(turns), lines.getvalue(), shown, str(problems[0]) if problems else "")


def detect_on_ray(
    choice: "DetectorChoice", objects: Several, meshes: Sequence[Path], writing: Writing, pool: Pool
) -> None:
    """What :func:`keyorbit.cli.work.detecting.detect_several` does, by workers of Ray.

    Args:
        choice: the detector. Where workers have no GPU, and the device is left open, it is on the CPU.
        objects: all objects; the last of them are the meshes, which nothing renders as yet.
        meshes: where they are.
        writing: what is written, and where. Where objects have folders of their own, all nodes have to see it.
        pool: the workers.

    Raises:
        InputError: as there, or as :func:`keyorbit.cli.work.ray_cluster.ray_workers`.
    """
    with ray_workers(pool) as workers:
        choice = replace(choice, model=choice.model.on_workers(workers.gpus))
        job = _Detecting(choice, writing, objects.batch, Path.cwd(), objects.needed)
        facts: Facts = workers.ask(job, objects.batch)
        show_words(facts.place)
        objects = replace(objects, meshes=meshes_at(meshes, facts.cameras, objects.up), cameras=facts.cameras)
        if writing.per_object != "none":
            job = replace(job, needed=(*job.needed, writing.out.absolute()))
        job = replace(job, made=facts.made)
        work = partial(_shared, job, workers, facts.batch, objects.strict)
        finish(objects, writing, settings_of(objects, writing, facts.made), work, Ranks())


def _shared(job: _Detecting, workers: Workers, batch: int, strict: bool, share: Share) -> list[Told]:
    """Have the workers do all of it; what to tell of it."""
    shown, count, began, total = dict[int, Told](), 0, time.monotonic(), len(share.turns)
    with progress() as tick, open_part(job.writing.out) as part:
        edges = share.edges if job.writing.edges is None else job.writing.edges
        if edges is None:
            edges = _co_moving(job, workers, batch, [turn for turn in share.turns if turn.number < SKELETON_OBJECTS])
        job = replace(job, edges=edges, few=total <= ROWS)
        done: Done
        for done in workers.results(job, in_goes(share.turns, workers.most, batch)):
            part.append(done.lines)
            if done.problem and strict:
                raise stopped(done.problem)
            shown.update(done.told)
            count += done.count
            tick("detect", count, total, speed(count, began))
    return [shown[number] for number in sorted(shown)]


def _co_moving(job: _Detecting, workers: Workers, batch: int, head: Sequence[Turn]) -> list[Edge]:
    """Edges between keypoints that keep their distance over the first objects, which are detected once more after."""
    found: list[Place] = [one for some in workers.results(job, in_goes(head, workers.most, batch)) for one in some]
    found.sort(key=lambda one: one.number)
    if not found:
        return []
    return co_moving_skeleton(torch.stack([one.xyz for one in found]), torch.stack([one.known for one in found]))
