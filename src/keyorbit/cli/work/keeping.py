"""What ``keyorbit evaluate`` keeps of each object, wherever it is detected, and what comes of all of them."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from keyorbit.detection.detector import KeypointDetector
from keyorbit.errors import InputError
from keyorbit.evaluation.choices import EVALUATION, LEFT_OUT, SCORES
from keyorbit.evaluation.evaluate import Evaluation, evaluate_outcomes
from keyorbit.evaluation.outcome import Judgement
from keyorbit.evaluation.parts import Part
from keyorbit.ranks import Ranks
from keyorbit.storage.content import json_of
from keyorbit.storage.files import make_folder, write_json, write_text
from keyorbit.storage.going_on import go_on_with
from keyorbit.storage.outputs import close_output
from keyorbit.values import from_values

log = logging.getLogger(__name__)


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
        with _told(file := self._file(part, number, "safetensors")):
            return Judgement.load(file) if file.is_file() else None

    def problem(self, part: Part, number: int) -> str:
        """Why it was left out. Raises InputError as :meth:`judged`."""
        with _told(file := self._file(part, number, "json")):
            return from_values(_Why, json_of(file), str(file)).problem

    def _file(self, part: Part, number: int, suffix: str) -> Path:
        return self.out / part.name / f"{number:08d}.{suffix}"


@dataclass(frozen=True)
class _Why:
    """What is kept of an object that was left out."""

    problem: str


@contextmanager
def _told(file: Path) -> Iterator[None]:
    """What to do about a kept file that is damaged."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{error}; delete {file}, and the same command measures its object again") from error


# What became of each object, by its part and its number.
Kept = InMemory | InFolder


@dataclass(frozen=True)
class Keeping:
    """How what becomes of objects is kept.

    Attributes:
        out: the folder; None: in memory.
        more: settings on which figures depend, under the names that options have.
        overwrite: replace what is there.
    """

    out: Path | None
    more: Mapping[str, Any]
    overwrite: bool

    def begin(self, parts: Sequence[Part], made: Mapping[str, Any], ranks: Ranks) -> Kept:
        """Begin, or go on with what was stopped; ``made`` is :func:`made_by`.

        Raises:
            InputError: the folder holds something else, or what other objects, tokens, weights or settings gave.
        """
        if self.out is None:
            return InMemory()
        if ranks.main:
            settings = {**{part.name: part.digest for part in parts}, **made, **self.more}
            go_on_with(self.out, EVALUATION, settings, self.overwrite)
            (self.out / LEFT_OUT).unlink(missing_ok=True)
        ranks.wait()
        return InFolder(self.out)


@dataclass(frozen=True)
class Done:
    """What was measured.

    Attributes:
        results: the figures by the names of tokens.
        problems: the objects that were left out.
        counts: how many objects there are, by the names of parts.
    """

    results: Mapping[str, Evaluation]
    problems: Sequence[Problem]
    counts: Mapping[str, int]


def unfinished(parts: Sequence[Part], kept: Kept) -> list[tuple[Part, int]]:
    """Objects of which nothing is kept that could be used, with their numbers in their parts."""
    left = [(part, number) for part in parts for number in range(part.count) if not kept.has(part, number)]
    log.info("objects to measure: %d of %d", len(left), sum(part.count for part in parts))
    return left


def keep(kept: Kept, part: Part, number: int, found: Judgement | InputError, strict: bool) -> None:
    """Keep what became of an object. Raises InputError if it cannot be used and ``strict`` is set."""
    if strict and isinstance(found, InputError):
        raise found
    kept.put(part, number, found)


def measured(names: Sequence[str], parts: Sequence[Part], kept: Kept) -> Done:
    """The figures of all objects, by the names of tokens.

    Raises:
        InputError: none of a part's objects can be used, or a kept file is damaged.
    """
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
    return Done(results, problems, {part.name: part.count for part in parts})


def _problems(parts: Sequence[Part], found: Mapping[str, Sequence[Judgement | None]], kept: Kept) -> Iterator[Problem]:
    for part in parts:
        for number, one in enumerate(found[part.name]):
            if one is None:
                yield Problem(part.name, number, part.named(number), kept.problem(part, number))


def made_by(detectors: Mapping[str, KeypointDetector]) -> dict[str, Any]:
    """What of the tokens and the model figures depend on but for rounding, under the names that options have."""
    backend = next(iter(detectors.values())).backend
    return {
        "tokens": {name: one.fingerprint for name, one in detectors.items()},
        "model": backend.fingerprint,
        "rig": backend.cameras_of,
        "layout": backend.layout.text,
    }


def finish(out: Path, scores: Mapping[str, Any], problems: Sequence[Problem]) -> None:
    """Write the figures, and what was left out, into the folder. Raises InputError where the disk refuses."""
    write_json(out / SCORES, scores)
    if problems:
        write_text(out / LEFT_OUT, "".join(f"{json.dumps(asdict(one))}\n" for one in problems))
    close_output(out, EVALUATION)


def first_problems(problems: Sequence[Problem], count: int) -> list[str]:
    """Why the first of them were left out."""
    return [one.problem for one in islice(problems, count)]
