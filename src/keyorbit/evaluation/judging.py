"""What becomes of any number of objects that are measured: read one after the other, detected, and reduced to figures.

What is wrong with one of them does not stop the others.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from keyorbit.detection.attempt import Read
from keyorbit.detection.detector import KeypointDetector
from keyorbit.detection.found import Detection
from keyorbit.detection.many import read_each
from keyorbit.diffusion.recording import in_batches, settled_batch
from keyorbit.errors import InputError
from keyorbit.evaluation.outcome import Judgement
from keyorbit.evaluation.reducing import judgement
from keyorbit.objects.dataset import ObjectViews

Numbered = tuple[int, ObjectViews]


def judge_many(
    detectors: Mapping[str, KeypointDetector], objects: Iterable[tuple[int, Read]], batch: int | None = None
) -> Iterator[tuple[int, Judgement | InputError]]:
    """Detect keypoints on each object with several detectors of one model; yield what is kept of it, or why nothing is.

    Each object is recorded once; for tokens that are the model's whole context, once for each detector. ``batch``
    objects are in memory at a time. What is found on an object depends on no other, but for rounding.

    Args:
        detectors: by the names of their tokens.
        objects: each with its number, which is handed on.
        batch: 1 or more. Default 1 on the CPU and 8 elsewhere.

    Raises:
        InputError: the detectors need different recordings, or ``batch`` is below 1.
    """
    first = next(iter(detectors.values()))
    for some in in_batches(objects, settled_batch(batch, first.backend.device)):
        there, problems = read_each(some)
        yield from problems
        yield from _judged(detectors, there)


def _judged(
    detectors: Mapping[str, KeypointDetector], things: Sequence[Numbered]
) -> Iterator[tuple[int, Judgement | InputError]]:
    """Objects that go through the model together; where one of them does not fit it, each alone."""
    if not things:
        return
    try:
        found = _detected(detectors, [thing for _, thing in things])
    except InputError as problem:
        if len(things) == 1:
            yield things[0][0], problem
        else:
            for one in things:
                yield from _judged(detectors, [one])
        return
    for (number, thing), each in zip(things, found, strict=True):
        yield number, judgement(thing, each)


def _detected(detectors: Mapping[str, KeypointDetector], things: Sequence[ObjectViews]) -> list[dict[str, Detection]]:
    """What each detector finds on each object."""
    found: list[dict[str, Detection]] = [{} for _ in things]
    # Where the model reads the tokens themselves, each detector records for itself.
    alone = any(one.context is not None for one in detectors.values())
    for names in [[name] for name in detectors] if alone else [list(detectors)]:
        recordings = detectors[names[0]].record_each(things, len(things))
        for each, recording in zip(found, recordings, strict=True):
            each |= {name: detectors[name].read(recording) for name in names}
    return found
