"""Find objects, pictures and meshes by their paths, before the libraries that read them are imported."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from keyorbit.errors import InputError
from keyorbit.objects.background import CUT_OUT_FILE, INSTALL
from keyorbit.storage.addresses import is_remote
from keyorbit.storage.folder_names import readable

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"),
    *(".gif", ".avif", ".jfif", ".jpe", ".mpo", ".apng", ".jp2", ".tga", ".ppm", ".pgm", ".pnm"),
)
_HEIC = (".heic", ".heif", ".hif")
# What people keep in folders of pictures and is not read here. Of a raw file one would get the thumbnail.
_UNREAD = (
    *_HEIC,
    *(".jxl", ".svg", ".pdf", ".psd", ".xcf", ".ai", ".eps", ".exr", ".hdr"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef"),
)
# How PNG, JPEG, GIF and WebP begin, whatever their names: telephones send a JPEG as IMG_1.HEIC.
_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF")
_KIND = "of a kind that is not read here"
_NAMED = 3
MESH_SUFFIXES = (".glb", ".gltf", ".vrm", ".obj", ".off", ".ply", ".stl", ".dae", ".3mf")
MESH_ARCHIVES = (".zip", ".tar.gz", ".tar.bz2", ".bz2")
# Other programs' meshes and scenes, which whoever gives them has to export first.
_UNREAD_MESHES = (
    *(".fbx", ".blend", ".usd", ".usda", ".usdc", ".usdz", ".3ds", ".max", ".c4d", ".ma", ".mb"),
    *(".step", ".stp", ".igs", ".iges", ".x3d", ".wrl", ".skp", ".pcd", ".las", ".xyz", ".vtk", ".ctm"),
)
_PATTERN = "*?["
# Such as https://…; one letter is a Windows drive.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)
# Levels of folders below a given one in which meshes are looked for: links may lead round in a circle.
_DEEPEST_MESH = 5
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
        raise nothing_at(path, "file or folder")
    if (path / "meta.json").is_file():
        return [path]
    objects = sorted(child for child in path.iterdir() if not _hidden(child) and (child / "meta.json").is_file())
    objects = objects or _pictures(path)
    if not objects:
        kinds, left = ", ".join(IMAGE_SUFFIXES), left_out(path)
        raise InputError(
            f"{path} holds no object folders (with meta.json) and no pictures ({kinds})"
            + (f"; {left}" if left else "")
            + _pictures_below(path)
        )
    return objects


def nothing_at(path: Path, what: str) -> InputError:
    """Return the error where there is no such thing, which says so of an address from a browser too."""
    if address := _ADDRESS.match(path.as_posix()):
        kind, rest = address.groups()  # of several slashes, a path keeps one
        if kind.lower() == "file":
            return InputError(f"file:///{rest} is an address: give the path alone, /{rest}")
        return InputError(f"{kind}://{rest} is an address on a network, not a file: download it, and give its path")
    return InputError(f"there is no {what} at {path}")


def picture_names(paths: Sequence[Path]) -> list[str]:
    """Return the pictures' names. Names that differ in capitals only count as the same."""
    count = Counter(path.stem.casefold() for path in paths)
    return [readable(path.stem if count[path.stem.casefold()] == 1 else path.name) for path in paths]


def _pictures_below(path: Path) -> str:
    """Return which folder in this one to give; empty where none has pictures."""
    below = (inner for inner in sorted(path.iterdir()) if inner.is_dir() and not _hidden(inner))
    found = next((inner for inner in below if os.access(inner, os.R_OK | os.X_OK) and _pictures(inner)), None)
    return f"; there are pictures in {found}: give that folder" if found else ""


def check_picture(path: Path) -> None:
    """Raise an error unless there is a file that may be a picture.

    Raises:
        InputError: it is missing, empty, or of a kind that is not read here.
    """
    if not path.is_file():
        raise nothing_at(path, "picture")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is an empty file, not a picture")
    if not _readable(path):
        kind = "a HEIC picture" if _suffix(path) in _HEIC else f"a {_suffix(path)} file"
        raise InputError(f"{path} cannot be read as a picture: it is {kind}; save it as JPEG or PNG")


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
        InputError: there is no such file or folder, a file is given for several pictures, a folder has a mask for none
            of them, or a mask is itself one of the pictures.
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
    for path, own in found.items():
        if own.resolve() in {other.resolve() for other in paths}:
            raise InputError(
                f"{own} is named as the mask of {path.name} and is one of the pictures too: keep masks in a folder of "
                "their own"
            )
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


def check_mesh(path: Path) -> None:
    """Raise InputError where there is no mesh file."""
    if not path.is_file():
        raise nothing_at(path, "mesh file")


