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
    if not _is_file(rig):
        raise InputError(
            f"the cameras of {short(rig)} are unknown: give one of {', '.join(RIGS)}, or a JSON file of cameras"
        )
    rig_file(Path(rig))


def check_rig_of(rig: str) -> None:
    """Whether the cameras that tokens name are still to be had; tokens keep the name of a file, and not what is in it.

    Raises:
        InputError: they are not.
    """
    if rig not in RIGS and not _is_file(rig):
        raise InputError(
            f"these tokens were discovered with the cameras in {short(rig)}, and there is no such file: give the file "
            "where it is now, --rig FILE.json (rig=)"
        )


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # no file has a name that the system does not allow
        return False


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
