"""What the figures need of a detection and of its object: some kilobytes, whatever the size of their pictures."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from keyorbit.detection.confidence import Confidence
from keyorbit.detection.input_camera import InputCamera
from keyorbit.geometry.keypoints import Keypoints2D, Keypoints3D
from keyorbit.objects.dataset import ObjectViews, Truth
from keyorbit.objects.description import Symmetry
from keyorbit.objects.framing import Framing
from keyorbit.objects.mesh import PlacedMesh
from keyorbit.results import Result


@dataclass(frozen=True, eq=False, repr=False)
class MeshOfOutcome:
    """A :class:`PlacedMesh` as tensors, without its colours."""

    model: str
    kind: str
    vertices: Float[Tensor, "vertex 3"]
    faces: Int[Tensor, "face 3"]
    rotation: Float[Tensor, "3 3"]
    centre: Float[Tensor, "3"]
    scale: float

    def placed(self) -> PlacedMesh:
        """The mesh, grey."""
        vertices, faces, rotation, centre = (x.numpy() for x in (self.vertices, self.faces, self.rotation, self.centre))
        return PlacedMesh(self.model, self.kind, vertices, faces, rotation, centre, self.scale, _grey)


@dataclass(frozen=True, eq=False, repr=False)
class Outcome(Result):
    """A detection without pictures, masks and heatmaps, and what figures read off these.

    Attributes:
        name: of the object.
        size: height and width of a view, pixels.
        on_object: share of the keypoints on the object's silhouette, over all views.
        extents: width and height of each view's silhouette, in sides of the view.
        keypoints_2d: as in the detection, and so are the others.
        keypoints_3d: None for a model of a single view.
        input_camera: None where there is none.
        framing: None for a model of a single view.
        confidence: None where it is not known.
        mesh: that the object was rendered from; None for others.
    """

    name: str
    size: tuple[int, int]
    on_object: Float[Tensor, ""]
    extents: Float[Tensor, "view 2"]
    keypoints_2d: Keypoints2D
    keypoints_3d: Keypoints3D | None
    input_camera: InputCamera | None
    framing: Framing | None
    confidence: Confidence | None
    mesh: MeshOfOutcome | None


@dataclass(frozen=True, eq=False, repr=False)
class Judgement(Result):
    """What became of one object: its truth, and what each set of tokens found on it.

    Attributes:
        name: of the object.
        truth: None where it has none.
        symmetry: see :class:`ObjectViews`.
        input_elevation_deg: of the input picture's camera; None where it is not known.
        outcomes: by the name of the tokens.
    """

    name: str
    truth: Truth | None
    symmetry: Symmetry
    input_elevation_deg: float | None
    outcomes: Mapping[str, Outcome]

    @property
    def thing(self) -> ObjectViews:
        """The object for its truth alone, as :meth:`ObjectViews.without_pictures` has it."""
        nothing, elevation = Image.new("RGB", (1, 1)), self.input_elevation_deg
        return ObjectViews(self.name, nothing, truth=self.truth, input_elevation_deg=elevation, symmetry=self.symmetry)


def _grey(points: Float[ndarray, "point 3"]) -> UInt8[ndarray, "point 3"]:
    return np.full(points.shape, 128, np.uint8)
