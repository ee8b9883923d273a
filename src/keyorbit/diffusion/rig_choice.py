"""Whose cameras a model's views may have: a rig that is known by name, or a file. Read without torch."""

from pathlib import Path

from keyorbit.diffusion.choices import RIGS
from keyorbit.errors import InputError
from keyorbit.objects.camera_files import read_camera_file
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
    read_camera_file(Path(rig))
