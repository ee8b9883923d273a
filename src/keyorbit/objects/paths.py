"""Find objects, pictures and meshes by their paths, before the libraries that read them are imported."""

from pathlib import Path

from keyorbit.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
# Levels of folders below that of the photographs that are looked into: links may lead round in a circle.
_DEEPEST = 3


def object_paths(path: Path) -> list[Path]:
    """Return the object folders or pictures at a path, by name.

    Raises:
        InputError: there are none.
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
        objects = [child for child in _pictures(path) if child.is_file()]
    if not objects:
        kinds = ", ".join(IMAGE_SUFFIXES)
        raise InputError(f"{path} holds no object folders (with meta.json) and no pictures ({kinds})")
    return objects


def check_picture(path: Path) -> None:
    """Raise an error unless there is a file that may be a picture.

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
    """Return the pictures directly in a folder, or if there are none, those in folders up to three levels below.

    They are sorted by name. Hidden folders are not looked into.

    Raises:
        InputError: there is no such folder, or it cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder of photographs at {folder}")
    try:
        return _photographs(folder, _DEEPEST)
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error


def _photographs(folder: Path, levels: int) -> list[Path]:
    found = _pictures(folder)
    if found or not levels:
        return found
    below = (path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith("."))
    return [path for inner in below for path in _photographs(inner, levels - 1)]


def _pictures(folder: Path) -> list[Path]:
    """Return what in a folder is named as a picture, by name, without what macOS keeps beside files on other disks."""
    named = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in named if not path.name.startswith("._"))
