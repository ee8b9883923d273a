"""What ``keyorbit detect`` does once its arguments are checked: one object, or any number one after the other."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import torch

from keyorbit.cli.detected import Told, tell, told
from keyorbit.cli.terminal import Tick, progress
from keyorbit.cli.work.several import Several
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
    tell_rows,
    told_of,
    written,
)
from keyorbit.detection.attempt import Attempt
from keyorbit.detection.detector import KeypointDetector
from keyorbit.detection.many import detect_many
from keyorbit.objects.dataset import ObjectViews
from keyorbit.output.choices import Edge
from keyorbit.output.results import open_part
from keyorbit.output.skeleton import co_moving_skeleton
from keyorbit.output.write import find_skeleton, skeleton_places, write_detection
from keyorbit.ranks import Ranks


def detect_one(detector: KeypointDetector, thing: ObjectViews, writing: Writing) -> None:
    """Detect one object, and write what was found into the folder itself.

    Raises:
        InputError: the object does not fit the model, or as :func:`keyorbit.output.write.write_detection`.
    """
    with progress() as tick:
        detection = detector.detect_object(thing)
        if writing.least is not None:
            detection = detection.withholding(writing.least)
        tick("detect", 1, 1, {})
    edges = find_skeleton([detection]) if writing.edges is None else writing.edges
    write_detection(writing.out, detection, writing.formats, edges, writing.overwrite)
    one = told(detection, thing, writing.out, writing.least)
    tell([one])
    tell_rows(writing, None, [one], 1, [])


def detect_several(detector: KeypointDetector, objects: Several, writing: Writing, ranks: Ranks) -> None:
    """Detect this process's share of the objects that are not finished; each is written as soon as it is found.

    Raises:
        InputError: the folder holds results of other objects or settings; the disk refuses; an object cannot be used
            and ``strict`` is set; or in the end, where some were left out.
    """
    settings = settings_of(objects, writing, made_with(detector))
    finish(objects, writing, settings, lambda share: _Work(detector, objects, writing, ranks, share).done(), ranks)


@dataclass
class _Work:
    """What one process does of :func:`detect_several`."""

    detector: KeypointDetector
    objects: Several
    writing: Writing
    ranks: Ranks
    share: Share
    count: int = field(default=0, init=False)

    def done(self) -> list[Told]:
        """Detect and write; what to tell of it."""
        shown, few = list[Told](), self.ranks.count == 1 and len(self.share.turns) <= ROWS
        with progress(self.ranks.main) as tick, open_part(self.writing.out, self.ranks.index) as part:
            edges, found = self._skeleton(tick)
            for turn, attempt in found:
                problem = written(turn, attempt, self.writing, edges, part)
                if problem is not None and self.objects.strict:
                    raise stopped(problem) from problem
                if few and problem is None and (one := told_of(turn, attempt, self.writing)):
                    shown.append(one)
        return shown

    def _skeleton(self, tick: Tick) -> tuple[Sequence[Edge], Iterator[tuple[Turn, Attempt]]]:
        """The edges, and all attempts. Those of the first objects are made before there are edges to write."""
        began, turns = time.monotonic(), self.share.turns
        edges = self.share.edges if self.writing.edges is None else self.writing.edges
        if edges is not None:
            return edges, self._attempts(turns, tick, began)
        head = [turn for turn in turns if turn.number < SKELETON_OBJECTS]
        held = list(self._attempts(head, tick, began))
        return self._co_moving([attempt for _, attempt in held]), chain(
            held, self._attempts(turns[len(head) :], tick, began)
        )

    def _co_moving(self, attempts: Sequence[Attempt]) -> list[Edge]:
        """Edges between keypoints that keep their distance over the first objects of all processes."""
        device = self.detector.backend.device
        keypoints, space = len(self.detector.tokens), 3 if self.detector.backend.layout.num_views > 1 else 2
        places = torch.zeros(SKELETON_OBJECTS, keypoints, space, device=device)
        seen, there = (torch.zeros(SKELETON_OBJECTS, keypoints, device=device) for _ in range(2))
        for one in attempts:
            if one.detection is not None:
                xyz, known = skeleton_places(one.detection)
                places[one.number], seen[one.number], there[one.number] = xyz.to(places), known.to(seen), 1.0
        places, seen, there = (self.ranks.sum(x) for x in (places, seen, there))
        some = there[:, 0] > 0
        return co_moving_skeleton(places[some], seen[some] > 0) if bool(some.any()) else []

    def _attempts(self, turns: Sequence[Turn], tick: Tick, began: float) -> Iterator[tuple[Turn, Attempt]]:
        detect = partial(detect_many, self.detector, batch=self.objects.batch, least=self.writing.least)
        for pair in attempts(turns, detect):
            self.count += 1
            tick("detect", self.count, len(self.share.turns), speed(self.count, began))
            yield pair
