"""Any number of objects of ``keyorbit detect``, wherever they are detected: whose turn it is, and what is written."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from keyorbit.cli.detected import Told, tell, told
from keyorbit.cli.telling import tell_json
from keyorbit.cli.terminal import PROBLEMS, console, left_out
from keyorbit.cli.work.several import Several
from keyorbit.detection.attempt import Attempt, Read
from keyorbit.errors import InputError
from keyorbit.objects.sources import ObjectSource, sources_digest
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
    problems,
)
from keyorbit.output.write import detection_dict, write_one_of_several
from keyorbit.ranks import Ranks
from keyorbit.storage.folder_names import folder_names, readable

if TYPE_CHECKING:
    from keyorbit.detection.detector import KeypointDetector

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


@dataclass(frozen=True)
class Turn:
    """An object when it is its turn, here or in a process elsewhere: it can be pickled without the others.

    Attributes:
        number: of the object among all.
        source: where it is.
        folder: the name of its folder.
        read: what reads it.
    """

    number: int
    source: ObjectSource
    folder: str
    read: Read


@dataclass(frozen=True)
class Turns(Sequence[Turn]):
    """The turns of objects, each made when it is asked for: of a million they would be gigabytes.

    Attributes:
        objects: all.
        folders: their names.
        numbers: of those whose turns these are.
    """

    objects: Several
    folders: Sequence[str]
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Turn: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Turn]: ...
    def __getitem__(self, index: int | slice) -> Turn | Sequence[Turn]:
        if isinstance(index, slice):
            return Turns(self.objects, self.folders, self.numbers[index])
        number = self.numbers[index]
        return Turn(number, self.objects.sources[number], self.folders[number], self.objects.reader(number))


@dataclass(frozen=True)
class Share:
    """What one process is to do.

    Attributes:
        turns: of the objects that are not finished, those that are its own.
        before: an object that was finished earlier, as its line tells it; None where there is none.
    """

    turns: Sequence[Turn]
    before: Mapping[str, Any] | None

    @property
    def edges(self) -> list[Edge] | None:
        """The skeleton's, where an object that was finished earlier has them; None where none was."""
        return None if self.before is None else [(first, last) for first, last in self.before["skeleton"]]


def finish(
    objects: Several,
    writing: Writing,
    settings: Mapping[str, Any],
    work: Callable[[Share], list[Told]],
    ranks: Ranks,
) -> None:
    """Begin or go on, have ``work`` do what is not finished, which returns what to tell of it, and put all together.

    Raises:
        InputError: as :func:`detect_several`.
    """
    names, new = folder_names([source.name for source in objects.sources]), not writing.out.exists()
    if ranks.main:
        begin_results(writing.out, settings, writing.overwrite)
    ranks.wait()
    done, before = finished(writing.out), first_result(writing.out)
    left = [number for number, name in enumerate(names) if not _is_there(writing, name, number, done)]
    ranks.wait()  # for all to have looked, before any has written
    mine = _share(objects, left, writing, ranks)
    log.info("objects to detect: %d of %d, %d of them here", len(left), len(names), len(mine))
    try:
        shown = work(Share(Turns(objects, names, mine), before))
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


def _share(objects: Several, left: Sequence[int], writing: Writing, ranks: Ranks) -> list[int]:
    """This process's share. The first objects, on which all wait where edges are looked for, go round."""
    head = [number for number in left if writing.edges is None and number < SKELETON_OBJECTS]
    return [*head[ranks.index :: ranks.count], *objects.share(left[len(head) :], ranks)]


def attempts(
    turns: Iterable[Turn], detect: Callable[[Iterable[tuple[int, Read]]], Iterator[Attempt]]
) -> Iterator[tuple[Turn, Attempt]]:
    """What becomes of each object by ``detect``, which has few of them in memory."""
    waiting: dict[int, Turn] = {}

    def todo() -> Iterator[tuple[int, Read]]:
        for turn in turns:
            waiting[turn.number] = turn
            yield turn.number, turn.read

    for attempt in detect(todo()):
        yield waiting.pop(attempt.number), attempt


def written(turn: Turn, attempt: Attempt, writing: Writing, edges: Sequence[Edge], part: Part) -> InputError | None:
    """Write an object's folder, then its line, by which it counts as finished; or why there is none.

    Raises:
        InputError: the disk refuses.
    """
    source, problem = turn.source, attempt.problem
    path = readable(source.where)
    if attempt.detection is not None:
        try:
            if writing.per_object != "none":
                everything = writing.per_object == "all"
                write_one_of_several(writing.out / turn.folder, attempt.detection, writing.formats, edges, everything)
            part.add(attempt.number, {"path": path, **detection_dict(attempt.detection, edges)})
        except InputError as error:
            if isinstance(error.__cause__, OSError):  # the disk's, which the next object has too
                raise
            problem = error
    if problem is not None:
        part.add(attempt.number, {"path": path, "object": source.name, "problem": readable(str(problem))})
    return problem


def told_of(turn: Turn, attempt: Attempt, writing: Writing) -> Told | None:
    """What is told of an object; None where nothing was found."""
    if attempt.detection is None or attempt.thing is None:
        return None
    where = writing.out / (turn.folder if writing.per_object != "none" else RESULTS)
    return told(attempt.detection, attempt.thing, where, writing.least)


def stopped(problem: object) -> InputError:
    """The end at the first object that cannot be used."""
    return InputError(f"{problem}; what was finished is kept")


def speed(count: int, began: float) -> dict[str, float]:
    """Objects a second, as progress shows them."""
    spent = time.monotonic() - began
    return {"objects/s": count / spent} if spent > 0 else {}


def _is_there(writing: Writing, name: str, number: int, done: bytearray) -> bool:
    if number >= len(done) or not done[number]:
        return False
    return writing.per_object == "none" or (writing.out / name).is_dir()


def made_with(detector: "KeypointDetector") -> dict[str, Any]:
    """What of the tokens, the model and the settings results depend on, under the names that options have."""
    backend = detector.backend
    return {
        "tokens": detector.fingerprint,
        "model": backend.fingerprint,
        "rig": backend.cameras_of,
        "layout": backend.layout.text,
        **asdict(detector.config),
    }


def settings_of(objects: Several, writing: Writing, made: Mapping[str, Any]) -> dict[str, Any]:
    """All that results depend on but for rounding, as JSON keeps it; ``made`` is :func:`made_with`."""
    masks = [f"{path}\0{mask}" for path, mask in objects.masks.items()]
    return {
        "objects": sources_digest(objects.sources),
        **made,
        "background": objects.background,
        "recentre": objects.recentre,
        "mask": hashlib.sha256("\n".join(masks).encode(errors="surrogateescape")).hexdigest() if masks else None,
        "up": objects.up if objects.meshes else None,
        "format": list(writing.formats),
        "skeleton": "auto" if writing.edges is None else [list(edge) for edge in writing.edges],
        "per-object": writing.per_object,
        "min-confidence": writing.least,
    }


def tell_rows(
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
    # All of them are read only where JSON tells them: of a million they would be gigabytes.
    some = problems(out, done.left_out if writing.json_file is not None else PROBLEMS)
    tell_rows(writing, out / RESULTS if done.found else None, shown, done.found, some)
    if not done.left_out:
        return
    few, place = some[:PROBLEMS], f"; all are listed in {out / LEFT_OUT}" if done.found else ""
    if not done.found:
        forget_results(out, new)
    raise left_out(few, done.left_out, done.found + done.left_out, place)
