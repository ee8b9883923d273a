"""Where the object of a photograph is, by its colours alone: GrabCut (Rother et al., SIGGRAPH 2004) of OpenCV.

GrabCut needs a first guess. Ours is that the object has other colours than the picture's border, and stands near the
middle: the distance to the nearest of the border's colours, times a Gaussian about the middle. What lies within the
convex hull of where that is large may be the object too, such as white on a grey wall. That is better than the
rectangle that is usually given (benchmarks/photographs.py).
"""

from types import ModuleType

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from PIL import Image
from scipy.ndimage import label

# Longer side in pixels at which the object is looked for: time grows with its square, and the contour does not change.
_SIDE = 224
# Of the border: its width and the number of its colours; colours of fewer pixels than the last are left out.
_BORDER, _COLORS, _FEW = 0.03, 8, 0.02
# Least variance of a colour of the border, in CIELAB: the noise of a camera.
_NOISE = 9.0
# Standard deviation of the place of the object, in sides of the picture.
_MIDDLE = 0.28
# Below this share of the threshold the guess is certain that it is background; nearest to the border, too.
_CERTAIN, _EDGE = 0.08, 0.015
_ROUNDS = 5
# Parts below this share of the largest are specks.
_SPECK = 0.05


def grabcut_mask(image: Image.Image, cv2: ModuleType) -> Float[ndarray, "height width"]:
    """Return 1 on the object and 0 on the background, at a reduced size. The same picture gives the same mask.

    Args:
        image: the picture, of at least 8 pixels a side.
        cv2: OpenCV, which is an optional dependency.
    """
    factor = min(1.0, _SIDE / max(image.size))
    size = max(8, round(image.width * factor)), max(8, round(image.height * factor))
    rgb = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX))
    guess = _guess(rgb, cv2)
    threshold, _ = cv2.threshold((guess * 255).astype(np.uint8), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    hull = _hull(_without_specks(guess > threshold / 255), cv2)
    marks = np.where(hull, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    marks[guess < _CERTAIN * threshold / 255] = cv2.GC_BGD
    edge = max(1, round(_EDGE * min(size)))
    inner = np.zeros(marks.shape, bool)
    inner[edge:-edge, edge:-edge] = True
    marks[~inner] = cv2.GC_BGD
    if not (marks == cv2.GC_PR_FGD).any():
        return np.zeros(marks.shape)
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(np.ascontiguousarray(rgb[..., ::-1]), marks, None, *models, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    return _without_specks(np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD))).astype(float)


def _hull(mask: Bool[ndarray, "height width"], cv2: ModuleType) -> Bool[ndarray, "height width"]:
    """The convex hull of what is True."""
    places = np.argwhere(mask)[:, ::-1].astype(np.int32)
    filled = np.zeros(mask.shape, np.uint8)
    if len(places):
        cv2.fillConvexPoly(filled, cv2.convexHull(places), 1)
    found: ndarray = filled > 0
    return found


def _guess(rgb: UInt8[ndarray, "height width 3"], cv2: ModuleType) -> Float[ndarray, "height width"]:
    """How likely the object is at each pixel, 0…1, but for a monotone function."""
    smooth = cv2.bilateralFilter(rgb, 5, 30, 5)
    lab = cv2.cvtColor(smooth.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).astype(float)
    height, width = lab.shape[:2]
    wide = max(2, round(_BORDER * min(height, width)))
    ring = np.ones((height, width), bool)
    ring[wide:-wide, wide:-wide] = False
    away = _distance(lab, lab[ring], cv2)
    y, x = np.mgrid[:height, :width]
    aside = ((x + 0.5) / width - 0.5) ** 2 + ((y + 0.5) / height - 0.5) ** 2
    return _spread(_spread(away) * np.exp(-aside / (2 * _MIDDLE**2)))


def _distance(
    lab: Float[ndarray, "height width 3"], border: Float[ndarray, "pixel 3"], cv2: ModuleType
) -> Float[ndarray, "height width"]:
    """Mahalanobis distance to the nearest of the border's colours."""
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)
    count = min(_COLORS, len(border))
    _, labels, centres = cv2.kmeans(border.astype(np.float32), count, None, stop, 2, cv2.KMEANS_PP_CENTERS)
    nearest = np.full(lab.shape[:2], np.inf)
    for i in range(count):
        some = border[labels.ravel() == i]
        if len(some) < max(2, _FEW * len(border)):
            continue
        inverse = np.linalg.inv(np.cov(some.T) + _NOISE * np.eye(3))
        away = lab - centres[i].astype(float)
        nearest = np.minimum(nearest, np.sqrt(np.einsum("hwi,ij,hwj->hw", away, inverse, away)))
    return nearest


def _spread(values: Float[ndarray, "height width"]) -> Float[ndarray, "height width"]:
    """Divided by the 98th percentile, so that single pixels do not count, and cut at 1."""
    most = float(np.percentile(values, 98))
    scaled: ndarray = (values / max(most, 1e-6)).clip(0, 1)
    return scaled


def _without_specks(mask: Bool[ndarray, "height width"]) -> Bool[ndarray, "height width"]:
    parts, count = label(mask, np.ones((3, 3)))
    if not count:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    kept: ndarray = (sizes >= _SPECK * sizes.max())[parts]
    return kept
