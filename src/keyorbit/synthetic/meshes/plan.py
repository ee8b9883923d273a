"""What is rendered of given mesh files, and which way up."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from keyorbit.errors import InputError
from keyorbit.synthetic.choices import AUTO_UP
from keyorbit.synthetic.meshes.files import read_mesh
from keyorbit.synthetic.meshes.jobs import MeshJob, MeshView
from keyorbit.synthetic.meshes.landmarks import LandmarkFiles
from keyorbit.synthetic.meshes.parts import joined
from keyorbit.synthetic.meshes.upright import upward_axis, upward_evidence

# Of a folder's meshes, as many are looked at to judge the axis that all of them have.
_LOOKED_AT = 16


def planned(
    meshes: Sequence[tuple[Path, Path]],
    folders: Sequence[Path],
    view: MeshView,
    up: str = AUTO_UP,
    landmarks: Path | None = None,
) -> list[MeshJob]:
    """Return what to render.

    Files of one format under one folder stand alike: where neither format nor landmarks tell the upward axis, it is
    judged once, by the shapes of up to 16 of them.

    Args:
        meshes: files, with the folders under which they were found.
        folders: the object folders to write.
        view: how they are seen.
        up: their upward axis, or ``auto``, the default.
        landmarks: file of landmarks. Default None: what lies beside each mesh.

    Raises:
        InputError: a file of landmarks is damaged, or none of the meshes is in the one that was given.
    """
    files = LandmarkFiles(landmarks)
    jobs = [MeshJob(mesh, folder, view, up, files.of(mesh)) for (mesh, _), folder in zip(meshes, folders, strict=True)]
    if landmarks is not None and not any(job.landmarks for job in jobs):
        raise InputError(f"{landmarks} has landmarks of none of the meshes; they are found by the files' names")
    alike: dict[tuple[Path, str], list[int]] = defaultdict(list)
    for i, (mesh, folder) in enumerate(meshes):
        alike[folder, mesh.suffix.lower()].append(i)
    for group in alike.values():
        if up == AUTO_UP and len(group) > 1 and (axis := _judged([jobs[i] for i in group])):
            for i in group:
                jobs[i] = replace(jobs[i], up=axis, judged=True)
    return jobs


def _judged(jobs: Sequence[MeshJob]) -> str | None:
    """Return the axis that shapes tell of meshes of one format; None where the format or landmarks tell it."""
    if any(job.landmarks is not None and job.landmarks.up for job in jobs):
        return None
    evidence = 0.0
    for job in jobs[:: -(-len(jobs) // _LOOKED_AT)]:
        try:
            mesh = read_mesh(job.mesh)
        except InputError:  # it will be told when it is rendered
            continue
        if mesh.up is not None:
            return None
        vertices, faces, _ = joined(mesh.parts)
        evidence += upward_evidence(vertices, faces, job.mesh.suffix)
    return upward_axis(evidence)
