"""Undistorted photographs: a planted point is seen where a camera without distortion sees it."""

import numpy as np
import pytest
from PIL import Image

from keyorbit.errors import InputError
from keyorbit.geometry.distortion import distorted
from keyorbit.geometry.lenses import Lens
from keyorbit.objects.pictures import middle_square
from keyorbit.objects.undistorted import is_distorted, undistorted

WIDE, HIGH, SIDE = 180, 120, 96
LENSES = {
    "barrel": ("OPENCV", (-0.25, 0.05, 0.004, -0.003)),
    "pincushion": ("SIMPLE_RADIAL", (0.3,)),
    "fisheye": ("OPENCV_FISHEYE", (0.02, -0.01, 0.0, 0.0)),
}


def lens(model, coefficients, width=WIDE, height=HIGH):
    return Lens(model, 130.0, 126.0, width / 2 + 6, height / 2 - 4, width, height, coefficients)


def spot(x, y, size=(WIDE, HIGH), clear=False):
    """A picture with a soft dark spot about a place in pixels from the corner; or one that is clear but for it."""
    rows, columns = np.mgrid[: size[1], : size[0]] + 0.5
    heat = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18) * 255
    if clear:
        return Image.fromarray(np.stack([np.full_like(heat, 200)] * 3 + [heat], -1).round().astype(np.uint8))
    return Image.fromarray(np.stack([255 - heat] * 3, -1).round().astype(np.uint8))


def middle_of(heat):
    """The mean place of what is warm, in pixels from the corner."""
    heat = np.where(heat > 20, heat, 0.0)
    rows, columns = np.mgrid[: heat.shape[0], : heat.shape[1]] + 0.5
    return np.array([(heat * columns).sum(), (heat * rows).sum()]) / heat.sum()


@pytest.mark.parametrize("name", LENSES)
@pytest.mark.parametrize("size", [(WIDE, HIGH), (HIGH, WIDE)])
@pytest.mark.parametrize("place", [(0.0, 0.0), (-0.3, 0.25), (0.28, -0.3)])
@pytest.mark.parametrize("clear", [False, True])
def test_a_planted_point_is_where_a_pinhole_sees_it(name, size, place, clear):
    there = lens(*LENSES[name], *size)
    (x,), (y,) = distorted(there, np.array(place)[:, None])
    picture = spot(x * there.fx + there.cx, y * there.fy + there.cy, size, clear)
    assert is_distorted(picture, there)
    square = undistorted(picture, there, SIDE)
    left, top, right, _ = middle_square(picture)
    expected = (np.array(place) * (there.fx, there.fy) + (there.cx - left, there.cy - top)) * SIDE / (right - left)
    assert square.size == (SIDE, SIDE)
    assert square.mode == ("RGBA" if clear else "RGB")
    heat = np.asarray(square, np.float64)[..., -1] if clear else 255 - np.asarray(square, np.float64)[..., 0]
    np.testing.assert_allclose(middle_of(heat), expected, atol=0.35)


def test_colours_at_clear_edges_stay():
    square = np.asarray(undistorted(spot(80, 60, clear=True), lens(*LENSES["barrel"]), SIDE), np.int64)
    seen = square[square[..., 3] > 128]
    assert len(seen) > 10
    assert abs(seen[:, :3] - 200).max() <= 3


def test_beside_the_picture_its_edge_goes_on():
    white = Image.new("RGB", (WIDE, HIGH), (250, 240, 230))
    square = np.asarray(undistorted(white, lens("SIMPLE_RADIAL", (0.5,)), SIDE))
    assert (square == (250, 240, 230)).all()


@pytest.mark.parametrize(
    ("model", "coefficients", "found"),
    [
        ("PINHOLE", (), False),
        ("OPENCV", (0.0,) * 4, False),
        ("SIMPLE_RADIAL", (0.001,), False),
        ("SIMPLE_RADIAL", (0.01,), True),
        ("FISHEYE", (), True),
        ("DIVISION", (2.0,), True),
    ],
)
def test_what_a_lens_moves_by_less_than_a_tenth_of_a_pixel_counts_as_straight(model, coefficients, found):
    assert is_distorted(Image.new("RGB", (WIDE, HIGH)), lens(model, coefficients)) is found


@pytest.mark.parametrize(
    ("model", "coefficients", "words"),
    [
        (
            "SIMPLE_RADIAL",
            (-1.5,),
            r"its SIMPLE_RADIAL lens moves pixels by up to \d+ and folds the picture over itself",
        ),
        ("FULL_OPENCV", (0.0, 0.0, 0.0, 0.0, 0.0, -4.0, 0.0, 0.0), "folds the picture"),
        ("DIVISION", (2.0,), "its DIVISION lens moves pixels by up to"),
        ("OPENCV", (1e9, -1e9, 1e9, 1e9), "folds"),
    ],
)
def test_a_lens_that_cannot_be_undone_is_told_with_its_pixels(model, coefficients, words):
    with pytest.raises(InputError, match=words):
        undistorted(Image.new("RGB", (WIDE, HIGH)), lens(model, coefficients), SIDE)
