"""Where any number of objects are read from, one by one; no library is loaded for these."""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keyorbit.objects.paths import left_out, mesh_names, mesh_paths, object_paths, picture_names
from keyorbit.storage.folder_names import name_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ObjectSource:
    """An object that is not read yet.

    Attributes:
        name: the name that the object has once it is read.
        path: its folder, picture or mesh.
    """

    name: str
    path: Path


def object_sources(paths: Sequence[Path]) -> list[ObjectSource]:
    """Return the objects at paths, in the order of the paths and by name within each.

    Args:
        paths: pictures, object folders, and folders of either; see :func:`keyorbit.objects.paths.object_paths`.

    Raises:
        InputError: there are none at one of the paths.
    """
    found = []
    for path in paths:
        places = object_paths(path)
        if path.is_dir() and places[0].is_file() and (left := left_out(path)):
            log.warning("%s: %s", path, left)
        log.info("objects in %s: %d", path, len(places))
        names = picture_names(places)
        found += [
            ObjectSource(name_of(place) if place.is_dir() else name, place)
            for name, place in zip(names, places, strict=True)
        ]
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
        digest.update(os.fsencode(f"{source.name}\0{os.path.abspath(source.path)}\0"))
    return digest.hexdigest()
