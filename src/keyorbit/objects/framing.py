"""Where the object of an input picture is, and which square of the picture a model of several views is shown.

Such models are trained on objects that fill the middle of a picture. Of a small or an off-centre one they generate
something else. So a picture whose object is known to be small, off-centre or beyond the middle square is cut so that
the object is in the middle and fills 85 % of the side, as InstantMesh and TripoSR do it.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int16
from numpy import ndarray
from PIL import Image
from scipy.ndimage import binary_fill_holes, find_objects, label

from keyorbit.errors import InputError
from keyorbit.objects.background import CutBy

Box = tuple[int, int, int, int]

# Share of the side that the longer side of the object's box gets: resize_foreground(image, 0.85) of InstantMesh and
# TripoSR. In the pictures that the tiny model was trained on the median is 0.86.
FILLS = 0.85
# Where nothing is done: the least share, and how far the middle of the box may be from the picture's, in sides. A
# picture of a rig, whose distance is that of its views, is as those pictures, of eight kinds of objects, are: at least
# 0.48, at most 0.15. An opaque one may be. A cut-out is of no rig, and places are measurably worse at 0.6, and at 0.85
# when 0.06 aside (benchmarks/cutouts.py).
OF_RIG, CUT_OUT = (0.45, 0.16), (0.75, 0.03)
# Of the largest part, the share of pixels below which another part is a speck that a segmentation has left.
_SPECK = 0.01
# A background is plain where this share of the border has its colour; the rest may be the object's. Colours differ by
# more than the middle one of these, of 255. The object's box has to be the same with the others, within this share of
# the side: else the object is not told from the background, as a white one on white.
_PLAIN, _DIFFERS, _SAME_BOX = 0.9, (8, 16, 32), 0.03
# Pixels a side that models take at least.
_LEAST = 8
# An alpha up to this is nothing.
_FAINT = 8
# The share of a picture above which what is opaque is no cut-out: a photograph with round corners, or turned a little.
_WHOLE = 0.97
# Pixels a side at which the object is looked for.
_LOOKED = 1024


@dataclass(frozen=True)
class Framing:
    """Which parts of an input picture are used. Boxes are left, top, right, bottom in its pixels, and may reach beyond.

    Attributes:
        size: width and height of the picture.
        seen: the square that the model is shown.
        shown: the square that places on the input picture are told in: the middle square, or one that has the object.
        fills: longer side of the object's box, in sides of the middle square; None where it is not known.
        ground: colour of the background, of what is beyond the picture; None if that is transparent.
        cut_out_by: what the object was cut out by; None where the picture's own background is kept.
    """

    size: tuple[int, int]
    seen: Box
    shown: Box
    fills: float | None = None
    ground: tuple[int, int, int] | None = None
    cut_out_by: CutBy | None = None

    @property
    def recentred(self) -> bool:
        """Whether the model is shown another square than the middle one."""
        return self.seen != self.shown

    @property
    def words(self) -> str:
        """What was done, as a line of text tells it; empty where nothing was."""
        if not self.recentred or self.fills is None:
            return ""
        return f"recentred: the object fills {self.fills:.0%} of the picture's side, and {FILLS:.0%} of what was read"

    @property
    def scale_and_shift(self) -> tuple[float, tuple[float, float]]:
        """What brings places in the unit square of ``seen`` to that of ``shown``: scale · xy + shift."""
        return _scale_and_shift(self.seen, self.shown)

    @property
    def to_middle(self) -> tuple[float, tuple[float, float]]:
        """What brings places in the unit square of ``shown`` to that of the middle square, where a truth is told in."""
        return _scale_and_shift(self.shown, _middle(self.size))

    def shares(self, box: Box) -> list[float]:
        """The box in widths and heights of the picture."""
        return [round(value / self.size[i % 2], 6) for i, value in enumerate(box)]


def has_alpha(image: Image.Image) -> bool:
    """Whether a picture has transparency: an alpha channel, or a colour that stands for it."""
    return "A" in image.getbands() or "transparency" in image.info


def middle_square(image: Image.Image) -> tuple[int, int, int, int]:
    """Return the box of a picture's middle square, as models crop it: left, top, right, bottom, in pixels."""
    return _middle(image.size)


def frame(image: Image.Image, recentre: bool = True, name: str = "a picture", of_rig: bool = False) -> Framing:
    """How a picture is shown to a model of several views.

    The object is told by its alpha channel (above half of the largest), or by a plain background. Specks are ignored.

    Args:
        image: the picture.
        recentre: False leaves it the middle square. Default True.
        name: of the picture, for error messages.
        of_rig: whether it is one of several views of its object, which share a distance: small and off-centre are then
            less than in a cut-out. Default False.

    Raises:
        InputError: the picture is transparent everywhere.
    """
    middle = middle_square(image)
    as_it_is = Framing(image.size, middle, middle)
    found = _located(image, name) if recentre else None
    if found is None:
        return as_it_is
    (left, top, right, bottom), ground = found
    side, longest = middle[2] - middle[0], max(right - left, bottom - top)
    aside = max(abs(left + right - middle[0] - middle[2]), abs(top + bottom - middle[1] - middle[3])) / 2 / side
    within = left >= middle[0] and top >= middle[1] and right <= middle[2] and bottom <= middle[3]
    least, most = CUT_OUT if ground is None and not of_rig else OF_RIG
    if within and longest >= least * side and aside <= most:
        return as_it_is
    seen = _square_about((left, top, right, bottom), max(round(longest / FILLS), _LEAST))
    shown = middle if within else _square_with((left, top, right, bottom), image.size)
    return Framing(image.size, seen, shown, longest / side, ground)


