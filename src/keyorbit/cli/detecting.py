"""What ``keyorbit detect`` does once its arguments are checked: one object, or any number one after the other."""

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from keyorbit.cli.detected import Told, tell, told
from keyorbit.cli.loading import PROBLEMS, Several, left_out
from keyorbit.cli.telling import tell_json
from keyorbit.cli.terminal import Tick, console, progress
from keyorbit.detection.detector import KeypointDetector
from keyorbit.detection.found import Detection
from keyorbit.detection.many import Attempt, detect_many
from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.sources import sources_digest
from keyorbit.output.choices import Edge, PerObject
from keyorbit.output.results import (
    LEFT_OUT,
    RESULTS,
    Part,
    begin_results,
    finish_results,
    finished,
    first_result,
    forget_results,
    is_empty,
    open_part,
    problems,
)
from keyorbit.output.skeleton import co_moving_skeleton
from keyorbit.output.write import (
    detection_dict,
    find_skeleton,
    skeleton_places,
    write_detection,
    write_one_of_several,
)
from keyorbit.ranks import Ranks
from keyorbit.storage.folder_names import folder_names, readable

log = logging.getLogger(__name__)
# The first objects, on which `--skeleton auto` looks for edges: these are in memory together.
SKELETON_OBJECTS = 64
# Rows of the table that is printed; the file of results holds them all.
ROWS = 100


@dataclass(frozen=True)
class Writing:
    """What is written, and where.

    Attributes:
        out: the folder.
        formats: of the files of an object.
        edges: of the skeleton; None: between co-moving keypoints.
        per_object: what is written of each of several objects.
        least: keypoints of less confidence are withheld; None: none is.
        overwrite: replace what is there.
        json_file: where what is told is written as JSON. Default None: nowhere.
    """

    out: Path
    formats: tuple[str, ...]
    edges: Sequence[Edge] | None
    per_object: PerObject
    least: float | None
    overwrite: bool
    json_file: Path | None = None


def detect_one(detector: KeypointDetector, thing: ObjectViews, writing: Writing) -> None:
    """Detect one object, and write what was found into the folder itself.

    Raises:
        InputError: the object does not fit the model, or as :func:`keyorbit.output.write.write_detection`.
    """
    with progress() as tick:
        detection = _withheld(detector.detect_object(thing), writing.least)
        tick("detect", 1, 1, {})
    edges = find_skeleton([detection]) if writing.edges is None else writing.edges
    write_detection(writing.out, detection, writing.formats, edges, writing.overwrite)
    one = told(detection, thing, writing.out, writing.least)
    tell([one])
    _tell_json(writing, None, [one], 1, [])


def detect_several(detector: KeypointDetector, objects: Several, writing: Writing, ranks: Ranks) -> None:
    """Detect this process's share of the objects that are not finished; each is written as soon as it is found.

    Raises:
        InputError: the folder holds results of other objects or settings; the disk refuses; an object cannot be used
            and ``strict`` is set; or in the end, where some were left out.
    """
    names, new = folder_names([source.name for source in objects.sources]), not writing.out.exists()
    if ranks.main:
        begin_results(writing.out, _settings(detector, objects, writing), writing.overwrite)
    ranks.wait()
    done, before = finished(writing.out), first_result(writing.out)
    left = [number for number, name in enumerate(names) if not _is_there(writing, name, number, done)]
    ranks.wait()  # for all to have looked, before any has written
    work = _Work(detector, objects, writing, ranks, names, left[ranks.index :: ranks.count])
    log.info("objects to detect: %d of %d, %d of them here", len(left), len(names), len(work.mine))
    try:
        shown = work.done(before)
    except (Exception, KeyboardInterrupt):
        if ranks.count == 1:
            with suppress(InputError, OSError):  # the disk is full
                # On a full disk not even nothing can be put together.
                if is_empty(writing.out) or not finish_results(writing.out).found:
                    forget_results(writing.out, new)
        raise
    ranks.wait()
    if ranks.main:
        _end(writing, shown, len(names) - len(left), new)


