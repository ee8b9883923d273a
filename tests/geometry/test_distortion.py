"""Lenses: places that COLMAP itself projects (pycolmap 4.2), and sizes of pictures that lenses are for."""

import math

import numpy as np
import pytest

from keyorbit.errors import InputError
from keyorbit.geometry.distortion import distorted, shift
from keyorbit.geometry.lenses import MODELS, Intrinsics, Lens, intrinsics_of

# Two places on the plane at depth 1, and their pixels by each model with f = 500, or 500 and 520, and c = 310, 250.
PLACES = np.array([[0.6, -0.001], [-0.4, 0.0005]])
PROJECTED = [
    ("SIMPLE_PINHOLE", (), (610.000000, 50.000000), (309.500000, 250.250000)),
    ("PINHOLE", (), (610.000000, 42.000000), (309.500000, 250.260000)),
    ("SIMPLE_RADIAL", (-0.12,), (591.280000, 62.480000), (309.500000, 250.250000)),
    ("RADIAL", (0.1, -0.05), (621.544000, 42.304000), (309.500000, 250.250000)),
    ("OPENCV", (-0.2, 0.05, 0.002, -0.003), (580.516000, 62.442240), (309.499994, 250.260003)),
    ("OPENCV_FISHEYE", (0.02, -0.01, 0.004, -0.001), (571.602111, 68.622536), (309.500000, 250.260000)),
    (
        *("FULL_OPENCV", (0.1, -0.02, 0.001, 0.002, 0.01, 0.05, 0.02, -0.01)),
        *((616.241590, 38.303431), (309.500003, 250.260000)),
    ),
    ("FOV", (0.8,), (594.751453, 52.572326), (309.471509, 250.274816)),
    ("SIMPLE_RADIAL_FISHEYE", (0.03,), (572.956781, 74.695479), (309.500000, 250.250000)),
    ("RADIAL_FISHEYE", (0.03, -0.02), (572.164837, 75.223442), (309.500000, 250.250000)),
    (
        *("THIN_PRISM_FISHEYE", (0.02, -0.01, 0.002, -0.003, 0.004, -0.001, 0.005, -0.006)),
        *((570.821477, 68.622536), (309.499997, 250.259999)),
    ),
    (
        "RAD_TAN_THIN_PRISM_FISHEYE",
        (0.02, -0.01, 0.003, 0.002, -0.001, 0.0005, 0.002, -0.003, 0.005, -0.001, -0.006, 0.002),
        *((574.003591, 66.174925), (309.500008, 250.259992)),
    ),
    ("SIMPLE_DIVISION", (-0.15,), (589.664779, 63.556814), (309.500000, 250.250000)),
    ("DIVISION", (-0.1,), (595.838076, 51.818934), (309.500000, 250.260000)),
    ("SIMPLE_FISHEYE", (), (569.913320, 76.724453), (309.500000, 250.250000)),
    ("FISHEYE", (), (569.913320, 69.793431), (309.500000, 250.260000)),
    ("EUCM", (0.55, 1.2), (570.665697, 69.271783), (309.500000, 250.260000)),
]


def lens(model, coefficients):
    focal = (500.0, 520.0)[: MODELS[model][0]]
    return intrinsics_of(model, 640.0, 480.0, (*focal, 310.0, 250.0, *coefficients)).at(640, 480)


@pytest.mark.parametrize(("model", "coefficients", "first", "second"), PROJECTED)
def test_places_are_seen_where_colmap_sees_them(model, coefficients, first, second):
    there = lens(model, coefficients)
    x, y = distorted(there, PLACES)
    found = np.stack([x * there.fx + there.cx, y * there.fy + there.cy], 1)
    np.testing.assert_allclose(found, [first, second], atol=1e-6)
    straight = model in ("SIMPLE_PINHOLE", "PINHOLE")
    assert there.straight is straight
    moved = [
        math.dist(at, (310 + u * there.fx, 250 + v * there.fy)) for at, (u, v) in zip(found, PLACES.T, strict=True)
    ]
    np.testing.assert_allclose(shift(there, PLACES), moved, atol=1e-9)


def test_every_model_was_compared():
    assert {row[0] for row in PROJECTED} == set(MODELS)


def test_three_radial_terms_are_those_of_opencv_with_k3():
    far = np.array([[0.9], [0.0]])
    (x,), _ = distorted(Lens("OPENCV", 1.0, 1.0, 0.0, 0.0, 1, 1, (0.1, 0.01, 0.0, 0.0, 0.001, 0.0002)), far)
    assert x == pytest.approx(0.9 * (1 + 0.1 * 0.81 + 0.01 * 0.81**2 + 0.001 * 0.81**3 + 0.0002 * 0.81**4))


def test_places_beyond_a_model_are_no_numbers():
    assert np.isnan(distorted(Lens("DIVISION", 1.0, 1.0, 0.0, 0.0, 1, 1, (2.0,)), np.ones((2, 1)))).all()


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (Intrinsics("PINHOLE", 80.0, 90.0, 30.0, 50.0, 64.0, 96.0), (40, 45, 15, 25)),
        (Intrinsics("PINHOLE", 80.0, 90.0, 30.0, 50.0), (80, 90, 30, 50)),
        (Intrinsics("PINHOLE", 0.5, 0.5, width=1.0), (16, 16, 16, 24)),
        (Intrinsics("PINHOLE", 0.5, 0.5, height=1.0), (24, 24, 16, 24)),
    ],
)
def test_lenses_are_scaled_to_the_photograph(told, expected):
    there = told.at(32, 48)
    assert (there.fx, there.fy, there.cx, there.cy, there.width, there.height) == (*expected, 32, 48)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (
            Intrinsics("PINHOLE", 2.0, 40.0),
            "has a focal length of 2 pixels for a picture 64 pixels wide, .* of view of 173°",
        ),
        (Intrinsics("PINHOLE", 64.0, -40.0), "has a focal length of -40 pixels for a picture 48 pixels high"),
        (Intrinsics("PINHOLE", 9000.0, 40.0), "which is a field of view of 0.407°"),
        (
            Intrinsics("PINHOLE", 64.0, 64.0, 3200.0, 24.0),
            "has its principal point at 3200 in a picture 64 pixels wide, far",
        ),
        (
            Intrinsics("PINHOLE", 64.0, 64.0, 32.0, -24.5),
            "has its principal point at -24.5 in a picture 48 pixels high",
        ),
    ],
)
def test_lenses_that_no_camera_has_are_told(told, words):
    with pytest.raises(InputError, match=words):
        told.at(64, 48)


def test_too_few_parameters_are_told():
    with pytest.raises(InputError, match="a RADIAL camera has 5 parameters, not 4"):
        intrinsics_of("RADIAL", 64.0, 48.0, (1.0, 2.0, 3.0, 4.0))
