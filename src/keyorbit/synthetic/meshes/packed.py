"""Meshes that lie in shards or at addresses: written to a folder for as long as they are read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from keyorbit.errors import InputError
from keyorbit.objects.shards.names import LANDMARKS, mesh_in, mesh_suffix
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
            (folder / f"{stem}.{LANDMARKS}").write_bytes(files[LANDMARKS])
        try:
            yield path
        except InputError as error:
            raise InputError(str(error).replace(str(path), where).replace(str(folder), where)) from error
