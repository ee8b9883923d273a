"""Meshes that lie in shards or at addresses: written to a folder for as long as they are read."""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from keyorbit.errors import InputError
from keyorbit.objects.shards.names import LANDMARKS, key_of, mesh_in, mesh_suffix
from keyorbit.storage.content import json_in
from keyorbit.storage.folder_names import folder_names
from keyorbit.synthetic.meshes.jobs import MeshJob
from keyorbit.synthetic.meshes.landmarks import LandmarkFiles


@contextmanager
def fetched(job: MeshJob) -> Iterator[MeshJob]:
    """Yield the same of a file on this disk, with the landmarks beside it, for as long as it is worked on.

    Raises:
        InputError: what lies elsewhere is no mesh, damaged, or cannot be reached.
    """
    if job.source is None:
        yield job
        return
    with written_mesh(job.source.files(), job.source.name, job.source.where) as mesh:
        yield replace(job, mesh=mesh, landmarks=job.landmarks or LandmarkFiles().of(mesh), source=None)


@contextmanager
def written_mesh(files: Mapping[str, bytes], name: str, where: str) -> Iterator[Path]:
    """Yield the file of a mesh, and its landmarks beside it, in a folder that is removed at the end.

    Its name there is made here of the object's: no name that stands in a shard is written to.

    Args:
        files: by their names, such as ``mesh.glb`` and ``keypoints.json``.
        name: of the object.
        where: names it in errors, in place of the folder.

    Raises:
        InputError: there is no mesh.
    """
    found = mesh_in(files)
    if found is None:
        raise InputError(f"{where} is no mesh")
    with TemporaryDirectory(prefix="keyorbit-") as place:
        # The folder's name is told as the mesh's kind: it is no random one.
        stem, folder = folder_names([name])[0], Path(place) / "meshes"
        folder.mkdir()
        path = folder / (stem + mesh_suffix(found))
        path.write_bytes(files[found])
        if LANDMARKS in files:
            (folder / f"{stem}.{LANDMARKS}").write_bytes(_of_mesh(files[LANDMARKS], stem))
        try:
            yield path
        except InputError as error:
            raise InputError(str(error).replace(str(path), where).replace(str(folder), where)) from error


def _of_mesh(content: bytes, stem: str) -> bytes:
    """The landmarks beside a mesh, under the name that it has here; as they are where that needs no change.

    The file may tell them under the name of the file that was packed, and a key in a shard is another one.
    """
    try:
        values = json_in(content.decode("utf-8-sig"), LANDMARKS)
    except (InputError, UnicodeDecodeError):  # told where it is read
        return content
    told = _renamed(values, stem)
    return content if told is values else json.dumps(told).encode()


def _renamed(values: Any, stem: str) -> Any:
    """What a file of landmarks holds, with the mesh's name changed; the values themselves where there is none."""
    by_mesh = values.get("keypoints") if isinstance(values, dict) else None
    if isinstance(by_mesh, dict) and all(isinstance(points, dict) for points in by_mesh.values()):
        own = _own_name(by_mesh, stem)
        renamed = {stem if name == own else name: points for name, points in by_mesh.items()}
        return values if own is None else {**values, "keypoints": renamed}
    if isinstance(values, list) and all(isinstance(model, dict) for model in values):
        own = _own_name([str(model.get("model_id")) for model in values], stem)
        models = [{**model, "model_id": stem} if str(model.get("model_id")) == own else model for model in values]
        return values if own is None else models
    return values


def _own_name(names: Collection[str], stem: str) -> str | None:
    """Of the meshes that landmarks are told of, the one that became ``stem``: the only one, or whose key is in it.

    None where it has that name already, or is none of them.
    """
    if stem in names:
        return None
    fitting = [name for name in names if len(names) == 1 or f"_{key_of(name)}_" in f"_{stem}_"]
    return max(fitting, key=len, default=None)
