"""What was found on one object."""

from dataclasses import dataclass, replace

from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from keyorbit.detection.confidence import NO_CONFIDENCE, Confidence
from keyorbit.detection.input_camera import InputCamera
from keyorbit.errors import InputError
from keyorbit.geometry.constellation import Reading
from keyorbit.geometry.keypoints import Keypoints2D, Keypoints3D
from keyorbit.objects.framing import Framing, cut, middle_square


@dataclass(frozen=True, eq=False)
class Detection:
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
