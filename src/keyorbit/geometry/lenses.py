"""A camera's intrinsics in pixels, with its distortion: plain numbers, before there is any tensor."""

import math
from dataclasses import dataclass

from keyorbit.errors import InputError

# COLMAP's camera models, in the order of the numbers that its binary files give them: how many focal lengths, and how
# many coefficients of distortion follow these and the principal point.
MODELS = {
    "SIMPLE_PINHOLE": (1, 0),
    "PINHOLE": (2, 0),
    "SIMPLE_RADIAL": (1, 1),
    "RADIAL": (1, 2),
    "OPENCV": (2, 4),
    "OPENCV_FISHEYE": (2, 4),
    "FULL_OPENCV": (2, 8),
    "FOV": (2, 1),
    "SIMPLE_RADIAL_FISHEYE": (1, 1),
    "RADIAL_FISHEYE": (1, 2),
    "THIN_PRISM_FISHEYE": (2, 8),
    "RAD_TAN_THIN_PRISM_FISHEYE": (2, 12),
    "SIMPLE_DIVISION": (1, 1),
    "DIVISION": (2, 1),
    "SIMPLE_FISHEYE": (1, 0),
    "FISHEYE": (2, 0),
    "EUCM": (2, 2),
}
# In sides of the picture: of a field of view of 170° and of 1°, and the principal point's distance from the middle.
_FOCAL, _BESIDE = (0.044, 57.3), 1.0


@dataclass(frozen=True)
class Lens:
    """What the camera of a photograph does with a point in front of it.

    Pixels count from the picture's corner: the first pixel's centre is 0.5.

    Attributes:
        model: one of :data:`MODELS`.
        fx: focal length, pixels; so is fy.
        fy: see fx.
        cx: principal point, pixels; so is cy.
        cy: see cx.
        width: of the photograph, pixels.
        height: see width.
        coefficients: of the model, without focal lengths and principal point.
    """

    model: str
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    coefficients: tuple[float, ...] = ()

    @property
    def straight(self) -> bool:
        """Whether it has no distortion at all."""
        return "FISHEYE" not in self.model and self.model != "EUCM" and not any(self.coefficients)


@dataclass(frozen=True)
class Intrinsics:
    """A lens as files tell of it, for pictures of some size.

    Attributes:
        model: as :class:`Lens` has it, and so are fx and fy.
        fx: in pixels of the size that is told.
        fy: see fx.
        cx: as fx; None: the middle.
        cy: see cx.
        width: of the pictures that these numbers are for. None: not told.
        height: see width. Where neither is told, the numbers count the pixels of the photograph itself; where one is,
            both are scaled alike.
        coefficients: of the model.
    """

    model: str
    fx: float
    fy: float
    cx: float | None = None
    cy: float | None = None
    width: float | None = None
    height: float | None = None
    coefficients: tuple[float, ...] = ()

    def fits(self, width: int, height: int) -> bool:
        """Whether pictures of this size have the shape that the numbers are for, at any resolution."""
        if self.width is None or self.height is None:
            return True
        # What rounding to whole pixels leaves: programs that make pictures smaller round, or cut off.
        slack = 1 / width + 1 / height + 0.5 / self.width + 0.5 / self.height
        return abs(width * self.height / (height * self.width) - 1) <= slack

    def at(self, width: int, height: int) -> Lens:
        """Return the lens of a photograph of this size.

        Raises:
            InputError: no camera has such a lens: a field of view is below 1° or above 170°, or the principal point is
                more than half a picture beside the picture.
        """
        across = None if self.width is None else width / self.width
        down = None if self.height is None else height / self.height
        across, down = across or down or 1.0, down or across or 1.0
        cx = width / 2 if self.cx is None else self.cx * across
        cy = height / 2 if self.cy is None else self.cy * down
        lens = Lens(self.model, self.fx * across, self.fy * down, cx, cy, width, height, self.coefficients)
        for focal, middle, side, how in ((lens.fx, cx, width, "wide"), (lens.fy, cy, height, "high")):
            size = f"a picture {side} pixels {how}"
            if not _FOCAL[0] <= focal / side <= _FOCAL[1]:
                view = f"a field of view of {2 * math.degrees(math.atan2(side / 2, focal)):.3g}°"
                raise InputError(f"has a focal length of {focal:.6g} pixels for {size}, which is {view}")
            if not abs(middle / side - 0.5) <= _BESIDE:
                raise InputError(f"has its principal point at {middle:.6g} in {size}, far outside")
        return lens


def intrinsics_of(model: str, width: float, height: float, parameters: tuple[float, ...]) -> Intrinsics:
    """Return the intrinsics of a camera of COLMAP's.

    Args:
        model: one of :data:`MODELS`.
        width: pixels.
        height: pixels.
        parameters: of the model, in its order.

    Raises:
        InputError: there are too few parameters, or too many.
    """
    focal, more = MODELS[model]
    needed = focal + 2 + more
    if len(parameters) != needed:
        raise InputError(f"a {model} camera has {needed} parameters, not {len(parameters)}")
    cx, cy = parameters[focal : focal + 2]
    return Intrinsics(model, parameters[0], parameters[focal - 1], cx, cy, width, height, parameters[focal + 2 :])
