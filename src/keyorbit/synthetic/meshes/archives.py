"""Archives with a mesh and its textures, as sites hand them out: unpacked for as long as they are read."""

import bz2
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from keyorbit.errors import InputError
from keyorbit.objects.paths import MESH_ARCHIVES
from keyorbit.synthetic.meshes.gltf.budget import LARGEST

_CHUNK = 2**24


def is_archive(path: Path) -> bool:
    """Whether a file is an archive, by its name."""
    return path.name.lower().endswith(MESH_ARCHIVES)


@contextmanager
def unpacked(path: Path) -> Iterator[list[Path]]:
    """Yield the files of an archive in a folder that is removed at the end; hidden ones are left out.

    Raises:
        InputError: all of them together are larger than the budget.
        Exception: whatever the libraries raise for a damaged archive.
    """
    with TemporaryDirectory(prefix="keyorbit-") as place:
        folder, size = Path(place).resolve(), 0
        found = []
        for name, file in _files(path):
            target = (folder / name).resolve()
            hidden = any(part.startswith((".", "__MACOSX")) for part in Path(name).parts)
            if hidden or not target.is_relative_to(folder) or target == folder:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                while chunk := file.read(_CHUNK):
                    size += len(chunk)
                    if size > LARGEST:
                        words = f"unpacks to more than {LARGEST:,} bytes; unpack it, and give the mesh in it"
                        raise InputError(f"{path} {words}")
                    out.write(chunk)
            found.append(target)
        yield sorted(found)


def _files(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    name = path.name.lower()
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    with archive.open(info) as file:
                        yield info.filename, file
    elif name.endswith((".tar.gz", ".tar.bz2")):
        with tarfile.open(path) as tape:
            for member in tape:
                if member.isfile() and (inside := tape.extractfile(member)):
                    yield member.name, inside
    else:
        with bz2.BZ2File(path) as packed:
            yield path.name[:-4], packed
