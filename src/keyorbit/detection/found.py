"""What was found on one object."""

from dataclasses import dataclass, replace
from typing import overload

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from keyorbit.detection.confidence import NO_CONFIDENCE, Confidence
from keyorbit.detection.input_camera import InputCamera
from keyorbit.detection.provenance import Provenance
from keyorbit.errors import InputError
from keyorbit.geometry.constellation import Reading
from keyorbit.geometry.keypoints import Keypoints2D, Keypoints3D
from keyorbit.objects.framing import Box, Framing, cut, middle_square
from keyorbit.objects.mesh import PlacedMesh
from keyorbit.objects.pictures import Source
from keyorbit.results import Result, number_of, share, told


@dataclass(frozen=True, eq=False)
class Keypoint:
    """One keypoint of a detection.

    Attributes:
        index: its number.
        name: its own; empty for none.
        xyz: in world units; None without 3D.
        score: 0…1, in space, or in the only view.
        xy: in the unit square of each view, [view 2].
        confidence: probability that it is at its part; None where that is not known.
    """

    index: int
    name: str
    xyz: tuple[float, float, float] | None
    score: float
    xy: Float[Tensor, "view 2"]
    confidence: float | None


@dataclass(frozen=True, eq=False, repr=False)
class Detection(Result):
    """What was found on one object, with the views it was found on. All tensors are on the CPU.

    Attributes:
        name: of the object.
        input_image: its input picture, without its background if the object was cut out.
        views: 0…1, [view 3 height width].
        masks: True on the object.
        heatmaps: of every keypoint on every view; each sums to 1.
        keypoints_2d: places and scores in the views and on the input picture.
        keypoints_3d: points in space; None for a model of a single view.
        input_camera: of the input picture; None without 3D or with cameras that are not the model's own.
        input_heatmaps: on the input picture; None for a model that has no such pass.
        pairs: keypoints that mark mirror images of each other, such as a left and a right leg.
        framing: the square of the input picture that the model was shown, and the one in whose unit square places on
            the input picture are told; None for a model of a single view.
        reading: how the object fits the tokens' constellation; None where it was not read by one.
        confidence: how far to trust all this; None where that is not known, see :mod:`keyorbit.detection.confidence`.
        names: of the keypoints, an empty one where a keypoint has none; none at all where nobody gave them.
        withheld: keypoints that are kept out of pictures and files, by their numbers.
        mesh: that the object was rendered from; None for others.
        source: the file of the input picture; None where it is from none.
        made_with: the model, the tokens and the settings; None in detections that were put together by hand.
        kinds: of tokens that read the object, each with the probability that it knows the object; the first is the kind
            whose keypoints these are. Empty where the tokens were given (:mod:`keyorbit.detection.kinds`).
    """

    name: str
    input_image: Image.Image
    views: Float[Tensor, "view 3 height width"]
    masks: Bool[Tensor, "view height width"]
    heatmaps: Float[Tensor, "view token map_height map_width"]
    keypoints_2d: Keypoints2D
    keypoints_3d: Keypoints3D | None
    input_camera: InputCamera | None = None
    input_heatmaps: Float[Tensor, "token map_height map_width"] | None = None
    pairs: tuple[tuple[int, int], ...] = ()
    framing: Framing | None = None
    reading: Reading | None = None
    confidence: Confidence | None = None
    withheld: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    mesh: PlacedMesh | None = None
    source: Source | None = None
    made_with: Provenance | None = None
    kinds: tuple[tuple[str, float], ...] = ()

    def __repr__(self) -> str:
        points, trust = self.keypoints_3d, self.confidence
        size = number_of(self.keypoints_2d.xy.shape[1], "keypoint"), number_of(len(self.views), "view")
        error = None if points is None else float(points.reprojection_error.median())
        space = "in 2D only" if points is None else f"in 3D with a reprojection error of {share(error)} of the side"
        known = "" if trust is None else f"object {trust.verdict} ({trust.known:.0%})"
        return told("Detection", (repr(self.name), *size, space, known))

    def __len__(self) -> int:
        """The number of keypoints."""
        return self.keypoints_2d.xy.shape[1]

    @overload
    def __getitem__(self, which: int | str) -> Keypoint: ...
    @overload
    def __getitem__(self, which: slice) -> tuple[Keypoint, ...]: ...
    def __getitem__(self, which: int | str | slice) -> Keypoint | tuple[Keypoint, ...]:
        """One keypoint, by its number or its name; several, by a slice of numbers.

        Raises:
            IndexError: there is none of that number.
            KeyError: there is none of that name.
        """
        if isinstance(which, str):
            if not which or which not in self.names:
                raise KeyError(which)
            which = self.names.index(which)
        if isinstance(which, slice):
            return tuple(self[k] for k in range(len(self))[which])
        k = range(len(self))[which]
        points, flat, trust = self.keypoints_3d, self.keypoints_2d, self.confidence
        x, y, z = (0.0, 0.0, 0.0) if points is None else points.xyz[k].tolist()
        return Keypoint(
            k,
            self.names[k] if self.names else "",
            None if points is None else (x, y, z),
            float(flat.score[0, k] if points is None else points.score[k]),
            flat.xy[:, k],
            None if trust is None else float(trust.keypoints[k]),
        )

    @property
    def crop(self) -> Box:
        """The square of ``input_image`` that its places are told in: left, top, right, bottom in its pixels.

        It is the middle one, or one that has the whole object, and may then reach beyond the picture.
        """
        return middle_square(self.input_image) if self.framing is None else self.framing.shown

    @property
    def photograph_size(self) -> tuple[int, int]:
        """Width and height of the input picture: of its file, upright, or else of the picture in memory."""
        return self.input_image.size if self.source is None else (self.source.width, self.source.height)

    @property
    def photograph_xy(self) -> Float[Tensor, "keypoint 2"] | None:
        """Keypoints in pixels of the whole input picture, as it was before any crop: x right, y down.

        They count from its corner, so that the middle of the first pixel is 0.5, as COCO does. Of a file, the pixels
        are those of the upright photograph. None for a model that has no pass which reads the input picture. A model of
        a single view reads the picture itself.
        """
        flat = self.keypoints_2d
        xy = flat.xy[0] if len(flat.xy) == 1 else flat.input_xy
        if xy is None:
            return None
        left, top, right, bottom = self.crop
        found = xy * xy.new_tensor([right - left, bottom - top]) + xy.new_tensor([left, top])
        across, down = (a / b for a, b in zip(self.photograph_size, self.input_image.size, strict=True))
        return found * torch.tensor([across, down]).to(found)

    @property
    def input_square(self) -> Image.Image:
        """The square of the input picture that its places are told in: the middle one, if the object is in it."""
        how = self.framing
        if how is None or not how.recentred:
            return self.input_image.crop(middle_square(self.input_image))
        return cut(self.input_image, how.shown, how.ground)

    @property
    def trusted(self) -> bool:
        """Whether its keypoints mean anything: not where the tokens do not know the object."""
        return self.confidence is None or self.confidence.verdict != "unknown"

    def without_pictures(self) -> "Detection":
        """The same for measures of very many objects: without pictures and heatmaps, which take most of the memory.

        The views keep their shape, and are all 0.
        """
        nothing = self.views.new_zeros(()).expand(self.views.shape)
        none = self.heatmaps.new_zeros(()).expand(self.heatmaps.shape)
        return replace(self, input_image=Image.new("RGB", (1, 1)), views=nothing, heatmaps=none, input_heatmaps=None)

    def withholding(self, least: float) -> "Detection":
        """The same with the keypoints withheld whose probability is below ``least``: their scores become 0.

        Raises:
            InputError: the probabilities are not known.
        """
        if self.confidence is None:
            raise InputError(f"{self.name} has no keypoint's confidence to go by: {NO_CONFIDENCE}")
        kept = self.confidence.keypoints >= least
        flat, points = self.keypoints_2d, self.keypoints_3d
        given = None if flat.input_score is None else flat.input_score * kept
        return replace(
            self,
            keypoints_2d=replace(flat, score=flat.score * kept, input_score=given),
            keypoints_3d=None if points is None else replace(points, score=points.score * kept),
            withheld=tuple((~kept).nonzero()[:, 0].tolist()),
        )
