"""Numbers of points that crowd stand apart, and views stand as their cameras do."""

import math
import random
from itertools import combinations

import numpy as np
import pytest
import torch

from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.geometry.rigs import rig
from keyorbit.output.crowding import spread_labels, spread_names
from keyorbit.output.page.arrangement import rings

DISTANCES = (0.0, 7.0, 10.0, 13.5, 17.0)


def test_points_that_lie_apart_have_their_numbers_on_them():
    places = [(10.0, 10.0), (50.0, 50.0), (90.0, 20.0), (99.0, 99.0)]  # the last one at the edge
    assert spread_labels(places, 3.7, DISTANCES, 100.0, 1.2) == places


@pytest.mark.parametrize("seed", range(5))
def test_no_number_lies_on_another_or_on_another_point(seed):
    draw = np.random.default_rng(seed)
    places = [tuple(place) for place in (50 + 9 * draw.standard_normal((14, 2))).tolist()]
    spots = spread_labels(places, 3.7, DISTANCES, 100.0, 1.2)
    found = [spot for spot in spots if spot is not None]
    assert len(found) >= 12
    assert min(math.dist(a, b) for a, b in combinations(found, 2)) >= 7.4
    for k, spot in enumerate(spots):
        if spot is not None:
            assert all(math.dist(spot, place) >= 4.9 for i, place in enumerate(places) if i != k)
            assert any(math.dist(spot, places[k]) == pytest.approx(far) for far in DISTANCES)
            assert all(3.7 <= v <= 96.3 for v in spot)


def test_of_points_at_one_place_each_has_its_own_number_while_there_is_room():
    assert None not in spread_labels([(50.0, 50.0)] * 8, 3.7, DISTANCES, 100.0, 1.2)
    assert None in spread_labels([(50.0, 50.0)] * 48, 3.7, DISTANCES, 100.0, 1.2)
    # So many that lines would hide the picture: a number stands at its point or nowhere.
    many = spread_labels([(float(i), 50.0) for i in range(60)], 3.7, DISTANCES, 100.0, 1.2)
    assert many == [None] * 60


@pytest.mark.parametrize(("version", "words"), [("v1.1", ("30°", "20°")), ("v1.2", ("20°", "10°"))])
def test_the_six_views_are_two_rings_in_the_order_of_azimuth(version, words):
    places = rings(rig(f"zero123plus-{version}").cameras)
    assert [(place.row, place.half) for place in places] == [(0, 0), (1, 1), (0, 2), (1, 3), (0, 4), (1, 5)]
    above, below = words
    assert [place.words for place in places] == [
        f"{angle}°, {below if i % 2 else above} {'below' if i % 2 else 'above'}"
        for i, angle in enumerate(range(30, 360, 60))
    ]


def test_other_rigs_are_rings_where_that_is_short():
    assert [(place.row, place.half) for place in rings(rig("mvdream").cameras)] == [(0, 0), (0, 2), (0, 4), (0, 6)]
    assert rings(rig("syncdreamer").cameras) is None
    # In any order, a shorter ring in the middle; level within rounding.
    cameras = orbit_cameras([90.0, 0.0, 45.0, 180.0], [0.0, 0.3, 80.0, 359.7 - 360])
    assert [(place.row, place.half) for place in rings(cameras)] == [(1, 2), (1, 0), (0, 2), (1, 4)]
    assert rings(cameras)[1].words == "0°, level"
    # Cameras all over the place are no rings.
    assert rings(orbit_cameras([0.0, 50.0, 90.0], [0.0, 20.0, 50.0])) is None
    straight = orbit_cameras([0.0, 120.0], [0.0, 0.0], orthographic=True)
    assert torch.allclose(straight.directions[0], torch.tensor([-1.0, 0, 0]), atol=1e-6)
    assert [place.half for place in rings(straight)] == [0, 2]


def covers(one, box):
    left, top, right, bottom = box
    return one.x < right and left < one.x + one.length and one.y - 3 < bottom and top < one.y + 3


def test_names_are_in_the_picture_and_those_that_are_clear_cover_nothing():
    draw = random.Random(0)
    places = [(draw.uniform(4, 96), draw.uniform(4, 96)) for _ in range(24)]
    lengths = [draw.uniform(10, 130) for _ in places]
    spots = spread_names(places, lengths, places, 3.7, 6.0, 100.0)
    for spot, length in zip(spots, lengths, strict=True):
        assert spot.length == min(length, 100.0)
        assert -1e-9 <= spot.x <= spot.x + spot.length <= 100 + 1e-9
        assert 3 <= spot.y <= 97
    clear = [spot for spot in spots if spot.clear]
    assert 3 <= len(clear) < len(spots)
    for i, one in enumerate(clear):
        assert not any(covers(one, (x - 3.7, y - 3.7, x + 3.7, y + 3.7)) for x, y in places)
        assert not any(covers(one, (o.x, o.y - 3, o.x + o.length, o.y + 3)) for o in clear[i + 1 :])


def test_a_name_is_right_of_its_point_else_left_else_above():
    def at(x, y, length=30.0, discs=()):
        (spot,) = spread_names([(x, y)], [length], [(x, y), *discs], 4.0, 6.0, 100.0)
        assert spot.clear
        return spot.x, spot.y

    assert at(20.0, 50.0) == pytest.approx((25.6, 50.0))
    assert at(90.0, 50.0) == pytest.approx((54.4, 50.0))
    assert at(20.0, 50.0, discs=[(40.0, 50.0)]) == pytest.approx((5.0, 41.4))
    assert at(10.0, 2.0, 95.0) == pytest.approx((0.0, 10.6))  # below, where there is nothing above
