"""What ``keyorbit evaluate`` does once its arguments are checked: objects one after the other, shared and kept."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from keyorbit.cli.terminal import progress
from keyorbit.detection.detector import KeypointDetector
from keyorbit.errors import InputError
from keyorbit.evaluation.choices import EVALUATION, LEFT_OUT, SCORES
from keyorbit.evaluation.evaluate import Evaluation, evaluate_outcomes
from keyorbit.evaluation.judging import Part, judge_many
from keyorbit.evaluation.landmarks import check_landmarks
from keyorbit.evaluation.outcome import Judgement
from keyorbit.objects.dataset import ObjectViews
from keyorbit.ranks import Ranks
from keyorbit.storage.content import json_of
from keyorbit.storage.files import make_folder, write_json, write_text
from keyorbit.storage.going_on import go_on_with
from keyorbit.storage.outputs import close_output

log = logging.getLogger(__name__)
# Objects of a part that are read to learn how many landmarks they have, until one can be read.
_TRIED = 20


@dataclass(frozen=True)
class Problem:
    """Why an object was left out: that of ``number`` in the part of that name."""

    part: str
    number: int
    object: str
    problem: str


@dataclass
class InMemory:
    """For one process that is not stopped."""

    found: dict[tuple[str, int], Judgement] = field(default_factory=dict)
    problems: dict[tuple[str, int], str] = field(default_factory=dict)

    def has(self, part: Part, number: int) -> bool:
        """Whether it need not be done again."""
        return (part.name, number) in self.found

    def put(self, part: Part, number: int, found: Judgement | InputError) -> None:
        """Keep what became of it."""
        if isinstance(found, Judgement):
            self.found[part.name, number] = found
        else:
            self.problems[part.name, number] = str(found)

    def judged(self, part: Part, number: int) -> Judgement | None:
        """What became of it; None where it was left out."""
        return self.found.get((part.name, number))

    def problem(self, part: Part, number: int) -> str:
        """Why it was left out."""
        return self.problems[part.name, number]


@dataclass(frozen=True)
class InFolder:
    """A file of each object, which is whole or not there; several processes write them, and a stopped one goes on."""

    out: Path

    def has(self, part: Part, number: int) -> bool:
        """Whether it need not be done again."""
        return self._file(part, number, "safetensors").is_file()

    def put(self, part: Part, number: int, found: Judgement | InputError) -> None:
        """Keep what became of it. Raises InputError where the disk refuses."""
        why = self._file(part, number, "json")
        if isinstance(found, InputError):
            make_folder(why.parent)
            write_json(why, {"problem": str(found)})
        else:
            found.save(self._file(part, number, "safetensors"))
            why.unlink(missing_ok=True)

    def judged(self, part: Part, number: int) -> Judgement | None:
        """What became of it; None where it was left out. Raises InputError for a damaged file."""
        return Judgement.load(self._file(part, number, "safetensors")) if self.has(part, number) else None

    def problem(self, part: Part, number: int) -> str:
        """Why it was left out."""
        return str(json_of(self._file(part, number, "json"))["problem"])

    def _file(self, part: Part, number: int, suffix: str) -> Path:
        return self.out / part.name / f"{number:08d}.{suffix}"


# What became of each object, by its part and its number.
Kept = InMemory | InFolder


@dataclass(frozen=True)
class Done:
    """The figures by the names of tokens, the objects that were left out, and how many there are in all parts."""

    results: Mapping[str, Evaluation]
    problems: Sequence[Problem]
    total: int


def checked(parts: Sequence[Part]) -> list[Part]:
    """The parts, of which an object that does not fit the first one is an error when it is read.

    Raises:
        InputError: the first objects of the parts have different landmarks; none of the first objects can be read; or
            the moved objects are not as many as the others.
    """
    firsts = [_first(part) for part in parts]
    check_landmarks(firsts)
    counts = {part.name: part.count for part in parts}
    if counts.get("moved", counts["objects"]) != counts["objects"]:
        raise InputError("the moved objects are not the same as the others: they need the same names in the same order")
    truth = firsts[0].truth
    wanted = None if truth is None else len(truth.names)

    def reading(part: Part) -> Callable[[int], ObjectViews]:
        def read(number: int) -> ObjectViews:
            thing = part.read(number)
            has = None if thing.truth is None else len(thing.truth.names)
            if wanted is not None and has != wanted:
                raise InputError(
                    f"{thing.name} has {'no ground truth' if has is None else f'{has} landmarks'}, and "
                    f"{firsts[0].name} has {wanted} landmarks; what is measured together has the same ones"
                )
            return thing

        return read

    return [Part(part.name, part.count, reading(part), part.names, part.digest) for part in parts]


def _first(part: Part) -> ObjectViews:
    """The first object that can be read."""
    problem = InputError(f"there are no objects to measure in {part.name}")
    for number in range(min(part.count, _TRIED)):
        try:
            return part.read(number).without_pictures()
        except InputError as error:
            problem = error
    raise problem


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
    left = [(part, number) for part in parts for number in range(part.count) if not kept.has(part, number)]
    ranks.wait()  # for all to have looked, before any has written
    mine = left[ranks.index :: ranks.count]
    log.info("objects to measure: %d of %d, %d of them here", len(left), sum(p.count for p in parts), len(mine))
    began = time.monotonic()
    with progress(ranks.main) as tick:
        todo = ((i, lambda part=part, number=number: part.read(number)) for i, (part, number) in enumerate(mine))
        for done, (i, found) in enumerate(judge_many(detectors, todo, batch)):
            part, number = mine[i]
            if strict and isinstance(found, InputError):
                raise found
            kept.put(part, number, found)
            spent = time.monotonic() - began
            tick("objects", done + 1, len(mine), {"objects/s": (done + 1) / spent} if spent > 0 else {})
    ranks.wait()
    return _measured(list(detectors), parts, kept) if ranks.main else None


def _measured(names: Sequence[str], parts: Sequence[Part], kept: Kept) -> Done:
    found = {part.name: [kept.judged(part, number) for number in range(part.count)] for part in parts}
    problems = list(_problems(parts, found, kept))
    there = {name: [one for one in some if one is not None] for name, some in found.items()}
    for part in parts:
        if not there[part.name]:
            raise InputError(f"none of the {part.count:,} objects can be used: {problems[-1].problem}")
    things = {name: [one.thing for one in some] for name, some in there.items()}
    pairs = zip(found["objects"], found.get("moved", []), strict=False)
    again = [moved for one, moved in pairs if one is not None and moved is not None]
    left_out = tuple(one.object for one in problems if one.part == "objects")
    results = {}
    for name in names:
        outcomes = {part: [one.outcomes[name] for one in some] for part, some in there.items()}
        motion = ([one.outcomes[name] for one in again], [one.thing for one in again]) if "moved" in there else None
        fit = outcomes.get("fit", []), things.get("fit", [])
        result = evaluate_outcomes(outcomes["objects"], things["objects"], *fit, motion)
        results[name] = replace(result, left_out=left_out)
    return Done(results, problems, sum(part.count for part in parts))


def _problems(parts: Sequence[Part], found: Mapping[str, Sequence[Judgement | None]], kept: Kept) -> Iterator[Problem]:
    for part in parts:
        for number, one in enumerate(found[part.name]):
            if one is None:
                yield Problem(part.name, number, part.named(number), kept.problem(part, number))


def settings_of_parts(
    detectors: Mapping[str, KeypointDetector], parts: Sequence[Part], more: Mapping[str, Any]
) -> dict[str, Any]:
    """All that figures depend on but for rounding, as JSON keeps it; under the names that options have."""
    first = next(iter(detectors.values()))
    backend = first.backend
    return {
        **{part.name: part.digest for part in parts},
        "tokens": {name: one.fingerprint for name, one in detectors.items()},
        "model": backend.fingerprint,
        "rig": backend.cameras_of,
        "layout": backend.layout.text,
        **more,
    }


def begin(out: Path, settings: Mapping[str, Any], overwrite: bool) -> None:
    """Begin a folder of what became of objects, or go on with what was stopped there. Raises InputError if not."""
    go_on_with(out, EVALUATION, settings, overwrite)
    (out / LEFT_OUT).unlink(missing_ok=True)


def finish(out: Path, scores: Mapping[str, Any], problems: Sequence[Problem]) -> None:
    """Write the figures, and what was left out, into the folder. Raises InputError where the disk refuses."""
    write_json(out / SCORES, scores)
    if problems:
        write_text(out / LEFT_OUT, "".join(f"{json.dumps(asdict(one))}\n" for one in problems))
    close_output(out, EVALUATION)


def first_problems(problems: Sequence[Problem], count: int) -> list[str]:
    """Why the first of them were left out."""
    return [one.problem for one in islice(problems, count)]
