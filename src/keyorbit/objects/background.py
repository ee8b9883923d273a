"""What is done with the background of a picture, and where masks that a user made lie; without any library."""

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


def mask_files(mask: Path, paths: list[Path]) -> list[Path | None]:
    """Return the mask of each picture or object folder; None for those that have none.

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
        if len(paths) > 1:
            raise InputError(f"{mask} is one mask for {len(paths)} pictures: give a folder of masks with their names")
        check_picture(mask)
        return [mask]
    found = [_mask_of(path, mask) for path in paths]
    if not any(found):
        one = paths[0].stem if paths[0].is_file() else paths[0].name
        raise InputError(f"{mask} has no mask of these pictures: one of {paths[0].name} is called {one}.png")
    return found


def _mask_of(path: Path, folder: Path) -> Path | None:
    names = [path.name, path.stem] if path.is_file() else [path.resolve().name]
    for name in names:
        for behind in ("", ".mask"):
            for suffix in IMAGE_SUFFIXES:
                if (place := folder / f"{name}{behind}{suffix}").is_file():
                    return place
        if (place := folder / name / CUT_OUT_FILE).is_file():
            return place
    return None
