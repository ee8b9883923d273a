"""What ``keyorbit generate`` does once its arguments are checked: objects one batch after the other."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from keyorbit.cli.cutouts import cut_out_words, gathered_lines
from keyorbit.cli.terminal import Tick, bars
from keyorbit.cli.work.several import Several
from keyorbit.cli.work.sharing import shared
from keyorbit.detection.attempt import Read
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.control import Control
from keyorbit.diffusion.generation import Sampling, are_made, generate_objects
from keyorbit.diffusion.recording import in_batches, settled_batch
from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.emptiness import check_seen
from keyorbit.objects.shards.names import PICTURE, is_object, picture_in
from keyorbit.objects.sources import ObjectSource
from keyorbit.ranks import Ranks


@dataclass(frozen=True)
class Generating:
    """How the views of objects are generated.

    Attributes:
        sampling: how.
        control: what the ControlNet does.
        batch: sets of views that go through the model together; None: what suits the device.
        overwrite: replace what is there.
    """

    sampling: Sampling
    control: Control | None
    batch: int | None
    overwrite: bool


@dataclass(frozen=True)
class Wanted:
    """An object whose views are wanted; it can be pickled without the others.

    Attributes:
        source: where it is.
        folders: of its sets of views.
        read: what reads it.
    """

    source: ObjectSource
    folders: Sequence[Path]
    read: Read

    @property
    def digest(self) -> str:
        """Of the file whose picture the views are made of."""
        if self.source.elsewhere:
            files = self.source.files()
            name = PICTURE if is_object(files) else picture_in(files)
            return hashlib.sha256(b"" if name is None else files[name]).hexdigest()
        path = self.source.path / "cond.png" if self.source.path.is_dir() else self.source.path
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def wanted(objects: Several, folders: Sequence[Path], how: Generating, fingerprint: str) -> list[Wanted]:
    """The objects of which views are missing; ``folders`` are those of all sets of all, ``fingerprint`` the model's.

    Raises:
        InputError: another object's views are there, or those of other settings.
    """
    sets = how.sampling.sets
    places = [folders[first : first + sets] for first in range(0, len(folders), sets)]
    pairs = enumerate(zip(objects.sources, places, strict=True))
    found = [Wanted(source, place, objects.reader(i)) for i, (source, place) in pairs]
    return found if how.overwrite else [one for one in found if not _is_there(one, how, fingerprint)]


def generate_several(
    objects: Several, folders: Sequence[Path], backend: Zero123PlusBackend, how: Generating, ranks: Ranks, tick: Tick
) -> list[InputError]:
    """Generate the views of this process's share of the objects that have none yet; why some were left out.

    Raises:
        InputError: another object's views are there, or those of other settings; the disk refuses; or an object cannot
            be used and ``strict`` is set.
    """
    left = wanted(objects, folders, how, backend.fingerprint)
    ranks.wait()  # for all to have looked, before any has written
    mine = shared(left, [one.source.path for one in left], ranks)
    together = settled_batch(how.batch, backend.device)
    chunks, done, problems = list(in_batches(mine, max(1, together // how.sampling.sets))), 0, list[InputError]()

    def steps(now: int, total: int) -> None:
        if len(chunks) == 1:
            tick("generate", now, total, {})

    for chunk in chunks:
        for problem in generated(chunk, backend, how, told, steps):
            if objects.strict:
                raise problem
            problems.append(problem)
        done += len(chunk)
        if len(chunks) > 1:
            tick("generate", done, len(mine), {})
    ranks.wait()
    return problems


def told(words: str) -> None:
    """A line about an object."""
    bars.print(words, soft_wrap=True, highlight=False)


def generated(
    some: Sequence[Wanted],
    backend: Zero123PlusBackend,
    how: Generating,
    tell: Callable[[str], None],
    steps: Callable[[int, int], None] | None = None,
) -> Iterator[InputError]:
    """Objects that go through the model together, and where one of them does not fit it, each alone; what failed.

    Raises:
        InputError: the disk refuses.
    """
    things: list[tuple[Wanted, ObjectViews]] = []
    for one in some:
        try:
            thing, source = one.read(), one.source
            check_seen(thing, source.where if source.elsewhere else str(source.path))
            things.append((one, thing))
        except InputError as problem:
            yield problem
    try:
        if things:
            _write(things, backend, how, tell, steps)
    except InputError as problem:
        if isinstance(problem.__cause__, OSError):  # the disk's, which the next object has too
            raise
        if len(things) == 1:
            yield problem
        else:
            for one, _ in things:
                yield from generated([one], backend, how, tell, steps)


def _write(
    things: Sequence[tuple[Wanted, ObjectViews]],
    backend: Zero123PlusBackend,
    how: Generating,
    tell: Callable[[str], None],
    steps: Callable[[int, int], None] | None,
) -> None:
    from keyorbit.cli.work.doubts import doubts  # it detects, which lies above all that generates

    folders = [folder for one, _ in things for folder in one.folders]
    digests = [one.digest for one, _ in things for _ in one.folders]
    again = how.overwrite or any(folder.exists() for folder in folders)
    write = partial(generate_objects, folders, [thing for _, thing in things], backend)
    write(how.sampling, how.control, how.batch, steps, again, digests)
    said = [(thing.name, cut_out_words(thing, True, "cond.png")) for _, thing in things]
    said += doubts([thing for _, thing in things], [one.folders[0] for one, _ in things], backend)
    for line in gathered_lines(said):
        tell(line)
    for _, thing in things:
        if thing.framing.recentred:
            tell(f"{thing.name}: {thing.framing.words}")


def _is_there(one: Wanted, how: Generating, fingerprint: str) -> bool:
    """Whether all sets of an object are there. Raises InputError where those of another one are."""
    if not any((folder / "meta.json").is_file() for folder in one.folders):
        return False
    digest = one.digest
    made = [are_made(at, k, fingerprint, how.sampling, how.control, digest) for k, at in enumerate(one.folders)]
    return all(made)
