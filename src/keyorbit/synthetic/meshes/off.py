"""OFF files of text (http://www.geomview.org/docs/html/OFF.html): polygons, with colours of vertices or faces."""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from keyorbit.errors import InputError
from keyorbit.synthetic.meshes.materials import Material
from keyorbit.synthetic.meshes.parts import Part, check_count

# Counts may follow on the same line, in ModelNet's files even without a space.
_HEAD = re.compile(r"(ST)?(C)?(N)?(4)?(n)?OFF\s*", re.IGNORECASE)
# Of faces without a colour where others have one; as trimesh's.
_GREY = 0.4


def off_part(content: bytes, where: str) -> Part:
    """Return what an OFF file of text holds; polygons become fans of triangles.

    Raises:
        InputError: it is binary, cut, or damaged; ``where`` names it.
    """
    lines = [line.partition("#")[0].split() for line in content.decode("utf-8-sig", "replace").splitlines()]
    rows = [words for words in lines if words]
    head = _HEAD.match(" ".join(rows[0])) if rows else None
    if head is not None:
        after = " ".join(rows[0])[head.end() :]
        rows[0] = after.split()
        rows = rows if rows[0] else rows[1:]
    if rows and rows[0][0].upper() == "BINARY":
        raise InputError(f"{where} is a binary OFF file, which is not read here: save it as text")
    try:
        count, polygons = (int(word) for word in rows[0][:2])
        places, told = rows[1 : count + 1], rows[count + 1 : count + 1 + polygons]
        if min(count, polygons) < 0 or len(told) < polygons:
            raise InputError(f"{where} is cut: it tells of {count:,} vertices and {polygons:,} faces")
        vertices = np.array([words[:3] for words in places], float).reshape(-1, 3)
        sizes = np.array([int(words[0]) for words in told], int)
        check_count(int((sizes - 2).clip(0).sum()), where)
        faces = [one for words, size in zip(told, sizes.tolist(), strict=True) for one in _fan(words, size)]
        triangles = np.array(faces, np.int64).reshape(-1, 3)
        normals, laid = 3 * bool(head and head[3]), 2 * bool(head and head[1])
        own = [words[3 + normals : len(words) - laid] for words in places] if head and head[2] else []
        colours = _colours(own)
        if colours is not None:
            shown = colours[triangles.clip(0, max(len(vertices) - 1, 0))]  # what is no vertex is found afterwards
        else:
            colours = _colours([words[size + 1 :] for words, size in zip(told, sizes.tolist(), strict=True)])
            shown = None if colours is None else np.repeat(colours, (sizes - 2).clip(0), 0)[:, None].repeat(3, 1)
    except InputError:
        raise
    except (ValueError, IndexError) as error:
        raise InputError(f"{where} cannot be read as a mesh: it is damaged or cut ({error})") from error
    grey = Material((_GREY, _GREY, _GREY, 1.0), stated=False)
    return Part(vertices, triangles, grey if shown is None else Material(), None, shown)


def _fan(words: Sequence[str], size: int) -> list[tuple[int, int, int]]:
    corners = [int(word) for word in words[1 : size + 1]]
    if len(corners) < size:
        raise ValueError(f"a face of {size} corners has {len(corners)}")
    return [(corners[0], corners[i], corners[i + 1]) for i in range(1, size - 1)]


def _colours(rows: Sequence[Sequence[str]]) -> Float[ndarray, "row 4"] | None:
    """Return a colour for each row, 0…1; None where none has one. Whole numbers are of 0…255; one is of a map."""
    given = [i for i, words in enumerate(rows) if len(words) in (3, 4)]
    if not given:
        return None
    found = np.full((len(rows), 4), _GREY, np.float32)
    found[:, 3] = 1
    whole = not any("." in word for i in given for word in rows[i])
    for size in (3, 4):
        own = [i for i in given if len(rows[i]) == size]
        if own:
            found[own, :size] = np.array([rows[i] for i in own], np.float32) / (255 if whole else 1)
    found[:, :3] = found[:, :3].clip(0, 1)
    return found