def cut(image: Image.Image, box: Box, ground: tuple[int, int, int] | None) -> Image.Image:
    """The pixels in a box; beyond the picture they are transparent, or of a colour."""
    if ground is None:
        return image.convert("RGBA").crop(box)
    whole = Image.new("RGB", (box[2] - box[0], box[3] - box[1]), ground)
    left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], image.width), min(box[3], image.height)
    whole.paste(image.convert("RGB").crop((left, top, right, bottom)), (left - box[0], top - box[1]))
    return whole


def has_no_background(image: Image.Image) -> bool:
    """Whether there is nothing behind a picture's object: it has an alpha channel that says so, or its border is plain.

    A soft shadow or the noise of a JPEG on a plain ground may hide where the object ends, but is nothing to remove.
    """
    return is_transparent(image) or _plain_ground(_pixels(image, _factor(image))) is not None


def is_transparent(image: Image.Image) -> bool:
    """Whether a picture has an alpha channel that tells where its object is."""
    found = _look(image)
    return found is not None and found.ground is None


def on_object(image: Image.Image) -> Bool[ndarray, "height width"] | None:
    """Where the object is, at a reduced size; None where that cannot be told, or there is nothing."""
    found = _look(image)
    return found.mask if found is not None and found.mask.any() else None


@dataclass(frozen=True, eq=False)
class _Found:
    """Where an object is.

    Attributes:
        mask: True on the object.
        factor: how many times smaller than the picture the mask is.
        ground: colour of the background; None if that is transparent.
    """

    mask: Bool[ndarray, "height width"]
    factor: int
    ground: tuple[int, int, int] | None


def _located(image: Image.Image, name: str) -> tuple[Box, tuple[int, int, int] | None] | None:
    """The object's box, and the background's colour, if the object can be told."""
    found = _look(image)
    if found is None:
        return None
    if not found.mask.any():
        raise InputError(f"{name} is transparent everywhere: give a picture that shows an object")
    left, top, right, bottom = (edge * found.factor for edge in _box(found.mask))
    return (left, top, min(right, image.width), min(bottom, image.height)), found.ground


def _look(image: Image.Image) -> _Found | None:
    """None for an opaque picture whose border has many colours, or whose object is not told from the background."""
    factor = _factor(image)
    if has_alpha(image):
        alpha = np.asarray(image.convert("RGBA").getchannel("A").reduce(factor))
        mask = alpha > max(int(alpha.max()), _FAINT) // 2
        if alpha.min() < 128 and mask.mean() <= _WHOLE:
            return _Found(mask, factor, None)
    pixels = _pixels(image, factor)
    ground = _plain_ground(pixels)
    if ground is None:
        return None
    least, middle, most = _DIFFERS
    away = np.abs(pixels - ground).max(-1)
    if not (away > most).any():
        return None
    edges = zip(_box(away > least), _box(away > most), strict=True)
    if max(abs(a - b) for a, b in edges) > _SAME_BOX * min(away.shape):
        return None
    red, green, blue = ground.tolist()
    return _Found(binary_fill_holes(away > middle), factor, (red, green, blue))


def _factor(image: Image.Image) -> int:
    return max(1, math.ceil(max(image.size) / _LOOKED))


def _pixels(image: Image.Image, factor: int) -> Int16[ndarray, "height width 3"]:
    return np.asarray(image.convert("RGB").reduce(factor)).astype(np.int16)


def _plain_ground(pixels: Int16[ndarray, "height width 3"]) -> Int16[ndarray, "3"] | None:
    """The border's colour, if nearly all of the border has it."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ground: ndarray = np.median(border, axis=0).astype(np.int16)
    return ground if (np.abs(border - ground).max(-1) <= _DIFFERS[0]).mean() >= _PLAIN else None


def _box(mask: Bool[ndarray, "height width"]) -> Box:
    """The box of all parts of a mask but the specks."""
    parts, _ = label(mask, np.ones((3, 3)))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    kept = [place for i, place in enumerate(find_objects(parts), 1) if sizes[i] >= _SPECK * sizes.max()]
    rows, columns = zip(*kept, strict=True)
    return (
        min(c.start for c in columns),
        min(r.start for r in rows),
        max(c.stop for c in columns),
        max(r.stop for r in rows),
    )


def _middle(size: tuple[int, int]) -> Box:
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return left, top, left + side, top + side


def _scale_and_shift(one: Box, other: Box) -> tuple[float, tuple[float, float]]:
    """What brings places in the unit square of one square to that of another."""
    side = other[2] - other[0]
    return (one[2] - one[0]) / side, ((one[0] - other[0]) / side, (one[1] - other[1]) / side)


def _square_about(box: Box, side: int) -> Box:
    left, top = (box[0] + box[2] - side) // 2, (box[1] + box[3] - side) // 2
    return left, top, left + side, top + side


def _square_with(box: Box, size: tuple[int, int]) -> Box:
    """The square nearest to the picture's middle one that has the whole box: as large, or as the box is."""
    side = max(min(size), box[2] - box[0], box[3] - box[1])
    starts = []
    for low, high, length in ((box[0], box[2], size[0]), (box[1], box[3], size[1])):
        starts.append(min(max((length - side) // 2, high - side), low))
    return starts[0], starts[1], starts[0] + side, starts[1] + side
