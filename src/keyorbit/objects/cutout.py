"""Objects cut out of photographs: with a user's mask, or with what a network or the colours tell."""

import logging
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from PIL import Image
from scipy.ndimage import binary_dilation, label

from keyorbit.errors import InputError
from keyorbit.objects.background import INSTALL, CutBy
from keyorbit.objects.matte import cut_by, cut_size
from keyorbit.objects.removers import object_mask

log = logging.getLogger(__name__)

_REMEDY = "give --mask, or --background keep"
# Shares of the picture below and above which a cut-out shows nothing, or everything.
_NOTHING, _EVERYTHING = 0.003, 0.97
# Parts that are a thing of their own: their share of the largest, and how near they may be to each other to be one, in
# sides of the picture.
_THING, _NEAR = 0.2, 0.02


@dataclass(frozen=True, eq=False)
class CutOut:
    """An object that was cut out of its picture.

    Attributes:
        image: RGBA, of the picture's size, or of 2048 pixels a side if that is larger.
        by: what told the object from the background: ``mask``, which a user gave, ``rembg``, or ``grabcut``.
        share: of the picture that the object covers, 0…1.
    """

    image: Image.Image
    by: CutBy
    share: float

    @property
    def words(self) -> str:
        """What was done, as a line of text tells it."""
        how = {"mask": "by the mask given", "rembg": "by rembg", "grabcut": "by its colours (GrabCut)"}[self.by]
        return f"cut out {how}: the object is {self.share:.0%} of the picture"


def check_mask_size(mask: Image.Image, image: Image.Image, name: str, of: str) -> None:
    """Raise an error unless a mask has the size of the picture that it belongs to, or of its cut-out.

    Raises:
        InputError: it has another.
    """
    if mask.size not in (image.size, cut_size(image.size)):
        sides = [f"{one.width}x{one.height}" for one in (mask, image)]
        raise InputError(f"{name} is {sides[0]} pixels, and {of} {sides[1]} when upright: give a mask of that size")


def cut_out(
    image: Image.Image, mask: Image.Image | None = None, name: str = "a picture", required: bool = False
) -> CutOut | None:
    """Cut the object out of a picture; None, with a warning in the log, where none is found or nothing can find it.

    Args:
        image: the picture, on grey where it is transparent.
        mask: of the object, in mode L and of the picture's size. Default None: rembg tells where the object is, or
            GrabCut (:mod:`keyorbit.objects.removers`).
        name: of the picture, for the log.
        required: raise an error where nothing can find objects. Default False.

    Raises:
        InputError: ``required``, and neither rembg nor OpenCV can be used.
    """
    if mask is not None:
        return _made(image, np.asarray(mask, float) / 255, "mask")
    found = object_mask(image)
    if found is None:
        if required:
            raise InputError(f"the background of {name} cannot be removed without rembg or OpenCV: {INSTALL}")
        log.warning(
            "%s has things behind the object, and nothing is installed to cut it out: %s; the background is kept",
            name,
            INSTALL,
        )
        return None
    values, by = found
    share = float((values > 0.5).mean())
    if not _NOTHING <= share <= _EVERYTHING:
        what = "nothing that stands out from the background" if share < _NOTHING else "no background, only an object"
        log.warning("%s shows %s (%s); the background is kept: give --mask", name, what, by)
        return None
    if (count := _things(values > 0.5)) > 1:
        log.warning(
            "%s shows %d separate things (%s), which are all taken for the object: %s", name, count, by, _REMEDY
        )
    return _made(image, values, by)


def _made(image: Image.Image, mask: Float[ndarray, "height width"], by: CutBy) -> CutOut:
    return CutOut(cut_by(image, mask, soft=by != "mask"), by, float((mask > 0.5).mean()))


def _things(mask: Bool[ndarray, "height width"]) -> int:
    """How many parts of a mask lie apart from each other and are large."""
    step = max(1, max(mask.shape) // 256)
    mask = mask[::step, ::step]
    parts, _ = label(binary_dilation(mask, np.ones((3, 3)), max(1, round(_NEAR / 2 * max(mask.shape)))))
    sizes = np.bincount(parts[mask])
    return int((sizes[1:] >= _THING * sizes[1:].max()).sum()) if len(sizes) > 1 else 0
