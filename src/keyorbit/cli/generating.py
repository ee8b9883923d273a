"""What ``keyorbit generate`` does once its arguments are checked: objects one batch after the other."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from keyorbit.cli.cutouts import show_cut_outs
from keyorbit.cli.loading import Several
from keyorbit.cli.terminal import Tick, bars
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
        folders: of all sets of all objects.
        backend: the model.
        sampling: how.
        control: what the ControlNet does.
        overwrite: replace what is there.
    """

    folders: Sequence[Path]
    backend: Zero123PlusBackend
    sampling: Sampling
    control: Control | None
    overwrite: bool

    def of(self, number: int) -> Sequence[Path]:
        """The folders of one object's sets."""
        return self.folders[number * self.sampling.sets : (number + 1) * self.sampling.sets]


def generate_several(objects: Several, how: Generating, ranks: Ranks, tick: Tick) -> list[InputError]:
    """Generate the views of this process's share of the objects that have none yet; why some were left out.

    Raises:
        InputError: another object's views are there, or those of other settings; the disk refuses; or an object cannot
            be used and ``strict`` is set.
    """
    left = [number for number in range(len(objects.sources)) if how.overwrite or not _are_there(number, objects, how)]
    ranks.wait()  # for all to have looked, before any has written
    mine, together = objects.share(left, ranks), settled_batch(objects.batch, how.backend.device)
    chunks, done, problems = list(in_batches(mine, max(1, together // how.sampling.sets))), 0, list[InputError]()

    def steps(now: int, total: int) -> None:
        if len(chunks) == 1:
            tick("generate", now, total, {})

    for chunk in chunks:
        for problem in _generated(chunk, objects, how, steps):
            if objects.strict:
                raise problem
            problems.append(problem)
        done += len(chunk)
        if len(chunks) > 1:
            tick("generate", done, len(mine), {})
    ranks.wait()
    return problems


def _generated(
    numbers: Sequence[int], objects: Several, how: Generating, steps: Callable[[int, int], None]
) -> Iterator[InputError]:
    """Objects that go through the model together, and where one of them does not fit it, each alone; what failed."""
    things: dict[int, ObjectViews] = {}
    for number in numbers:
        try:
            things[number] = objects.read(number)
            source = objects.sources[number]
            check_seen(things[number], source.where if source.elsewhere else str(source.path))
        except InputError as problem:
            things.pop(number, None)
            yield problem
    folders = [folder for number in things for folder in how.of(number)]
    digests = [_digest(objects.sources[number]) for number in things for _ in how.of(number)]
    try:
        if things:
            made = list(things.values())
            again = how.overwrite or any(folder.exists() for folder in folders)
            batch = objects.batch
            generate_objects(folders, made, how.backend, how.sampling, how.control, batch, steps, again, digests)
            show_cut_outs(made, True, "cond.png")
            for thing in made:
                if thing.framing.recentred:
                    bars.print(f"{thing.name}: {thing.framing.words}", soft_wrap=True, highlight=False)
    except InputError as problem:
        if isinstance(problem.__cause__, OSError):  # the disk's, which the next object has too
            raise
        if len(things) == 1:
            yield problem
        else:
            for number in things:
                yield from _generated([number], objects, how, steps)


def _are_there(number: int, objects: Several, how: Generating) -> bool:
    """Whether all sets of an object are there. Raises InputError where those of another one are."""
    folders = how.of(number)
    if not any((folder / "meta.json").is_file() for folder in folders):
        return False
    digest = _digest(objects.sources[number])
    made = [are_made(folder, k, how.backend, how.sampling, how.control, digest) for k, folder in enumerate(folders)]
    return all(made)


def _digest(source: ObjectSource) -> str:
    """Of the file whose picture the views are made of."""
    if source.elsewhere:
        files = source.files()
        name = PICTURE if is_object(files) else picture_in(files)
        return hashlib.sha256(b"" if name is None else files[name]).hexdigest()
    path = source.path / "cond.png" if source.path.is_dir() else source.path
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
