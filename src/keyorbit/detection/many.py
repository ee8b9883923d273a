"""Keypoints of any number of objects, read one after the other: what is wrong with one does not stop the others."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from keyorbit.detection.attempt import Attempt, Read
from keyorbit.detection.detector import KeypointDetector
from keyorbit.diffusion.recording import in_batches, settled_batch
from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.emptiness import check_seen


def detect_many(
    detector: KeypointDetector,
    objects: Iterable[tuple[int, Read]],
    batch: int | None = None,
    least: float | None = None,
) -> Iterator[Attempt]:
    """Detect keypoints on each object; ``batch`` objects are in memory at a time, as many as the model sees together.

    Of each batch those that cannot be read come first. What is found on an object depends on no other, but for
    rounding.

    Args:
        detector: which detector.
        objects: each with its number, which is handed on.
        batch: 1 or more. Default 1 on the CPU and 8 elsewhere.
        least: keypoints that are less likely than this at their part are withheld, 0…1. Default None: none is.

    Raises:
        InputError: ``batch`` is below 1.
    """
    for some in in_batches(objects, settled_batch(batch, detector.backend.device)):
        there, problems = read_each(some)
        for number, problem in problems:
            yield Attempt(number, None, None, problem)
        for attempt in _detected(detector, there):
            yield attempt if least is None else _withholding(attempt, least)


def read_each(
    some: Iterable[tuple[int, Read]],
) -> tuple[list[tuple[int, ObjectViews]], list[tuple[int, InputError]]]:
    """Read numbered objects: those that can be used, and what is wrong with the others."""
    there, problems = list[tuple[int, ObjectViews]](), list[tuple[int, InputError]]()
    for number, read in some:
        try:
            thing = read()
            check_seen(thing)
        except InputError as problem:
            problems.append((number, problem))
        else:
            there.append((number, thing))
    return there, problems


def _detected(detector: KeypointDetector, things: Sequence[tuple[int, ObjectViews]]) -> Iterator[Attempt]:
    """Objects that go through the model together; where one of them does not fit it, each alone."""
    if not things:
        return
    try:
        recordings = list(detector.record_each([thing for _, thing in things], len(things)))
    except InputError as problem:
        if len(things) == 1:
            yield Attempt(*things[0], None, problem)
        else:
            for one in things:
                yield from _detected(detector, [one])
        return
    for (number, thing), recording in zip(things, recordings, strict=True):
        try:
            yield Attempt(number, thing, detector.read(recording))
        except InputError as problem:
            yield Attempt(number, thing, None, problem)


def _withholding(attempt: Attempt, least: float) -> Attempt:
    if attempt.detection is None:
        return attempt
    try:
        return replace(attempt, detection=attempt.detection.withholding(least))
    except InputError as problem:
        return replace(attempt, detection=None, problem=problem)
