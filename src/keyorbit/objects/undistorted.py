"""Photographs as a camera without distortion would have taken them: the middle square, resampled."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray
from PIL import Image

from keyorbit.errors import InputError
from keyorbit.geometry.distortion import Plane, distorted, shift
from keyorbit.geometry.lenses import Lens
from keyorbit.objects.framing import has_alpha, middle_square

# Pixels: a photograph that its lens moves by less is used as it is.
NEGLIGIBLE = 0.1
# Places a side at which the distortion is examined.
_PROBES = 129
# The square is resampled at so many times the size that is asked for, since each pixel is one sample.
_FINER = 4


def is_distorted(image: Image.Image, lens: Lens) -> bool:
    """Whether a lens moves anything in the middle square of its picture by :data:`NEGLIGIBLE` or more.

    Args:
        image: the picture.
        lens: in its pixels (:meth:`keyorbit.geometry.lenses.Intrinsics.at`).
    """
    # Not the shift's maximum: that is NaN where the model has no place.
    return not lens.straight and not bool((shift(lens, _places(image, lens, _PROBES)) < NEGLIGIBLE).all())


def undistorted(image: Image.Image, lens: Lens, side: int) -> Image.Image:
    """Return the middle square of a picture as a camera with the same focal lengths and no distortion would show it.

    What lies outside the picture gets the colour of the nearest pixel at its edge.

    Args:
        image: RGB or RGBA.
        lens: in the picture's pixels.
        side: pixels a side of the result.

    Raises:
        InputError: the distortion shows places twice, or not at all, within the square; the message has the number of
            pixels by which it moves the others.
    """
    probes = _places(image, lens, _PROBES)
    if not _one_to_one(distorted(lens, probes)):
        moved = shift(lens, probes)
        most = float(moved[np.isfinite(moved)].max(initial=0.0))
        raise InputError(
            f"its {lens.model} lens moves pixels by up to {most:.0f} and folds the picture over itself: undistort the "
            "photographs with the program that made the cameras, and give the cameras that it writes"
        )
    left, _, right, _ = middle_square(image)
    short = min(right - left, _FINER * side)
    scale = short / (right - left)
    whole = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
    )
    seen = distorted(lens, _places(image, lens, short))
    # From pixels to -1…1 between the picture's edges.
    x = (seen[0] * lens.fx + lens.cx) * 2 / image.width - 1
    y = (seen[1] * lens.fy + lens.cy) * 2 / image.height - 1
    grid = torch.from_numpy(np.stack([x, y], -1)).float()[None]
    # Colours of clear pixels must not leak: premultiplied with alpha.
    mode, through = ("RGBA", "RGBa") if has_alpha(whole) else ("RGB", "RGB")
    pixels = np.asarray(whole.convert(mode).convert(through), np.float32)
    found = F.grid_sample(
        torch.from_numpy(pixels).permute(2, 0, 1)[None],
        grid,
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    content = found[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
    square = Image.frombytes(through, (short, short), content.tobytes()).convert(mode)
    return square.resize((side, side), Image.Resampling.LANCZOS)


def _places(image: Image.Image, lens: Lens, count: int) -> Plane:
    """The centres of ``count`` × ``count`` pixels that tile the middle square, on the plane at depth 1."""
    left, top, right, _ = middle_square(image)
    steps = (np.arange(count) + 0.5) / count * (right - left)
    x, y = np.meshgrid((left + steps - lens.cx) / lens.fx, (top + steps - lens.cy) / lens.fy)
    return np.stack([x, y])


def _one_to_one(seen: ndarray) -> bool:
    """Whether places beside each other are seen beside each other, and in the same order, everywhere."""
    if not np.isfinite(seen).all():
        return False
    (x_down, x_across), (y_down, y_across) = (np.gradient(part) for part in seen)
    return bool((x_across * y_down - x_down * y_across > 0).all() and (x_across > 0).all() and (y_down > 0).all())
