"""A mesh file as a surface that can be rendered: upright, in the unit sphere, in its colours."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from keyorbit.synthetic.choices import AUTO_UP
from keyorbit.synthetic.meshes.files import fit_sphere, read_mesh
from keyorbit.synthetic.meshes.materials import face_colours
from keyorbit.synthetic.meshes.parts import Part, joined
from keyorbit.synthetic.meshes.upright import upward_axis, upward_evidence
from keyorbit.synthetic.render import Surface

# Of a mesh whose file says nothing of its colour: dark enough that no side of it, lit or not, looks like the ground.
PLAIN = 0.25
# What programs write where nobody chose a colour: as linear light (glTF), and as sRGB (OBJ's Kd, trimesh's grey).
_UNCHOSEN_LINEAR, _UNCHOSEN = (1.0, 0.8), (1.0, 0.8, 0.64, 102 / 255)
# Rows are the world's axes in the file's: z up, and x where such files have their front.
_TO_WORLD = {
    "x": ((0, 1, 0), (0, 0, 1), (1, 0, 0)),
    "y": ((0, 0, 1), (1, 0, 0), (0, 1, 0)),
    "z": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "-x": ((0, 1, 0), (0, 0, -1), (-1, 0, 0)),
    "-y": ((0, 0, 1), (-1, 0, 0), (0, -1, 0)),
    "-z": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
}


@dataclass(frozen=True)
class Upright:
    """A mesh with z up, inside the sphere of radius 0.5 about the origin.

    Attributes:
        surface: to be rendered.
        up: the file's upward axis: x, y, z, -x, -y or -z.
        judged: whether that was judged by the shape; else the file, its format or the caller told it.
        plain: whether the file says nothing of its colour, and it is drawn in a grey that differs from the ground.
        rotation: from the file's axes to the world's.
        centre: of the mesh, in the world's axes and the file's unit.
        scale: from the file's unit to the world's.
        parts: of the file, in its own axes and colours.
    """

    surface: Surface
    up: str
    judged: bool
    plain: bool
    rotation: Float[ndarray, "3 3"]
    centre: Float[ndarray, "3"]
    scale: float
    parts: Sequence[Part]

    def placed(self, points: Float[ndarray, "point 3"]) -> Float[ndarray, "point 3"]:
        """Return points in the file's axes as points in the world."""
        moved: ndarray = (points @ self.rotation.T - self.centre) * self.scale
        return moved


def load_mesh(path: Path, up: str = AUTO_UP) -> Upright:
    """Read a mesh file (glTF, or any format of trimesh) with its textures and colours.

    Args:
        path: the file.
        up: its upward axis: x, y, z, -x, -y, -z; or ``auto``, the default: what the file or its format tells, else
            judged by its shape.

    Raises:
        InputError: as :func:`keyorbit.synthetic.meshes.files.read_mesh`, or the mesh has no extent.
    """
    import trimesh

    told = read_mesh(path)
    plain = _says_no_colour(told.parts)
    parts = [_in_grey(part) for part in told.parts] if plain else told.parts
    vertices, faces, look = joined(parts)
    judged = up == AUTO_UP and told.up is None
    axis = up
    if axis == AUTO_UP:
        axis = told.up or upward_axis(upward_evidence(vertices, faces, path.suffix))
    rotation = np.array(_TO_WORLD[axis], float)
    turned = vertices @ rotation.T
    centre, scale = fit_sphere(turned, str(path))
    mesh = trimesh.Trimesh((turned - centre) * scale, faces, process=False)
    surface = Surface(mesh, face_colours(look), look=look)
    return Upright(surface, axis, judged, plain, rotation, centre, scale, told.parts)


def _says_no_colour(parts: Sequence[Part]) -> bool:
    """Whether all parts have one and the same colour that programs write where nobody chose one."""
    if any(part.corner_colors is not None or part.corner_uv is not None or any(part.material.glow) for part in parts):
        return False
    materials = [part.material for part in parts]
    stated = {(material.color[:3], material.linear) for material in materials if material.stated}
    if not stated:
        return True
    (color, linear), several = next(iter(stated)), len(stated) > 1 or not all(m.stated for m in materials)
    unchosen = _UNCHOSEN_LINEAR if linear else _UNCHOSEN
    return not several and len(set(color)) == 1 and any(abs(color[0] - value) < 2 / 255 for value in unchosen)


def _in_grey(part: Part) -> Part:
    grey = (PLAIN, PLAIN, PLAIN, part.material.color[3])
    return replace(part, material=replace(part.material, color=grey, linear=False))
