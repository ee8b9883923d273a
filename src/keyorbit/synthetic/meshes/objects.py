"""Mesh files rendered as object folders: one, or many at once, with their landmarks where there are some."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from msgspec import Meta
from numpy import ndarray
from PIL import Image
from scipy.spatial import cKDTree

from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras, orbit_cameras
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.objects.dataset import write_object
from keyorbit.storage.content import json_of
from keyorbit.storage.outputs import OBJECT, check_output
from keyorbit.synthetic.choices import AUTO_UP
from keyorbit.synthetic.grids import LAYOUT, check_rendering, grid_of
from keyorbit.synthetic.meshes.jobs import MeshJob, MeshView
from keyorbit.synthetic.meshes.landmarks import LandmarkFiles, Landmarks
from keyorbit.synthetic.meshes.packed import fetched
from keyorbit.synthetic.meshes.surface import Upright, load_mesh
from keyorbit.synthetic.render import composite, render, sample_surface, visible
from keyorbit.synthetic.samples import SURFACE_POINTS, in_parallel
from keyorbit.synthetic.shapes import rotation_about
from keyorbit.values import from_values

WHITE = 1.0
# A landmark within a body is seen where no more lies before it than this many times its depth below the surface.
_DEPTHS, _HIDDEN = 2.0, 0.03
# A landmark so far from the middle of an object of radius 0.5 is not of that object.
_FURTHEST = 1.5


@dataclass(frozen=True)
class Rendered:
    """What became of a mesh.

    Attributes:
        job: what was asked for.
        problem: why there is no object of it; empty where there is one.
        there: whether the object was there before.
        up: the upward axis that was taken.
        judged: whether that was judged by the mesh's shape.
        plain: whether it was drawn in a grey, as its file says nothing of its colour.
    """

    job: MeshJob
    problem: str = ""
    there: bool = False
    up: str = ""
    judged: bool = False
    plain: bool = False


@dataclass(frozen=True)
class _Made:
    """What an object folder of a mesh says of how it was made."""

    mesh_sha256: str = ""
    mesh_view: dict[str, Any] | None = None
    landmarks_sha256: str | None = None
    keypoint_names: tuple[Any, ...] | None = None
    up: Annotated[str, Meta(max_length=10)] = ""


def render_mesh(
    mesh: Path,
    folder: Path,
    size: int = 64,
    elevation_deg: float = 20.0,
    azimuth_deg: float = 0.0,
    up: str = AUTO_UP,
    overwrite: bool = False,
) -> Rendered:
    """Render a mesh file as an object folder: the input view and the six Zero123++ v1.2 views.

    Landmarks in a file beside it (see :class:`keyorbit.synthetic.meshes.landmarks.LandmarkFiles`) become the object's.

    Args:
        mesh: the file.
        folder: the object folder to write.
        size: pixels a side of a view. Default 64.
        elevation_deg: of the input view. Default 20.
        azimuth_deg: of the input view, about the mesh. Default 0.
        up: the file's upward axis: x, y, z, -x, -y, -z; or ``auto``, the default: what the file or its format tells,
            else judged by its shape.
        overwrite: replace an object that is there already. Default False.

    Raises:
        InputError: the mesh or its landmarks cannot be read, no view shows anything of it, or as
            :func:`keyorbit.objects.dataset.write_object`.
    """
    view = MeshView(size, elevation_deg, azimuth_deg)
    return write_mesh(MeshJob(mesh, folder, view, up, LandmarkFiles().of(mesh)), overwrite)


def write_mesh(job: MeshJob, overwrite: bool = False) -> Rendered:
    """Render one mesh and write its folder. Raises InputError as :func:`render_mesh`."""
    check_output(job.folder, OBJECT, overwrite)
    with fetched(job) as here:
        drawn = draw_mesh(here, zero123plus_cameras("v1.2"))
    write_object(job.folder, drawn.picture, grid_of(drawn.views), LAYOUT, drawn.meta, overwrite)
    upright = drawn.upright
    return Rendered(job, up=upright.up, judged=upright.judged or job.judged, plain=upright.plain)


@dataclass(frozen=True, eq=False)
class Drawn:
    """A mesh as it is seen.

    Attributes:
        picture: the input view, on white.
        views: those of the cameras, with alpha.
        meta: what the object's ``meta.json`` tells, without its format and layout.
        upright: the mesh.
        turn: about the vertical, after it was stood upright.
    """

    picture: Image.Image
    views: UInt8[ndarray, "view size size 4"]
    meta: dict[str, Any]
    upright: Upright
    turn: Float[ndarray, "3 3"]


def draw_mesh(job: MeshJob, cameras: Cameras) -> Drawn:
    """Render one mesh from the input view and from the cameras. Raises InputError as :func:`render_mesh`."""
    check_rendering(job.view.size)
    up = job.up
    if up == AUTO_UP and job.landmarks is not None and job.landmarks.up is not None:
        up = job.landmarks.up
    upright = load_mesh(job.mesh, up)
    turn = np.eye(4)
    if job.view.azimuth_deg:
        turn[:3, :3] = rotation_about("z", -job.view.azimuth_deg)
        upright.surface.mesh.apply_transform(turn)
    input_camera = orbit_cameras([0.0], [job.view.elevation_deg])
    everything = input_camera.join(cameras)
    pictures = render(upright.surface, everything, job.view.size, supersample=3)
    if not pictures[..., 3].any():
        raise InputError(
            f"nothing of {job.mesh} can be seen: all of it is transparent, or its triangles have no area; no object "
            "was written"
        )
    meta = {
        "mesh": job.mesh.name,
        "mesh_sha256": _digest(job.mesh),
        "mesh_view": asdict(job.view),
        "up": upright.up,
        "cameras": cameras.to_dict(),
        "input_camera": input_camera.to_dict(),
        "input_elevation_deg": job.view.elevation_deg,
    }
    if job.landmarks is not None:
        meta["landmarks_sha256"] = _digest_of(job.landmarks)
        meta |= _truth(job, job.landmarks, upright, turn[:3, :3], everything)
    return Drawn(Image.fromarray(composite(pictures[0], WHITE)), pictures[1:], meta, upright, turn[:3, :3])


@dataclass(frozen=True)
class Attempt:
    """Renders a mesh; an error that a user can correct is a part of the result."""

    overwrite: bool
    strict: bool

    def __call__(self, job: MeshJob) -> Rendered:
        try:
            # Another process may have finished it, and died before it said so.
            there = not self.overwrite and _is_there(job)
            return Rendered(job, there=True) if there else write_mesh(job, self.overwrite)
        except InputError as error:
            if self.strict:
                raise InputError(f"{error}; what was finished is kept") from error
            return Rendered(job, problem=str(error))


# What has others do the work, see `render_meshes`.
Spread = Callable[[Attempt, Sequence[MeshJob]], Iterator[tuple[int, Rendered]]]


def render_meshes(
    jobs: Sequence[MeshJob],
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
    strict: bool = False,
    spread: Spread | None = None,
) -> list[Rendered]:
    """Render meshes by ``workers`` processes, one folder each. What is wrong with one does not stop the others.

    An object that is there already stays, if it is of the same mesh seen in the same way; so what was interrupted goes
    on where it ended.

    Args:
        jobs: with folders that differ.
        workers: processes. Default 1.
        progress: called as ``progress(done, total)`` after each mesh.
        overwrite: replace objects that are there already. Default False.
        strict: stop at the first mesh that cannot be used. Default False: it has its problem.
        spread: has others do the work: makes an attempt at each of some meshes, and yields what became of it with its
            number among them, in any order. Default None: processes of this machine.

    Raises:
        InputError: a folder holds something else, or the object of another mesh or view, or with other landmarks; with
            ``strict`` also what is wrong with a mesh.
    """
    left = [job for job in jobs if overwrite or not _is_there(job)]
    for job in left:
        check_output(job.folder, OBJECT, overwrite)
    if left:
        check_rendering(left[0].view.size, workers)
    spread = spread or partial(_in_processes, min(workers, len(left)))
    found = {id(job): Rendered(job, there=True) for job in jobs}
    done = len(jobs) - len(left)
    for number, one in spread(Attempt(overwrite, strict), left) if left else ():
        found[id(left[number])] = one
        done += 1
        if progress is not None:
            progress(done, len(jobs))
    return [found[id(job)] for job in jobs]


def _in_processes(workers: int, attempt: Attempt, jobs: Sequence[MeshJob]) -> Iterator[tuple[int, Rendered]]:
    return enumerate(in_parallel(attempt, jobs, workers, 1))


def _is_there(job: MeshJob) -> bool:
    """Whether the object is there. Raises InputError where it is of another mesh or view, or has other landmarks."""
    path = job.folder / "meta.json"
    if not path.is_file():
        return False
    with fetched(job) as here:
        return _is_of(path, here)


def _is_of(path: Path, job: MeshJob) -> bool:
    made = from_values(_Made, json_of(path, infinite=True), str(path), others=True)
    asked = json.loads(json.dumps(asdict(job.view)))
    if (
        made.mesh_sha256 != _digest(job.mesh)
        or made.mesh_view != asked
        or (not job.judged and job.up not in (AUTO_UP, made.up))
    ):
        raise InputError(
            f"{job.folder} holds the object of another mesh, or seen otherwise: replace it (--overwrite), or give "
            "another folder"
        )
    told = None if job.landmarks is None else _digest_of(job.landmarks)
    earlier = made.landmarks_sha256 is None and made.keypoint_names is not None  # it did not keep the digest
    if made.landmarks_sha256 != told and not earlier:
        raise InputError(f"{job.folder} holds the object with other landmarks: replace it (--overwrite)")
    return True


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(landmarks: Landmarks) -> str:
    told = [landmarks.names, landmarks.pairs, landmarks.points.tolist(), landmarks.known.tolist(), landmarks.up]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _truth(
    job: MeshJob, landmarks: Landmarks, upright: Upright, turn: Float[ndarray, "3 3"], cameras: Cameras
) -> dict[str, Any]:
    """Return landmarks as an object folder has them."""
    known = landmarks.known
    points = np.where(known[:, None], upright.placed(landmarks.points) @ turn.T, 0.0)
    far = np.linalg.norm(points, axis=1) > _FURTHEST
    if far.any():
        name = landmarks.names[int(far.argmax())]
        raise InputError(
            f"{job.mesh}: its landmark {name!r:.60} lies far outside of it; give the file's own axes and unit"
        )
    spread = sample_surface(upright.surface, SURFACE_POINTS, 0)
    depth = cKDTree(spread).query(points)[0]
    seen = visible(upright.surface, points, cameras, _HIDDEN + _DEPTHS * depth) & known
    return {
        "keypoint_names": list(landmarks.names),
        "pairs": [list(pair) for pair in landmarks.pairs],
        "known": known.tolist(),
        "keypoints_3d": points.tolist(),
        "keypoints_2d": cameras.project(torch.from_numpy(points).float()).numpy().tolist(),
        "visible": seen.tolist(),
        "surface": spread.round(4).tolist(),
    }
