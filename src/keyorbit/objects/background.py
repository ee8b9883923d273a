"""What is done with the background of a picture, and where masks that a user made lie; without any library."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from keyorbit.errors import InputError
from keyorbit.objects.paths import IMAGE_SUFFIXES, check_picture

# auto: cut the object out of a photograph, and leave a picture as it is whose object is known: by its alpha channel, by
# a plain background, or because its views are there. remove: cut out what has no alpha. keep: never.
Background = Literal["auto", "remove", "keep"]
# What told the object from the background: a user's mask, rembg's network, or OpenCV's GrabCut.
CutBy = Literal["mask", "rembg", "grabcut"]
# The name under which detections keep a cut-out, and under which it is found again.
CUT_OUT_FILE = "cutout.png"


# What installs rembg and OpenCV.
INSTALL = "pip install 'keyorbit[photos]'"


def check_removal(background: str | None) -> None:
    """Raise an error where backgrounds are to be removed and nothing that can do so is installed.

    Raises:
        InputError: neither rembg nor OpenCV is installed.
    """
    if background == "remove" and not any(find_spec(name) for name in ("rembg", "cv2")):
        raise InputError(f"--background remove needs rembg or OpenCV: {INSTALL}; or give --mask")


def mask_files(mask: Path, paths: Sequence[Path]) -> dict[Path, Path]:
    """Return the mask of each picture or object folder that has one.

    A file is the mask of the only picture. In a folder, a picture's mask has its name, with or without ``.mask`` behind
    it and with any picture's suffix, or it is the ``cutout.png`` of a folder of that name, as ``keyorbit detect``
    writes it.

    Raises:
        InputError: there is no such file or folder, a file is given for several pictures, or a folder has a mask for
            none of them.
    """
    if not mask.is_dir():
        if not mask.exists():
            raise InputError(f"there is no mask at {mask}")
        if len(paths) != 1:
            raise InputError(f"{mask} is one mask for {len(paths)} pictures: give a folder of masks with their names")
        check_picture(mask)
        return {paths[0]: mask}
    found = {path: own for path in paths if (own := _mask_of(path, mask)) is not None}
    if not found:
        first = next(_names(paths[0])) if paths else "name"
        raise InputError(f"{mask} has no mask of these pictures: one of them would be called {first}.png")
    return found


def _names(path: Path) -> Iterator[str]:
    """What a mask may be called after."""
    if path.is_file():
        yield path.stem
        yield path.name
    else:
        yield path.resolve().name


def _mask_of(path: Path, folder: Path) -> Path | None:
    for name in _names(path):
        files = (folder / f"{name}{behind}{suffix}" for behind in ("", ".mask") for suffix in IMAGE_SUFFIXES)
        for place in (*files, folder / name / CUT_OUT_FILE):
            # The picture itself is no mask: masks may lie in the folder of the pictures.
            if place.is_file() and not (path.is_file() and place.samefile(path)):
                return place
    return None
