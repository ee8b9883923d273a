"""Which photograph a name in a file of cameras is."""

import logging
from pathlib import Path

import pytest

from keyorbit.errors import InputError
from keyorbit.geometry.lenses import Intrinsics
from keyorbit.geometry.matrices import COLMAP
from keyorbit.objects.shots import Shot, Shots, chosen_shots, warn_of_names

ROWS = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
LENS = Intrinsics("PINHOLE", 1.0, 1.0)
HERE = Path("/data/scene/images")


def find(names, photographs, folder=HERE):
    source = Shots("the file", tuple(Shot(name, ROWS, LENS) for name in names), COLMAP)
    paths = [folder / name for name in photographs]
    ((_, shots),) = chosen_shots([source], folder, paths)
    warn_of_names(source, shots, paths)
    return [shot.name for shot in shots]


@pytest.mark.parametrize(
    ("names", "photographs", "found"),
    [
        (["a.png", "b.png"], ["b.png"], ["b.png"]),
        (["images/a.png", "b.png"], ["a.png"], ["images/a.png"]),
        (["left/a.png"], ["a.png"], ["left/a.png"]),
        (["cam0/a.png", "cam1/a.png"], ["cam0/a.png", "cam1/a.png"], ["cam0/a.png", "cam1/a.png"]),
        (["images/cam0/a.png", "images/cam1/a.png"], ["cam1/a.png"], ["images/cam1/a.png"]),
        (["masks/a.png", "images/a.png"], ["a.png"], ["images/a.png"]),
        (["images/a.png", "old/images/a.png", "scene/images/a.png"], ["a.png"], ["scene/images/a.png"]),
        (["a b/c d.png"], ["c d.png"], ["a b/c d.png"]),
        (["A.png", "a.png"], ["a.png", "A.png"], ["a.png", "A.png"]),
        (["a.JPG"], ["a.jpg"], ["a.JPG"]),
        (["a.JPG"], ["a.png"], ["a.JPG"]),
        (["a.png", "a.jpg"], ["a.jpg"], ["a.jpg"]),
        (["./train/r_0", "./train/r_10"], ["r_10.png"], ["./train/r_10"]),
        (["x.0"], ["x.0.png"], ["x.0"]),
        (["e\u0301.png"], ["\u00e9.png"], ["e\u0301.png"]),
        (["..\\images\\a.png"], ["a.png"], ["..\\images\\a.png"]),
    ],
)
def test_names_are_found(names, photographs, found):
    assert find(names, photographs) == found


@pytest.mark.parametrize(
    ("names", "photographs", "words"),
    [
        (["b.png"], ["a.png"], r"the file does not have a.png; remove it, or register it \(named there: 'b.png'\)"),
        ([], ["a.png"], r"named there: no photographs"),
        (["b.png", "c.png", "d.png"], ["a.png"], r"named there: 'b.png', 'c.png' and 1 more"),
        (["cam0/a.png", "cam1/a.png"], ["a.png"], r"has 'cam0/a.png' and 'cam1/a.png', and .*a.png may be either"),
        (["a.JPG", "A.jpg"], ["a.jpeg"], "may be either"),
        (["a.JPG"], ["a.png", "a.jpg"], r"a.png and .*a.jpg are both 'a.JPG'"),
        (["cam1/a.png"], ["cam0/a.png"], "does not have cam0/a.png"),
        (["a.png"], ["cam0/a.png", "cam1/a.png"], "are both 'a.png'"),
        (["a"], ["a.b.png"], "does not have"),
        (["/", ".", "//"], ["a.png"], "does not have"),
    ],
)
def test_what_is_not_there_or_ambiguous_is_told(names, photographs, words):
    with pytest.raises(InputError, match=words):
        find(names, photographs)


def test_other_capitals_and_suffixes_are_told(caplog):
    with caplog.at_level(logging.WARNING):
        find(["x/a.JPG", "x/b.JPG", "x/c.jpg", "x/d"], ["a.png", "b.png", "c.jpg", "d.png"])
    assert caplog.messages == ["the file has no a.png: 'x/a.JPG' is taken for it, and 1 more like it"]
