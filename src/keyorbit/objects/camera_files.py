"""Cameras of a user's photographs: a JSON file, or a folder of COLMAP's. Read without torch, before any model."""

from dataclasses import dataclass
from pathlib import Path

from keyorbit.geometry.matrices import CameraMatrices
from keyorbit.objects.colmap import read_colmap
from keyorbit.storage.content import json_in, text_of
from keyorbit.values import from_values

# Room for tens of thousands of cameras, of which a model takes as many as it has views.
_LARGEST = 16 * 2**20


@dataclass(frozen=True)
class _Below:
    """A file that has its cameras below a name, as an object's meta.json has."""

    cameras: CameraMatrices


def check_camera_files(path: Path) -> None:
    """Raise an error unless there are cameras at a path.

    Raises:
        InputError: as :func:`read_camera_file` for a file, and :func:`keyorbit.objects.colmap.read_colmap` for a
            folder.
    """
    if path.is_dir():
        read_colmap(path)
    else:
        read_camera_file(path)


def read_camera_file(path: Path) -> CameraMatrices:
    """Read a JSON file with ``world_to_camera`` and ``intrinsics``, at the top level or below ``cameras``.

    Raises:
        InputError: it is missing, not JSON, or holds no such matrices.
    """
    content = json_in(text_of(path, _LARGEST), str(path), infinite=True)
    if isinstance(content, dict) and "cameras" in content:
        return from_values(_Below, content, str(path), others=True).cameras
    return from_values(CameraMatrices, content, str(path), others=True)
