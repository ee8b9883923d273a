"""Painted parts: patterns are drawn where their rule puts them, and captions tell what is told apart."""

import numpy as np
import pytest

from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.synthetic.objects import SyntheticObject, make_object
from keyorbit.synthetic.paint import COLORS, PATTERNS, Paint, Part, captions, paint_pieces
from keyorbit.synthetic.render import Light, object_surface, render
from keyorbit.synthetic.samples import SampleSpec, scene_of
from keyorbit.synthetic.shapes import Piece, box

RED, BLUE = np.array([0.8, 0.0, 0.0]), np.array([0.0, 0.0, 0.8])
FLAT = Light(ambient=1.0, diffuse=0.0)


def painted_cube(frequency, phase=(0.0, 0.0, 0.0)):
    part = Part("cube", box((-0.2, -0.2, -0.2), (0.2, 0.2, 0.2)), Paint("", RED, BLUE, frequency, np.array(phase)))
    nothing = np.zeros((0, 3))
    return SyntheticObject("cube", (part,), nothing, np.zeros(0, bool), (), (), ("",))


def rows(*frequencies):
    matrix = np.zeros((3, 3))
    matrix[: len(frequencies)] = frequencies
    return matrix


def pixel(thing, row, col, azimuth=0.0):
    return render(object_surface(thing), orbit_cameras([azimuth], [0.0]), 64, FLAT)[0, row, col, :3] / 255


def test_two_tone_changes_at_the_middle():
    thing = painted_cube(rows((0, 0, 2.0)))  # ⌊2z⌋ is 0 above the middle and −1 below
    np.testing.assert_allclose(pixel(thing, 29, 32), RED, atol=0.01)
    np.testing.assert_allclose(pixel(thing, 35, 32), BLUE, atol=0.01)


def test_stripes_alternate_and_checks_alternate_both_ways():
    stripes, checks = painted_cube(rows((0, 10.0, 0))), painted_cube(rows((0, 10.0, 0), (0, 0, 10.0)))
    # From the +x side, left of the picture is −y; the near face is 0.1 = 6.4 · 1.866/1.666 pixels a stripe.
    step = round(0.1 * 64 * 1.866 / 1.666)
    along = [pixel(stripes, 33, 32 + step // 2 + k * step)[0] > 0.4 for k in (-2, -1, 0, 1)]
    assert along in ([True, False] * 2, [False, True] * 2)
    cells = [
        [pixel(checks, 32 + step // 2 + i * step, 32 + step // 2 + k * step)[0] > 0.4 for k in (-1, 0)] for i in (-1, 0)
    ]
    assert cells[0][0] == cells[1][1] != cells[0][1] == cells[1][0]


def test_patterns_turn_with_their_object():
    """A scene's object is turned until the input view stands at azimuth 0, where it shows what it showed before."""
    seeds = [seed for seed in range(20) if any(part.paint.frequency.any() for part in make_object("mug", seed).parts)]
    for seed in seeds[:3]:
        scene = scene_of(SampleSpec("mug", seed, 32))
        own, turned = (object_surface(thing) for thing in (make_object("mug", seed), scene.thing))
        before, after = (
            render(surface, orbit_cameras([azimuth], [20.0]), 32, FLAT).astype(float)
            for surface, azimuth in ((own, scene.azimuth_deg), (turned, 0.0))
        )
        elsewhere = render(own, orbit_cameras([scene.azimuth_deg + 90], [20.0]), 32, FLAT).astype(float)
        assert np.abs(after - before).mean() < 0.5
        assert np.abs(after - elsewhere).mean() > 3


def test_a_group_is_painted_together_or_apart_and_told_so():
    legs = [Piece(f"{side} leg", box((0, 0, 0), (1, 1, 1)), "legs") for side in ("left", "right")]
    seen = set()
    for seed in range(40):
        parts, phrases = paint_pieces(np.random.default_rng(seed), legs)
        together = parts[0].paint is parts[1].paint
        seen.add(together)
        told = [phrase.removeprefix(part.paint.words + " ") for phrase, part in zip(phrases, parts, strict=False)]
        assert told == (["legs"] if together else ["left leg", "right leg"])
    assert seen == {True, False}


def test_words_say_the_colours_that_are_painted():
    piece = [Piece("seat", box((0, 0, 0), (1, 1, 1)))]
    patterns = set()
    for seed in range(80):
        (part,), _ = paint_pieces(np.random.default_rng(seed), piece)
        names = [word for word in part.paint.words.split() if word in COLORS]
        pattern = part.paint.words.removesuffix(" ".join(names)).strip() or "plain"
        patterns.add(pattern)
        assert (pattern == "plain") == (not part.paint.frequency.any())
        for name, color in zip(names, (part.paint.first, part.paint.second), strict=False):
            assert np.abs(color - np.array(COLORS[name])).max() < 0.2
    assert patterns == set(PATTERNS)


def test_captions_rise_in_detail():
    told = captions(np.random.default_rng(0), "aeroplane", ["red nose", "blue fin", "green tail"])
    assert told[0] == ""
    assert "an aeroplane" in told[1]
    assert [sum(word in text for word in ("nose", "fin", "tail")) for text in told] == [0, 0, 1, 3]


@pytest.mark.parametrize("seed", range(4))
def test_the_richest_caption_names_parts_as_they_are_painted(seed):
    thing = make_object("chair", seed)
    by_name = {part.name: part.paint.words for part in thing.parts}
    phrases = thing.captions[-1].split(" with ")[1].replace(" and ", " , ").split(" , ")
    for phrase in phrases:
        named = [name for name in by_name if phrase == f"{by_name[name]} {name}"]
        grouped = phrase.endswith((" legs", " arms"))
        assert named or grouped
