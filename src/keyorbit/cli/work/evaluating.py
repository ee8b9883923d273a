"""What ``keyorbit evaluate`` does once its arguments are checked: objects one after the other, shared and kept."""

import time
from collections.abc import Mapping, Sequence
from functools import partial

from keyorbit.cli.terminal import progress
from keyorbit.cli.work.keeping import Done, Kept, keep, measured, unfinished
from keyorbit.cli.work.turns import speed
from keyorbit.detection.detector import KeypointDetector
from keyorbit.evaluation.judging import judge_many
from keyorbit.evaluation.parts import Part
from keyorbit.ranks import Ranks


def evaluate_parts(
    detectors: Mapping[str, KeypointDetector],
    parts: Sequence[Part],
    kept: Kept,
    ranks: Ranks,
    batch: int | None,
    strict: bool,
) -> Done | None:
    """Detect on this process's share of the objects that are not kept yet, and in the first process measure all.

    Args:
        detectors: by the names of their tokens.
        parts: the objects, then those that landmarks are fitted on, and the moved ones.
        kept: what became of each object, which all processes share.
        ranks: this process among the others.
        batch: objects that go through the model together; None: what suits the device.
        strict: stop at the first object that cannot be used.

    Raises:
        InputError: an object cannot be used and ``strict`` is set, or none of a part can; or the disk refuses.
    """
    left = unfinished(parts, kept)
    ranks.wait()  # for all to have looked, before any has written
    mine = left[ranks.index :: ranks.count]
    began = time.monotonic()
    with progress(ranks.main) as tick:
        todo = ((i, partial(part.read, number)) for i, (part, number) in enumerate(mine))
        for done, (i, found) in enumerate(judge_many(detectors, todo, batch), 1):
            keep(kept, *mine[i], found, strict)
            tick("objects", done, len(mine), speed(done, began))
    ranks.wait()
    return measured(list(detectors), parts, kept) if ranks.main else None