@dataclass
class _Work:
    """What one process does of :func:`detect_several`."""

    detector: KeypointDetector
    objects: Several
    writing: Writing
    ranks: Ranks
    names: Sequence[str]
    mine: Sequence[int]
    count: int = field(default=0, init=False)

    def done(self, before: Mapping[str, Any] | None) -> list[Told]:
        """Detect and write; what to tell of it. ``before`` is an object that was finished earlier."""
        shown: list[Told] = []
        with progress(self.ranks.main) as tick, open_part(self.writing.out, self.ranks.index) as part:
            edges, attempts = self._skeleton(before, tick)
            for attempt in attempts:
                place = self.writing.out / self.names[attempt.number]
                problem = self._written(attempt, place, edges, part)
                if problem is not None and self.objects.strict:
                    raise InputError(f"{problem}; what was finished is kept") from problem
                few = self.ranks.count == 1 and len(self.mine) <= ROWS
                if few and problem is None and attempt.detection is not None and attempt.thing is not None:
                    where = place if self.writing.per_object != "none" else self.writing.out / RESULTS
                    shown.append(told(attempt.detection, attempt.thing, where, self.writing.least))
        return shown

    def _skeleton(self, before: Mapping[str, Any] | None, tick: Tick) -> tuple[Sequence[Edge], Iterator[Attempt]]:
        """The edges, and all attempts. Those of the first objects are made before there are edges to write."""
        began = time.monotonic()
        if self.writing.edges is not None:
            return self.writing.edges, self._attempts(self.mine, tick, began)
        if before is not None:
            return [(first, last) for first, last in before["skeleton"]], self._attempts(self.mine, tick, began)
        head = [number for number in self.mine if number < SKELETON_OBJECTS]
        held = list(self._attempts(head, tick, began))
        return self._co_moving(held), chain(held, self._attempts(self.mine[len(head) :], tick, began))

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

    def _attempts(self, numbers: Sequence[int], tick: Tick, began: float) -> Iterator[Attempt]:
        todo = ((number, lambda number=number: self.objects.read(number)) for number in numbers)
        for attempt in detect_many(self.detector, todo, self.objects.batch):
            self.count += 1
            spent = time.monotonic() - began
            tick("detect", self.count, len(self.mine), {"objects/s": self.count / spent} if spent > 0 else {})
            if attempt.detection is not None:
                try:
                    attempt = replace(attempt, detection=_withheld(attempt.detection, self.writing.least))
                except InputError as problem:
                    attempt = replace(attempt, detection=None, problem=problem)
            yield attempt

    def _written(self, attempt: Attempt, place: Path, edges: Sequence[Edge], part: Part) -> InputError | None:
        """Write an object's folder, then its line, by which it counts as finished; or why there is none."""
        source, problem = self.objects.sources[attempt.number], attempt.problem
        path = readable(os.path.abspath(source.path))
        if attempt.detection is not None:
            try:
                if self.writing.per_object != "none":
                    everything = self.writing.per_object == "all"
                    write_one_of_several(place, attempt.detection, self.writing.formats, edges, everything)
                part.add(attempt.number, {"path": path, **detection_dict(attempt.detection, edges)})
            except InputError as error:
                if isinstance(error.__cause__, OSError):  # the disk's, which the next object has too
                    raise
                problem = error
        if problem is not None:
            part.add(attempt.number, {"path": path, "object": source.name, "problem": readable(str(problem))})
        return problem


def _withheld(detection: Detection, least: float | None) -> Detection:
    return detection if least is None else detection.withholding(least)


def _is_there(writing: Writing, name: str, number: int, done: bytearray) -> bool:
    if number >= len(done) or not done[number]:
        return False
    return writing.per_object == "none" or (writing.out / name).is_dir()


def _settings(detector: KeypointDetector, objects: Several, writing: Writing) -> dict[str, Any]:
    """All that results depend on but for rounding, as JSON keeps it; under the names that options have."""
    backend = detector.backend
    masks = [f"{path}\0{mask}" for path, mask in objects.masks.items()]
    return {
        "objects": sources_digest(objects.sources),
        "tokens": detector.fingerprint,
        "model": backend.fingerprint,
        "rig": backend.cameras_of,
        "layout": backend.layout.text,
        **asdict(detector.config),
        "background": objects.background,
        "recentre": objects.recentre,
        "mask": hashlib.sha256("\n".join(masks).encode(errors="surrogateescape")).hexdigest() if masks else None,
        "up": objects.up if objects.meshes else None,
        "format": list(writing.formats),
        "skeleton": "auto" if writing.edges is None else [list(edge) for edge in writing.edges],
        "per-object": writing.per_object,
        "min-confidence": writing.least,
    }


def _tell_json(
    writing: Writing, results: Path | None, shown: Sequence[Told], found: int, left_out: Sequence[str]
) -> None:
    """What is told as JSON: objects that have a row in the table; ``results`` is the file of all."""
    told_of = {"results": None if results is None else str(results), "found": found, "left_out": list(left_out)}
    rows = [one.to_dict() for one in shown]
    tell_json(writing.json_file, "detect", {"out": str(writing.out), **told_of, "objects": rows})


def _end(writing: Writing, shown: Sequence[Told], earlier: int, new: bool) -> None:
    """Put the results together, and tell of them. Raises InputError where objects were left out."""
    out = writing.out
    done = finish_results(out)
    if shown:
        tell(shown)
    if len(shown) != done.found:
        there = f" ({earlier:,} of them were there already)" if earlier else ""
        text = f"{done.found:,} objects in {readable(str(out / RESULTS))}{there}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    _tell_json(writing, out / RESULTS if done.found else None, shown, done.found, problems(out, done.left_out))
    if not done.left_out:
        return
    few, place = problems(out, PROBLEMS), f"; all are listed in {out / LEFT_OUT}" if done.found else ""
    if not done.found:
        forget_results(out, new)
    raise left_out(few, done.left_out, done.found + done.left_out, place)
