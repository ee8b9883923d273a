"""The objects that a command is given, read one after the other; no model is loaded for these."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

from keyorbit.cli.work.sharing import shared
from keyorbit.geometry.cameras import Cameras
from keyorbit.objects.background import Background
from keyorbit.objects.dataset import ObjectDataset, ObjectViews, load_dataset, object_in, read_source
from keyorbit.objects.emptiness import check_seen
from keyorbit.objects.shards.names import is_object, mesh_in
from keyorbit.objects.sources import ObjectSource, object_sources
from keyorbit.ranks import Ranks
from keyorbit.synthetic.choices import AUTO_UP, MESH_SIDE


@dataclass(frozen=True)
class Several:
    """Objects that are read one after the other.

    Attributes:
        sources: where they are.
        masks: of those that have one.
        background: what is done with it; see :class:`ObjectViews`.
        recentre: whether they are brought to the middle.
        batch: objects that go through the model together; None: what suits the device.
        strict: whether the first that cannot be used stops all.
        held: an object that was read already, the only one.
        meshes: what renders each of the last of them when it is its turn. Default: there are none.
        up: the upward axis of meshes' files, as it was given.
        cameras: of the model, for meshes in shards and at addresses. Default None: those of Zero123++ v1.2.
    """

    sources: Sequence[ObjectSource]
    masks: Mapping[Path, Path]
    background: Background
    recentre: bool
    batch: int | None
    strict: bool = False
    held: ObjectViews | None = None
    meshes: Sequence[Callable[[], ObjectViews]] = ()
    up: str = AUTO_UP
    cameras: Cameras | None = None

    @property
    def needed(self) -> tuple[Path, ...]:
        """The folder of the first of them, if it is on a disk: who reads them elsewhere has to see it, too."""
        folders = [folder_needed(source.path) for source in self.sources[:1]]
        return tuple(folder for folder in folders if folder.is_dir())

    def read(self, number: int) -> ObjectViews:
        """Read one of them. Raises InputError as :func:`read_source`, or because a mesh cannot be rendered."""
        return self.reader(number)()

    def reader(self, number: int) -> Callable[[], ObjectViews]:
        """What reads one of them, and can be pickled without the others: for a process elsewhere."""
        if self.held is not None:
            return partial(_same, self.held)
        source, first = self.sources[number], len(self.sources) - len(self.meshes)
        if number >= first:
            return partial(_rendered, self.meshes[number - first], self.recentre)
        if source.elsewhere:
            return partial(read_elsewhere, source, replace(self, sources=(), masks={}))
        return partial(read_source, source, self.background, self.masks.get(source.path), self.recentre)

    def share(self, numbers: Sequence[int], ranks: Ranks) -> Sequence[int]:
        """This process's share of some of them: every so-and-so-manyth; of what lies in shards, one run of them."""
        return shared(numbers, [self.sources[number].path for number in numbers], ranks)


def folder_needed(path: Path) -> Path:
    """The folder of an object, from the root; what is at an address has none on this disk."""
    return Path(os.path.abspath(path)).parent


def _same(thing: ObjectViews) -> ObjectViews:
    return thing


def _rendered(mesh: Callable[[], ObjectViews], recentre: bool) -> ObjectViews:
    return replace(mesh(), recentre=recentre)


def read_elsewhere(source: ObjectSource, how: Several) -> ObjectViews:
    """Read what lies in a shard or at an address; a mesh is rendered.

    ``how``: what is done with its background, and with a mesh.

    Raises:
        InputError: as :func:`keyorbit.objects.dataset.object_in`, or the mesh cannot be rendered.
    """
    files = source.files()
    if not is_object(files) and mesh_in(files) is not None:
        from keyorbit.synthetic.meshes.views import rendered

        thing = rendered(files, source.name, source.where, how.cameras, how.up, MESH_SIDE)
    else:
        thing = object_in(files, source.name, source.where)
    return replace(thing, background=how.background, recentre=how.recentre)


def load_all(
    path: Path, background: str | None = None, masks: Mapping[Path, Path] | None = None, recentre: bool = True
) -> list[ObjectViews]:
    """Every object read now, so that a damaged file is found before any work is done, and an empty picture too.

    They are as commands use them: a copy with other fields would be cut out of its picture once more.
    """
    read = load_dataset(path, cast(Background, background or "auto"), masks or {})
    found = [thing if recentre else replace(thing, recentre=False) for thing in read]
    for thing in found:
        check_seen(thing, str(path))
    return found


def given_objects(
    paths: Sequence[Path], background: str | None = None, masks: Mapping[Path, Path] | None = None
) -> ObjectDataset:
    """The objects at several paths, each read when it is its turn.

    Raises:
        InputError: there are none at one of them.
    """
    sources = object_sources(paths)
    return ObjectDataset(len(sources), partial(_read, sources, cast(Background, background or "auto"), masks or {}))


def _read(
    sources: Sequence[ObjectSource], background: Background, masks: Mapping[Path, Path], number: int
) -> ObjectViews:
    return read_source(sources[number], background, masks.get(sources[number].path))


def meshes_at(paths: Sequence[Path], cameras: Cameras | None, up: str) -> list[Callable[[], ObjectViews]]:
    """What renders each of the meshes at a model's cameras; without cameras, at Zero123++ v1.2's."""
    if not paths:
        return []
    from keyorbit.synthetic.meshes.views import mesh_readers

    return mesh_readers(paths, cameras, up, MESH_SIDE)


def true_meshes(paths: Sequence[Path], cameras: Cameras | None, up: str) -> list[Callable[[], ObjectViews]]:
    """What renders each of the meshes that have landmarks; where none has some, of all."""
    from keyorbit.synthetic.meshes.views import mesh_readers

    return mesh_readers(paths, cameras, up, MESH_SIDE, landmarked=True)


def without_views(thing: ObjectViews) -> ObjectViews:
    """The object by its input picture alone: the model then generates the views."""
    return replace(thing, views=None, masks=None)