def without_meshes(given: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the paths that stand for object folders and pictures, and those that stand for meshes.

    A file is told by its suffix. A folder stands for meshes if it has no objects and no pictures, and meshes below it.
    A pattern such as ``meshes/*.glb`` stands for what it matches. What lies at an address is among the former.

    Raises:
        InputError: nothing matches a pattern.
    """
    others, meshes = list[Path](), list[Path]()
    for path in (one for pattern in given for one in _matching(pattern)):
        (meshes if _stands_for_meshes(path) else others).append(path)
    return others, meshes


def named_as_mesh(path: Path) -> bool:
    """Whether a user may take a file for a mesh, by its suffix."""
    return path.name.lower().endswith((*MESH_SUFFIXES, *_UNREAD_MESHES, *MESH_ARCHIVES))


def _stands_for_meshes(path: Path) -> bool:
    if is_remote(path):
        return False
    if not path.is_dir():
        return named_as_mesh(path)
    try:
        object_paths(path)
    except InputError:
        return bool(_meshes_below(path, _DEEPEST_MESH))
    return False


def _matching(path: Path) -> list[Path]:
    if is_remote(path) or path.exists() or not any(letter in str(path) for letter in _PATTERN):
        return [path]
    root = Path(path.anchor or ".")
    pattern = str(path.relative_to(path.anchor)) if path.anchor else str(path)
    matched = [one for one in sorted(root.glob(pattern)) if not _hidden(one)]
    if not matched:
        raise InputError(f"nothing matches {path}")
    return matched


def mesh_paths(given: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Return mesh files, each once, with the folder under which each was found.

    Args:
        given: mesh files; folders, in which they are looked for by their suffixes, up to five levels below; and
            patterns such as ``meshes/*.glb``.

    Raises:
        InputError: one of them names none.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    for path in given:
        for mesh, folder in _meshes(path):
            found.setdefault(mesh.resolve(), (mesh, folder))
    return list(found.values())


def _meshes(path: Path) -> list[tuple[Path, Path]]:
    if path.is_file():
        return [(path, path.parent)]
    if path.is_dir():
        found = [(mesh, path) for mesh in _meshes_below(path, _DEEPEST_MESH)]
        if not found:
            raise InputError(f"{path} holds no mesh files ({', '.join(MESH_SUFFIXES)}); give archives one by one")
        return found
    if [path] != (matched := _matching(path)):
        return [pair for one in matched for pair in _meshes(one)]
    check_mesh(path)
    return []


def _meshes_below(folder: Path, levels: int) -> list[Path]:
    try:
        inside = [path for path in sorted(folder.iterdir()) if not _hidden(path)]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error
    found = [path for path in inside if path.is_file() and _suffix(path) in MESH_SUFFIXES]
    for inner in inside if levels else ():
        if inner.is_dir():
            found += _meshes_below(inner, levels - 1)
    return found


def mesh_names(meshes: Sequence[tuple[Path, Path]]) -> list[str]:
    """Return a name for each mesh: that of its file; where several have it, with those of its folders, then its kind.

    ``meshes`` are files with the folders under which they were found.
    """
    names = [mesh.stem for mesh, _ in meshes]
    for longer in (_with_folders, _with_kind):
        twice = {name for name, count in Counter(names).items() if count > 1}
        names = [longer(*pair) if name in twice else name for name, pair in zip(names, meshes, strict=True)]
    return names


def _with_folders(mesh: Path, folder: Path) -> str:
    return "_".join((folder.name, *mesh.relative_to(folder).with_suffix("").parts)).lstrip("_")


def _with_kind(mesh: Path, folder: Path) -> str:
    return f"{_with_folders(mesh, folder)}_{_suffix(mesh)[1:]}"


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


def named_as_picture(path: Path) -> bool:
    """Whether a user may take a file for a picture: by its suffix, and as it is not hidden."""
    return _suffix(path) in (*IMAGE_SUFFIXES, *_UNREAD) and not _hidden(path)


def left_out(folder: Path) -> str:
    """Return in one line what in a folder of pictures is named as a picture and is not read, counted; empty for none.

    These are hidden files, such as macOS keeps beside files on other disks, empty ones, folders, and kinds that are not
    read here.
    """
    found: dict[str, list[str]] = {}
    for path, why in _judged(folder) if folder.is_dir() else ():
        if why:
            found.setdefault(why, []).append(path.name)
    parts = [f"{len(names)} {why}" for why, names in found.items()]
    if names := found.get(_KIND):
        few = ", ".join(names[:_NAMED]) + (" and more" if len(names) > _NAMED else "")
        parts[list(found).index(_KIND)] += f" ({few}): save as PNG or JPEG"
    count = sum(map(len, found.values()))
    return f"skipped {count} {'file' if count == 1 else 'files'}: {', '.join(parts)}" if count else ""


def _pictures(folder: Path) -> list[Path]:
    """Return the pictures in a folder, by name."""
    return [path for path, why in _judged(folder) if not why]


def _judged(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield what is named as a picture, by name, with the reason why it is not read; empty where it is."""
    for path in sorted(folder.iterdir()):
        if _suffix(path) not in (*IMAGE_SUFFIXES, *_UNREAD):
            continue
        if _hidden(path):
            yield path, "hidden"
        elif not path.is_file():
            yield path, "not a file"
        elif path.stat().st_size == 0:
            yield path, "empty"
        else:
            yield path, "" if _readable(path) else _KIND


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _suffix(path: Path) -> str:
    return path.suffix.lower().rstrip()


def _readable(path: Path) -> bool:
    """Whether a file is of a kind that is read here: by its name, or by its first bytes where the name denies it."""
    denied = _suffix(path) in _UNREAD
    if _suffix(path) == ".avif":
        from PIL import Image  # not all versions and builds can

        denied = ".avif" not in Image.registered_extensions()
    if not denied:
        return True
    with path.open("rb") as file:
        return file.read(4).startswith(_BEGINNINGS)
