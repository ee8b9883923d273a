"""Where any number of objects are read from, one by one; no library is loaded for these."""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keyorbit.errors import InputError
from keyorbit.objects.paths import left_out, mesh_names, mesh_paths, object_paths, picture_names
from keyorbit.storage.addresses import is_remote, plain, shown
from keyorbit.storage.folder_names import name_of, readable

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ObjectSource:
    """An object that is not read yet: :func:`keyorbit.objects.dataset.read_source` does, here or after pickling.

    Attributes:
        name: the name that the object has once it is read.
        path: its folder, picture or mesh, or the shard that it is in; an address (``s3://…``) as a path writes it.
        key: what it is called in its shard. Default None: it is in none.
        number: of the object in its shard, from 0.
    """

    name: str
    path: Path
    key: str | None = None
    number: int = 0

    @property
    def elsewhere(self) -> bool:
        """Whether it is no folder and no file of its own on this disk: in a shard, or at an address."""
        return self.key is not None or is_remote(self.path)

    @property
    def where(self) -> str:
        """Where it lies, for results: such as ``/data/chair_0`` or ``s3://bucket/x-000003.tar#chair_0``."""
        place = shown(self.path) if is_remote(self.path) else os.path.abspath(self.path)
        return place if self.key is None else f"{place}#{self.key}"

    def files(self) -> Mapping[str, bytes]:
        """What it is made of by names, such as ``cond.png``, ``jpg`` or ``mesh.glb``, where it lies elsewhere.

        Raises:
            InputError: it is damaged, or cannot be reached.
        """
        if self.key is not None:
            from keyorbit.objects.shards.listing import files_in_shard

            return files_in_shard(self.path, self.number, self.where)
        from keyorbit.storage.places import read_range

        return {plain(self.path).suffix.lower()[1:]: read_range(self.path)}


def object_sources(paths: Sequence[Path]) -> list[ObjectSource]:
    """Return the objects at paths, in the order of the paths and by name within each.

    Args:
        paths: pictures, object folders, and folders of either, see :func:`keyorbit.objects.paths.object_paths`; shards,
            folders and patterns of such; and addresses of all but object folders.

    Raises:
        InputError: there are none at one of the paths.
    """
    return [source for path in paths for source in _sources_at(path)]


def _sources_at(path: Path) -> list[ObjectSource]:
    from keyorbit.objects.shards.places import places_elsewhere

    found = places_elsewhere(path)
    if found is not None:
        sources = _sources_in(found)
        if not sources:
            raise InputError(f"{shown(path)} holds no objects, pictures or meshes")
        log.info("objects in %s: %d", shown(path), len(sources))
        return sources
    places = object_paths(path)
    if path.is_dir() and places[0].is_file() and (left := left_out(path)):
        log.warning("%s: %s", path, left)
    log.info("objects in %s: %d", path, len(places))
    names = picture_names(places)
    return [
        ObjectSource(name_of(place) if place.is_dir() else name, place)
        for name, place in zip(names, places, strict=True)
    ]


def _sources_in(places: Sequence[Path]) -> list[ObjectSource]:
    """The objects in shards, and at addresses."""
    from keyorbit.objects.shards.listing import keys_of
    from keyorbit.objects.shards.names import is_shard

    keys, found = keys_of([place for place in places if is_shard(plain(place))]), list[ObjectSource]()
    for place in places:
        if is_shard(plain(place)):
            names = ((key, readable(key.rpartition("/")[2])) for key in next(keys))
            found += [ObjectSource(name, place, key, number) for number, (key, name) in enumerate(names)]
        else:
            found.append(ObjectSource(readable(plain(place).stem), place))
    return found


def mesh_sources(given: Sequence[Path]) -> list[ObjectSource]:
    """Return the meshes at paths: files, folders of such, and patterns.

    Raises:
        InputError: as :func:`keyorbit.objects.paths.mesh_paths`.
    """
    found = mesh_paths(given) if given else []
    return [ObjectSource(name, path) for name, (path, _) in zip(mesh_names(found), found, strict=True)]


def sources_digest(sources: Sequence[ObjectSource]) -> str:
    """Return a digest of which objects these are: of their names and where they lie, not of what the files hold."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(os.fsencode(f"{source.name}\0{source.where}\0"))
    return digest.hexdigest()
