"""What lenses do to pictures: the distortion models of COLMAP, by their names and parameters there.

A point (u, v) on the plane at depth 1 of a camera without distortion is seen at the place that :func:`distorted`
returns; ×f + c are its pixels. Source: COLMAP, src/colmap/sensor/models.h.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from keyorbit.geometry.lenses import Lens

Plane = Float64[ndarray, "2 *place"]
# Where a series replaces a quotient of two numbers near 0.
_SMALL = 1e-4


@dataclass(frozen=True)
class _Coefficients:
    """Of the model that contains most others: radial, tangential, thin prism; ``d`` are those of a denominator."""

    k: tuple[float, ...] = ()
    p: tuple[float, float] = (0.0, 0.0)
    d: tuple[float, ...] = ()
    s: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    # Whether tangential and prism terms are of the place that the radial ones lead to.
    after: bool = False


def distorted(lens: Lens, places: Plane) -> Plane:
    """Compute where a lens shows places on the plane at depth 1, on that plane.

    The result is NaN where the model has no such place.

    Args:
        lens: its model is one of :data:`keyorbit.geometry.lenses.MODELS`.
        places: u, v; [2 …].
    """
    given = lens.coefficients
    with np.errstate(all="ignore"):  # places that a model does not reach become NaN
        if lens.model in _OTHERS:
            factor: ndarray = _OTHERS[lens.model](np.square(places).sum(0), *given)
            return np.asarray(places * factor)
        bent = places * _angle(np.hypot(*places)) if "FISHEYE" in lens.model else places
        return _brown(bent, _coefficients(lens.model, given)) if given else bent


def shift(lens: Lens, places: Plane) -> Float64[ndarray, " *place"]:
    """Compute how far the lens moves places on the plane at depth 1, in pixels of its own."""
    moved = distorted(lens, places) - places
    found: Float64[ndarray, " *place"] = np.hypot(moved[0] * lens.fx, moved[1] * lens.fy)
    return found


def _coefficients(model: str, given: tuple[float, ...]) -> _Coefficients:
    if model == "RAD_TAN_THIN_PRISM_FISHEYE":
        p0, p1, s0, s1, s2, s3 = given[6:]
        return _Coefficients(given[:6], (p1, p0), s=(s0, s1, s2, s3), after=True)
    if model == "FULL_OPENCV":
        return _Coefficients((*given[:2], given[4]), (given[2], given[3]), given[5:])
    if model == "THIN_PRISM_FISHEYE":
        return _Coefficients((*given[:2], *given[4:6]), (given[2], given[3]), s=(given[6], 0.0, given[7], 0.0))
    if model == "OPENCV":  # with k3 and k4 beyond COLMAP's, as in nerfstudio's files
        return _Coefficients((*given[:2], *given[4:]), (given[2], given[3]))
    return _Coefficients(given)


def _brown(places: Plane, c: _Coefficients) -> Plane:
    square = np.square(places).sum(0)
    bent = places * (_series(square, c.k) / _series(square, c.d))
    x, y = bent if c.after else places
    square = x**2 + y**2
    (p1, p2), (s0, s1, s2, s3) = c.p, c.s
    across = 2 * p1 * x * y + p2 * (square + 2 * x**2) + s0 * square + s1 * square**2
    down = 2 * p2 * x * y + p1 * (square + 2 * y**2) + s2 * square + s3 * square**2
    return np.asarray(bent + np.stack([across, down]))


def _series(square: ndarray, factors: tuple[float, ...]) -> ndarray:
    """1 + k₁·r² + k₂·r⁴ + …"""
    total: ndarray = np.zeros_like(square)
    for factor in reversed(factors):
        total = (total + factor) * square
    return np.asarray(1 + total)


def _angle(radius: ndarray) -> ndarray:
    """The angle from the axis over the radius; 1 on the axis."""
    safe = np.maximum(radius, _SMALL)
    return np.where(radius < _SMALL, 1 - radius**2 / 3, np.arctan(safe) / safe)


def _field_of_view(square: ndarray, omega: float) -> ndarray:
    """Devernay and Faugeras 2001."""
    if omega**2 < _SMALL:
        return omega**2 * square / 3 - omega**2 / 12 + 1
    half = 2 * math.tan(omega / 2)
    safe = np.sqrt(np.maximum(square, _SMALL))
    near = half / omega * (1 - square * half**2 / 3)
    return np.where(square < _SMALL, near, np.arctan(safe * half) / (safe * omega))


def _division(square: ndarray, k: float) -> ndarray:
    """Fitzgibbon 2001."""
    return 2 / (1 + np.sqrt(1 - 4 * k * square))


def _unified(square: ndarray, alpha: float, beta: float) -> ndarray:
    """Khomutenko, Garcia and Martinet 2016."""
    below = alpha * np.sqrt(beta * square + 1) + 1 - alpha
    return np.where(below > 0, 1 / below, np.nan)


# Factors by which places move along the ray from the middle, from the squares of their radii.
_OTHERS: Mapping[str, Callable[..., ndarray]] = {
    "FOV": _field_of_view,
    "SIMPLE_DIVISION": _division,
    "DIVISION": _division,
    "EUCM": _unified,
}
