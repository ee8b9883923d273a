"""The objects that ``keyorbit evaluate`` measures: our own folders, files and meshes, or a published data set."""

from collections.abc import Callable, Sequence
from pathlib import Path

from keyorbit.cli.work.several import Several, true_meshes
from keyorbit.errors import InputError
from keyorbit.evaluation.landmarks import alike, check_landmarks
from keyorbit.evaluation.parts import Part, digest_of
from keyorbit.geometry.cameras import Cameras
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.sources import ObjectSource, mesh_sources, sources_digest

# Objects of a part that are read to learn how many landmarks they have, until one can be read.
_TRIED = 20


def own_part(
    name: str,
    sources: Sequence[ObjectSource],
    meshes: Sequence[Path],
    cameras: Cameras | None,
    up: str,
    limit: int | None,
) -> Part:
    """Objects and pictures, then meshes, which are rendered at the model's cameras.

    Raises:
        InputError: there are no meshes at a path, or a file of landmarks is damaged.
    """
    chosen = list(sources[:limit])
    left = None if limit is None else limit - len(chosen)
    rendered = true_meshes(meshes, cameras, up)[:left] if meshes and left != 0 else []
    together = [*chosen, *(ObjectSource(f"mesh {i}", Path()) for i in range(len(rendered)))]
    objects = Several(together, {}, "auto", True, None, meshes=rendered, up=up, cameras=cameras)
    upward = up if meshes or any(source.elsewhere for source in chosen) else ""
    digest = digest_of(sources_digest([*chosen, *mesh_sources(meshes)]), upward, len(together))
    return Part(name, len(together), objects.read, [source.name for source in together], digest)


def published_part(name: str, dataset: str, folder: Path, split: str, limit: int | None) -> Part:
    """The objects of a published data set. Raises InputError as :func:`read_dataset`."""
    from keyorbit.evaluation.readers import read_dataset

    objects = read_dataset(dataset, folder, split)[:limit]
    digest = digest_of(dataset, folder.absolute(), split, len(objects))
    return Part(name, len(objects), lambda number: objects[number], (), digest)


def checked(parts: Sequence[Part]) -> list[Part]:
    """The parts, of which an object that does not fit the first one is an error when it is read.

    Landmarks are in the order in which the first one has them.

    Raises:
        InputError: the first objects of the parts have different landmarks; none of the first objects can be read; or
            the moved objects are not as many as the others.
    """
    firsts = [_first(part) for part in parts]
    check_landmarks(firsts)
    alike(firsts)
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
                    f"{firsts[0].name} has {wanted} landmarks; what is measured together has the same ones "
                    "(null for one that an object lacks)"
                )
            return alike([thing], firsts[0])[0]

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
