"""Cameras of a user's photographs, from a file or a folder of any known format: read without torch."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyorbit.errors import InputError
from keyorbit.geometry.matrices import NERF, CameraMatrices
from keyorbit.objects.colmap import colmap_models, read_colmap
from keyorbit.objects.shots import Shots, chosen_shots
from keyorbit.objects.transforms_json import transforms_in
from keyorbit.storage.content import json_in, text_of
from keyorbit.values import from_values

log = logging.getLogger(__name__)

# Room for tens of thousands of cameras, of which a model takes as many as it has views.
_LARGEST = 16 * 2**20
# What NeRF's scenes have instead of transforms.json.
_SPLITS = ("train", "val", "test")
_KNOWN = "give a COLMAP model's folder, a transforms.json, or a JSON file with world_to_camera and intrinsics"


@dataclass(frozen=True)
class _Below:
    """A file that has its cameras below a name, as an object's meta.json has."""

    cameras: CameraMatrices


def check_camera_files(path: Path, views: Path, photographs: Sequence[Path]) -> None:
    """Raise an error unless there are cameras at a path, with the photographs' names if they have names.

    Raises:
        InputError: as :func:`read_cameras` and :func:`keyorbit.objects.shots.chosen_shots`.
    """
    told = read_cameras(path)
    if not isinstance(told, CameraMatrices):
        chosen_shots(told, views, photographs)


def read_cameras(path: Path) -> CameraMatrices | list[Shots]:
    """Read the cameras at a path.

    Args:
        path: a JSON file with ``world_to_camera`` and ``intrinsics``, at the top level or below ``cameras``; a
            ``transforms.json``; a folder with a COLMAP model; or a project's folder that holds one of these.

    Returns:
        Cameras in the order of the photographs; or the named ones of each source in a folder, the likeliest first.

    Raises:
        InputError: files are missing, damaged, or hold nothing of the kind.
    """
    if not path.is_dir():
        return _read_file(path)
    if not any((path / f"cameras.{suffix}").exists() for suffix in ("txt", "bin")):
        files = [path / "transforms.json", *(path / f"transforms_{split}.json" for split in _SPLITS)]
        if there := [file for file in files if file.is_file()]:
            # transforms.json has all photographs; the others have a part each.
            return _joined(path, there[:1] if there[0] == files[0] else there)
    models = colmap_models(path)
    log.info("COLMAP models in %s: %s", path, ", ".join(map(str, models)))
    return [read_colmap(model) for model in models]


def _joined(folder: Path, files: Sequence[Path]) -> list[Shots]:
    read = [transforms_in(_content(file), file) for file in files]
    if len(read) == 1:
        return read
    names = ", ".join(file.name for file in files)
    return [Shots(f"{folder} ({names})", tuple(shot for part in read for shot in part.shots), NERF)]


def _read_file(path: Path) -> CameraMatrices | list[Shots]:
    if path.suffix.lower() in (".bin", ".txt") and path.stem in ("cameras", "images") and path.is_file():
        raise InputError(f"{path} is one file of a COLMAP model: give the folder that it is in, {path.parent}")
    try:
        content = _content(path)
    except InputError as error:
        if path.suffix.lower() == ".json" or not path.is_file():
            raise
        raise InputError(f"{error}; {_KNOWN}") from error
    if isinstance(content, list):
        whose = "3D Gaussian Splatting's own format" if _has(content, "img_name") else "a list"
        whose = "OpenSfM's own format" if _has(content, "shots") else whose
        raise InputError(f"{path} is {whose}, which is not read here: {_KNOWN}")
    if isinstance(content, dict) and "frames" in content:
        return [transforms_in(content, path)]
    if isinstance(content, dict) and "cameras" in content:
        return from_values(_Below, content, str(path), others=True).cameras
    return from_values(CameraMatrices, content, str(path), others=True)


def _has(content: list[Any], key: str) -> bool:
    return bool(content) and isinstance(content[0], dict) and key in content[0]


def _content(path: Path) -> Any:
    return json_in(text_of(path, _LARGEST), str(path), infinite=True)
