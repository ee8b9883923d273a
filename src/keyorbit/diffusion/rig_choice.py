"""Whose cameras a model's views may have: a rig that is known by name, or a file. Read without torch."""

from pathlib import Path

from keyorbit.diffusion.choices import RIGS
from keyorbit.errors import InputError
from keyorbit.geometry.matrices import CameraMatrices
from keyorbit.objects.camera_files import read_cameras
from keyorbit.values import short


def check_rig(rig: str) -> None:
    """Whether there are such cameras: one of :data:`keyorbit.diffusion.choices.RIGS`, or a JSON file that has some.

    Raises:
        InputError: there are none.
    """
    if rig in RIGS:
        return
    try:
        there = Path(rig).is_file()
    except (OSError, ValueError):  # no file has a name that the system does not allow
        there = False
    if not there:
        raise InputError(
            f"the cameras of {short(rig)} are unknown: give one of {', '.join(RIGS)}, or a JSON file of cameras"
        )
    rig_file(Path(rig))


def rig_file(path: Path) -> CameraMatrices:
    """Read the cameras of a rig, in the order of the views.

    Raises:
        InputError: as :func:`keyorbit.objects.camera_files.read_cameras`, or the cameras are those of photographs.
    """
    found = read_cameras(path)
    if not isinstance(found, CameraMatrices):
        raise InputError(
            f"{path} has cameras of named photographs: a rig has world_to_camera and intrinsics of its views"
        )
    return found
