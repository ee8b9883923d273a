"""Cut an object out by a mask: a soft edge, and the object's own colours in it, without the old background's."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter

# Longer side in pixels of a cut-out at most: of a smaller object in it a model still sees all that it can.
LARGEST = 2048
# The same where edges and colours are found.
_FINE = 640
# Of the guided filter: the least variance of a colour that counts as an edge, of values 0…1.
_EVEN = 1e-3
# How much steeper the edge is than the filter leaves it.
_STEEP = 1.6
# From this alpha on, of 255, a pixel keeps the picture's own colour.
_OPAQUE = 250


def cut_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return width and height of the cut-out of a picture of that width and height."""
    return _at_most(size, LARGEST)


def cut_by(image: Image.Image, mask: Float[ndarray, "height width"], soft: bool) -> Image.Image:
    """Return the picture as RGBA, transparent where the mask is 0, and reduced to :func:`cut_size`.

    Args:
        image: the picture; transparency in it is not heeded.
        mask: how much of each pixel is the object's, 0…1; of any size, to which it is stretched.
        soft: whether the edge is to be found anew in the picture, for a mask that has none or is coarse. False keeps
            the mask's values.
    """
    rgb = image.convert("RGB")
    if cut_size(rgb.size) != rgb.size:
        rgb = rgb.resize(cut_size(rgb.size), Image.Resampling.BOX)
    size = _at_most(rgb.size, _FINE)
    small = np.asarray(rgb if size == rgb.size else rgb.resize(size, Image.Resampling.BOX), np.float32) / 255
    alpha = _stretched(mask, size)
    if soft:
        alpha = _edge(small, alpha, max(1, round(size[0] / mask.shape[1])))
    colors = Image.fromarray((_own_colors(small, alpha, max(size) / 200) * 255).round().astype(np.uint8))
    band = Image.fromarray((alpha * 255).round().astype(np.uint8))
    if size != rgb.size:
        # Within the object its pixels stay as they are; in the band about its edge the colours are smooth anyway.
        colors = colors.resize(rgb.size, Image.Resampling.BICUBIC)
        band = band.resize(rgb.size, Image.Resampling.BICUBIC)
        if not soft:
            band = Image.fromarray((_stretched(mask, rgb.size) * 255).round().astype(np.uint8))
    colors.paste(rgb, mask=band.point([255 if value >= _OPAQUE else 0 for value in range(256)]))
    colors.putalpha(band)
    return colors


def _at_most(size: tuple[int, int], side: int) -> tuple[int, int]:
    factor = min(1.0, side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _stretched(mask: Float[ndarray, "height width"], size: tuple[int, int]) -> Float[ndarray, "rows columns"]:
    image = Image.fromarray((mask * 255).round().astype(np.uint8))
    if image.size != size:
        smaller = size[0] < image.width
        image = image.resize(size, Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32) / 255


def _edge(
    rgb: Float[ndarray, "rows columns 3"], mask: Float[ndarray, "rows columns"], radius: int
) -> Float[ndarray, "rows columns"]:
    """The mask with the picture's edges: the guided filter (He et al., ECCV 2010), of each colour, the best of which.

    The filter fits the mask as a linear function of the picture in every window; of the three colours, each pixel takes
    the one that fits best.
    """
    wide = 2 * radius + 1
    mean = uniform_filter(mask, wide)
    spread = uniform_filter(mask * mask, wide) - mean * mean
    best, made = np.full(mask.shape, np.inf), mask
    for channel in np.moveaxis(rgb, -1, 0):
        middle = uniform_filter(channel, wide)
        variance = uniform_filter(channel * channel, wide) - middle * middle
        shared = uniform_filter(channel * mask, wide) - middle * mean
        slope = shared / (variance + _EVEN)
        left = spread - slope * shared
        followed = uniform_filter(slope, wide) * channel + uniform_filter(mean - slope * middle, wide)
        made, best = np.where(left < best, followed, made), np.minimum(left, best)
    steep: ndarray = ((made - 0.5) * _STEEP + 0.5).clip(0, 1)
    return steep


def _own_colors(
    rgb: Float[ndarray, "rows columns 3"], alpha: Float[ndarray, "rows columns"], reach: float
) -> Float[ndarray, "rows columns 3"]:
    """The object's colours, also where it covers pixels in part: blur fusion (Forte, ICIP 2021), a wide and a narrow.

    A pixel is alpha · object + (1 − alpha) · background. Both are smoothed from where they are seen, and what is left
    of the pixel is shared between them.
    """
    colors = rgb
    for width in (max(3.0, 3 * reach), max(1.0, reach)):
        share = alpha[..., None]
        weight = gaussian_filter(alpha, width)[..., None]
        inner = gaussian_filter(colors * share, (width, width, 0)) / (weight + 1e-5)
        outer = gaussian_filter(rgb * (1 - share), (width, width, 0)) / (1 - weight + 1e-5)
        left = rgb - share * inner - (1 - share) * outer
        colors = (inner + share * left).clip(0, 1)
    return colors
