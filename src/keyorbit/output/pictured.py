"""Keypoints on one picture, as annotation tools keep them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64
from numpy import ndarray
from torch import Tensor

from keyorbit.output.palette import FAINT


@dataclass(frozen=True, eq=False)
class Pictured:
    """Keypoints on one picture.

    Attributes:
        file: name of the picture's file.
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        xy: [keypoint 2], in the picture's unit square.
        score: [keypoint], 0…1.
        found: [keypoint], False where the keypoint has no place on the picture.
        hidden: [keypoint], True where the object hides it.
        reviewed: whether a person has marked or confirmed them; else a model has found them.
    """

    file: str
    width: int
    height: int
    xy: Float[ndarray, "keypoint 2"]
    score: Float[ndarray, " keypoint"]
    found: Bool[ndarray, " keypoint"]
    hidden: Bool[ndarray, " keypoint"]
    reviewed: bool = False

    @property
    def shares(self) -> Float64[ndarray, "keypoint 2"]:
        """``xy`` within the picture: tools refuse places beyond it."""
        return np.clip(np.nan_to_num(self.xy.astype(np.float64), nan=0.5), 0.0, 1.0)

    @property
    def pixels(self) -> Float64[ndarray, "keypoint 2"]:
        """In pixels from the picture's corner: the middle of the first pixel is 0.5."""
        return self.shares * [self.width, self.height]

    @classmethod
    def detected(
        cls, file: str, width: int, height: int, xy: Float[Tensor, "keypoint 2"], score: Float[Tensor, " keypoint"]
    ) -> "Pictured":
        """What a model found: a keypoint with a score below 0.1 has no place, as in the COCO files."""
        scores = score.cpu().numpy()
        found = scores >= FAINT
        return cls(file, width, height, xy.cpu().numpy(), scores, found, np.zeros_like(found))
