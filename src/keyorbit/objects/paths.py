"""Objects, pictures and meshes by their paths: whether they are there, before there is anything that reads them."""

import json
from pathlib import Path
from typing import Any

from keyorbit.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def object_paths(path: Path) -> list[Path]:
    """The object folders or pictures that a path stands for, by name.

    Raises:
        InputError: there is nothing, or nothing usable.
    """
    if path.is_file():
        check_picture(path)
        return [path]
    if not path.is_dir():
        raise InputError(f"there is no file or folder at {path}")
    if (path / "meta.json").is_file():
        return [path]
    objects = sorted(child for child in path.iterdir() if (child / "meta.json").is_file())
    if not objects:
        objects = sorted(
            child for child in path.iterdir() if child.suffix.lower() in IMAGE_SUFFIXES and child.is_file()
        )
    if not objects:
        kinds = ", ".join(IMAGE_SUFFIXES)
        raise InputError(f"{path} holds no object folders (with meta.json) and no pictures ({kinds})")
    return objects


def check_picture(path: Path) -> None:
    """Whether a file is there that may be a picture.

    Raises:
        InputError: it is missing or empty.
    """
    if not path.is_file():
        raise InputError(f"there is no picture at {path}")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is an empty file, not a picture")


def check_mesh(path: Path) -> None:
    """Raise InputError where there is no mesh file."""
    if not path.is_file():
        raise InputError(f"no mesh file at {path}")


def photographs(folder: Path) -> list[Path]:
    """The pictures directly in a folder, by name.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder of photographs at {folder}")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def cameras_content(path: Path) -> Any:
    """What a JSON file of cameras holds.

    Raises:
        InputError: it is missing, or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise no_cameras(path, error) from error


def no_cameras(path: Path, error: Exception) -> InputError:
    """The error for a file that holds no cameras."""
    return InputError(f"{path} cannot be read as cameras (world_to_camera and intrinsics): {error}")
