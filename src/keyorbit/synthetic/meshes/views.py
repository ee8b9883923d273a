"""Mesh files as objects in memory: what an object folder of theirs would hold, and the mesh itself."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image

from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.geometry.triangles import nearest_on_triangles
from keyorbit.objects.dataset import FORMAT, ObjectDataset, ObjectViews, described_object
from keyorbit.objects.description import Description
from keyorbit.objects.mesh import PlacedMesh
from keyorbit.objects.paths import mesh_names, mesh_paths
from keyorbit.objects.pictures import to_tensor
from keyorbit.synthetic.choices import AUTO_UP, MESH_SIDE
from keyorbit.synthetic.meshes.jobs import MeshJob, MeshView
from keyorbit.synthetic.meshes.landmarks import with_common_names
from keyorbit.synthetic.meshes.materials import colors_at
from keyorbit.synthetic.meshes.numbering import numbered
from keyorbit.synthetic.meshes.objects import Drawn, draw_mesh
from keyorbit.synthetic.meshes.packed import written_mesh
from keyorbit.synthetic.meshes.parts import Part, joined
from keyorbit.synthetic.meshes.plan import planned
from keyorbit.values import as_path, check_kind, from_values

log = logging.getLogger(__name__)
# How data sets of ShapeNet's models keep them: KIND/MODEL/models/model_normalized.obj.
_SHAPENET = "models"


def load_meshes(
    given: Path | str | Sequence[Path | str],
    cameras: Cameras | None = None,
    up: str = AUTO_UP,
    size: int = MESH_SIDE,
    landmarks: Path | None = None,
    landmarked: bool = False,
) -> ObjectDataset:
    """Read mesh files as objects, each rendered on access as ``keyorbit dataset render`` would do it.

    Args:
        given: mesh files, folders of such, or patterns such as ``meshes/*.glb``; one, or several.
        cameras: of the views, in whose world the objects stand. Default None: the six of Zero123++ v1.2.
        up: the files' upward axis: x, y, z, -x, -y, -z; or ``auto``, the default: what the files or their formats tell,
            else judged by their shapes.
        size: pixels a side of a view. Default 320.
        landmarks: file of landmarks. Default None: what lies beside each mesh
            (:class:`keyorbit.synthetic.meshes.landmarks.LandmarkFiles`). All meshes get the same ones, and know those
            that their files tell.
        landmarked: leave out, with a warning, meshes without landmarks, if others have some. Default False.

    Raises:
        InputError: there are no meshes, or a file of landmarks is damaged; and on access, as
            :func:`keyorbit.synthetic.meshes.objects.render_mesh`.
    """
    check_kind("given", given, str | Path | list | tuple, "the path of a mesh, or a list of such")
    paths = [as_path(one, "a mesh") for one in ([given] if isinstance(given, str | Path) else given)]
    if not paths:
        raise InputError("no mesh is given: give the path of one at least")
    readers = mesh_readers(paths, cameras, up, size, landmarks, landmarked)
    return ObjectDataset(len(readers), partial(_read, readers))


def mesh_readers(
    given: Sequence[Path],
    cameras: Cameras | None = None,
    up: str = AUTO_UP,
    size: int = MESH_SIDE,
    landmarks: Path | None = None,
    landmarked: bool = False,
) -> list[Callable[[], ObjectViews]]:
    """Return for each mesh what renders it, which can be pickled alone: for a process elsewhere.

    Args and errors are those of :func:`load_meshes`.
    """
    found = mesh_paths(given)
    names = mesh_names(found)
    jobs = planned(found, [Path(name) for name in names], MeshView(size), up, landmarks)
    if landmarked and any(job.landmarks for job in jobs):
        bare = [name for name, job in zip(names, jobs, strict=True) if job.landmarks is None]
        if bare:
            log.warning("no landmarks are known of %s%s: left out", bare[0], _others(bare))
        names = [name for name in names if name not in bare]
        jobs = [job for job in jobs if job.landmarks is not None]
    told = with_common_names([job.landmarks for job in jobs])
    jobs = [replace(job, landmarks=one) for job, one in zip(jobs, told, strict=True)]
    for axis in sorted({job.up for job in jobs if job.judged}):
        which = [job.mesh.name for job in jobs if job.judged and job.up == axis]
        log.warning("judged by the shape, %s is up in %s%s", axis, which[0], _others(which))
    around = zero123plus_cameras("v1.2") if cameras is None else cameras
    return [partial(_object, job, name, around) for job, name in zip(jobs, names, strict=True)]


def _read(readers: Sequence[Callable[[], ObjectViews]], number: int) -> ObjectViews:
    return readers[number]()


def rendered(
    files: Mapping[str, bytes],
    name: str,
    where: str,
    cameras: Cameras | None = None,
    up: str = AUTO_UP,
    size: int = MESH_SIDE,
) -> ObjectViews:
    """Render a mesh of files in memory as :func:`load_meshes` does it: a mesh file, and its landmarks if there are any.

    Args:
        files: by their names, such as ``mesh.glb`` and ``keypoints.json``.
        name: of the object.
        where: names it in errors.
        cameras: of the views. Default None: the six of Zero123++ v1.2.
        up: the file's upward axis. Default ``auto``.
        size: pixels a side of a view. Default 320.

    Raises:
        InputError: as :func:`keyorbit.synthetic.meshes.objects.render_mesh`.
    """
    with written_mesh(files, name, where) as mesh:
        return replace(load_meshes(mesh, cameras, up, size)[0], name=name)


def _others(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if names[1:] else ""


def _object(job: MeshJob, name: str, cameras: Cameras) -> ObjectViews:
    drawn = draw_mesh(job, cameras)
    if drawn.upright.judged:
        log.warning("judged by the shape, %s is up in %s", drawn.upright.up, job.mesh.name)
    meta = {"format": FORMAT, "layout": [len(drawn.views), 1], **drawn.meta}
    told = from_values(Description, meta, str(job.mesh), others=True)
    pairs = [to_tensor(Image.fromarray(view)) for view in drawn.views]
    views, masks = torch.stack([view for view, _ in pairs]), torch.stack([m for _, m in pairs if m is not None])
    thing = described_object(told, name, drawn.picture, views, masks, str(job.mesh))
    return replace(thing, mesh=_placed(job.mesh, drawn))


def _placed(path: Path, drawn: Drawn) -> PlacedMesh:
    upright, place = drawn.upright, path.absolute()
    folder = place.parent.parent if place.parent.name == _SHAPENET else place.parent
    model = folder.name if place.parent.name == _SHAPENET else place.stem
    kind = folder.parent.name if place.parent.name == _SHAPENET else folder.name
    vertices, faces = numbered(path, upright.parts)
    centre = upright.centre @ upright.rotation
    rotation = drawn.turn @ upright.rotation
    return PlacedMesh(
        model, kind, vertices, faces, rotation, centre, upright.scale, partial(_colours, tuple(upright.parts))
    )


def _colours(parts: Sequence[Part], points: Float[ndarray, "point 3"]) -> UInt8[ndarray, "point 3"]:
    vertices, faces, look = joined(parts)
    on = nearest_on_triangles(vertices[faces], points)
    found: ndarray = np.round(255 * colors_at(look, on.face, on.weights)[:, :3]).astype(np.uint8)
    return found
