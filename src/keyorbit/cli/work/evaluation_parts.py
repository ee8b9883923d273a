"""The objects that ``keyorbit evaluate`` measures: our own folders, files and meshes, or a published data set."""

from collections.abc import Sequence
from pathlib import Path

from keyorbit.cli.work.several import true_meshes
from keyorbit.evaluation.judging import Part, digest_of
from keyorbit.evaluation.readers import read_dataset
from keyorbit.geometry.cameras import Cameras
from keyorbit.objects.dataset import ObjectDataset, ObjectViews, read_source
from keyorbit.objects.sources import ObjectSource, mesh_sources, sources_digest


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
    rendered = true_meshes(meshes, cameras, up, left) if meshes and left != 0 else ObjectDataset(0, lambda i: [][i])

    def read(number: int) -> ObjectViews:
        if number >= len(chosen):
            return rendered[number - len(chosen)]
        return read_source(chosen[number])

    count = len(chosen) + len(rendered)
    names = [one.name for one in chosen]
    names += [f"mesh {i}" for i in range(len(rendered))]
    digest = digest_of(sources_digest([*chosen, *mesh_sources(meshes)]), up if meshes else "", count)
    return Part(name, count, read, names, digest)


def published_part(name: str, dataset: str, folder: Path, split: str, limit: int | None) -> Part:
    """The objects of a published data set. Raises InputError as :func:`read_dataset`."""
    objects = read_dataset(dataset, folder, split)[:limit]
    digest = digest_of(dataset, folder.absolute(), split, len(objects))
    return Part(name, len(objects), lambda number: objects[number], (), digest)
