"""Landmarks of meshes from JSON files: points by name, or KeypointNet's annotations.

Points by name, in the mesh file's axes and unit, for one mesh or for all in a folder:

    {"up": "y", "keypoints": {"horse": {"head": [0, 1.5, 0.9], "tail": [0, 1, -1]}, "cow": {…}}}

KeypointNet (You et al. 2020, https://github.com/qq456cvb/KeypointNet): a list of models with points by semantic id.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from keyorbit.errors import InputError
from keyorbit.storage.content import json_of
from keyorbit.synthetic.choices import UPS
from keyorbit.values import Finite, from_values

SUFFIX = ".keypoints.json"
Place = tuple[Finite, Finite, Finite]
# How landmarks of KeypointNet are called here.
_SEMANTIC = re.compile(r"semantic -?[0-9]+")
# How the left one of two is called, and the right one.
_TWINS = ((".L", ".R"), ("_L", "_R"), (".l", ".r"), ("_l", "_r"), ("left", "right"), ("Left", "Right"))


@dataclass(frozen=True)
class Landmarks:
    """Landmarks of one mesh.

    Attributes:
        names: of all landmarks in the file, so that all its meshes have the same ones.
        pairs: left and right twins, by index.
        points: in the mesh file's axes and unit; of any numbers for those that the mesh lacks.
        known: whether the mesh has each.
        up: the mesh file's upward axis. None where the landmarks' file does not tell.
    """

    names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    points: Float[ndarray, "landmark 3"]
    known: Bool[ndarray, " landmark"]
    up: str | None = None


@dataclass(frozen=True)
class _Named:
    keypoints: dict[str, dict[str, Place | None]]
    up: str | None = None

    def __post_init__(self) -> None:
        if self.up is not None and self.up not in UPS[1:]:
            raise InputError(f"up cannot be {self.up!r:.40}; it must be one of {', '.join(UPS[1:])}")


@dataclass(frozen=True)
class _Point:
    xyz: Place
    semantic_id: int


@dataclass(frozen=True)
class _Model:
    model_id: str | int
    keypoints: tuple[_Point, ...] = ()


@dataclass(frozen=True)
class _Models:
    models: tuple[_Model, ...]


class LandmarkFiles:
    """Files of landmarks, each read once.

    Args:
        file: the one file. Default None: what lies beside a mesh, ``NAME.keypoints.json``, else that of its folder, in
            it or beside it, ``FOLDER.keypoints.json``.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._read: dict[Path, dict[str, Landmarks]] = {}

    def of(self, mesh: Path) -> Landmarks | None:
        """Return the landmarks of a mesh; None where there are none.

        They are looked for by the mesh's name, with or without its suffix, or that of a folder that it is in
        (``MODEL/models/mesh.obj``).

        Raises:
            InputError: as :func:`read_landmarks`, or a file that is named after the mesh has none of it.
        """
        place = mesh.absolute()
        folder = place.parent
        beside = [place.with_name(place.stem + SUFFIX), folder / (folder.name + SUFFIX)]
        beside += [folder.with_name(folder.name + SUFFIX)] if folder.name else []
        for candidate in [self._file] if self._file is not None else filter(Path.is_file, beside):
            if candidate not in self._read:
                self._read[candidate] = read_landmarks(candidate)
            known = self._read[candidate]
            for name in (place.stem, place.name, *(parent.name for parent in place.parents[:3])):
                if name in known:
                    return known[name]
            if self._file is None and candidate == beside[0] != beside[1]:
                names = ", ".join(sorted(known))[:100]
                raise InputError(f"{candidate} has no keypoints of {place.stem!r}, the mesh beside it, but of {names}")
        return None


def read_landmarks(path: Path) -> dict[str, Landmarks]:
    """Read a file of landmarks; return them by the names of the meshes.

    Raises:
        InputError: it is missing, damaged, or of none of the forms above.
    """
    values = json_of(path)
    if isinstance(values, list):
        told = from_values(_Models, {"models": values}, str(path), others=True)
        points = {
            str(model.model_id): {f"semantic {p.semantic_id}": p.xyz for p in reversed(model.keypoints)}
            for model in told.models
        }
        names = sorted({name for one in points.values() for name in one}, key=lambda name: int(name.split()[1]))
        up = None
    else:
        given = from_values(_Named, _by_mesh(values, path), str(path), others=True)
        points = {mesh: {n: p for n, p in own.items() if p is not None} for mesh, own in given.keypoints.items()}
        names, up = list(dict.fromkeys(name for own in given.keypoints.values() for name in own)), given.up
    if not names:
        raise InputError(f"{path} holds no keypoints")
    return {mesh: _landmarks(own, names, up) for mesh, own in points.items() if own}


def _by_mesh(values: Any, path: Path) -> Any:
    """Return the values with the points of one mesh under its name."""
    points = values.get("keypoints") if isinstance(values, dict) else None
    if isinstance(points, dict) and points and all(isinstance(one, list) or one is None for one in points.values()):
        return {**values, "keypoints": {path.name.removesuffix(SUFFIX): points}}
    return values


def _landmarks(own: dict[str, Place], names: list[str], up: str | None) -> Landmarks:
    points = np.array([own.get(name, (0.0, 0.0, 0.0)) for name in names], float)
    known = np.array([name in own for name in names])
    return Landmarks(tuple(names), _pairs(names), points, known, up)


def _pairs(names: list[str]) -> tuple[tuple[int, int], ...]:
    found = {}
    for i, name in enumerate(names):
        for left, right in _TWINS:
            fits = name.endswith(left) if left[0] in "._" else left in name
            twin = name[: -len(left)] + right if left[0] in "._" else name.replace(left, right)
            if fits and twin != name and twin in names:
                found[i] = names.index(twin)
                break
    return tuple(found.items())


def with_common_names(several: Sequence[Landmarks | None]) -> list[Landmarks | None]:
    """Return landmarks of several meshes with the names of all: each mesh knows those that it has.

    KeypointNet's are in the order of their numbers, others in that of the files.
    """
    names = list(dict.fromkeys(name for one in several if one is not None for name in one.names))
    if all(_SEMANTIC.fullmatch(name) for name in names):
        names.sort(key=lambda name: int(name.split()[1]))
    return [None if one is None else _extended(one, names) for one in several]


def _extended(one: Landmarks, names: list[str]) -> Landmarks:
    if names == list(one.names):
        return one
    own = {
        name: (float(x), float(y), float(z))
        for name, (x, y, z), known in zip(one.names, one.points, one.known, strict=True)
        if known
    }
    return _landmarks(own, names, one.up)
