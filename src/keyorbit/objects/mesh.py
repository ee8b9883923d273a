"""The mesh that an object was rendered from, in the axes and the unit of its file, and where it stands in the world."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from keyorbit.geometry.triangles import OnTriangles, nearest_on_triangles

Colours = Callable[[Float[ndarray, "point 3"]], UInt8[ndarray, "point 3"]]


@dataclass(frozen=True, eq=False)
class PlacedMesh:
    """A mesh file's triangles, and how they became an object of the world.

    A point p of the file is at ``scale · rotation · (p − centre)`` in the world.

    Attributes:
        model: name of the mesh: that of its file, or of its folder where a data set calls all files alike.
        kind: of the mesh: the name of the folder that it is kept in.
        vertices: in the file's axes and unit.
        faces: three vertices each. For files of triangles, vertices and faces are numbered as in the file; those of
            several parts one part after another, and polygons as fans.
        rotation: from the file's axes to the world's.
        centre: in the file's axes and unit; it becomes the world's origin.
        scale: from the file's unit to the world's.
        colours: of points in the file's axes that lie on the mesh, sRGB.
    """

    model: str
    kind: str
    vertices: Float[ndarray, "vertex 3"]
    faces: Int[ndarray, "face 3"]
    rotation: Float[ndarray, "3 3"]
    centre: Float[ndarray, "3"]
    scale: float
    colours: Colours = field(repr=False)

    def to_world(self, points: Float[ndarray, "point 3"]) -> Float[ndarray, "point 3"]:
        """Return points of the file as points of the world."""
        moved: ndarray = (points - self.centre) @ self.rotation.T * self.scale
        return moved

    def to_file(self, points: Float[ndarray, "point 3"]) -> Float[ndarray, "point 3"]:
        """Return points of the world as points of the file."""
        moved: ndarray = points @ self.rotation / self.scale + self.centre
        return moved

    def nearest(self, points: Float[ndarray, "point 3"]) -> OnTriangles:
        """Return the mesh's points that are nearest to points of the world; these are in the file's axes and unit."""
        return nearest_on_triangles(self.vertices[self.faces], self.to_file(np.asarray(points, float)))

    def nearest_corner(self, on: OnTriangles) -> Int[ndarray, " point"]:
        """Return the vertex of each point's face that is nearest to it."""
        away = np.linalg.norm(self.vertices[self.faces[on.face]] - on.places[:, None], axis=2)
        corners: ndarray = self.faces[on.face, away.argmin(1)]
        return corners
