"""One palette: colours that also the colour-blind can tell apart, and ink that reads on them."""

import numpy as np
import pytest

from keyorbit.output.palette import ink, luminance, palette, rgb

# Machado, Oliveira and Fernandes 2009, severity 1: linear RGB as it is seen.
VISION = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def oklab(linear):
    """Ottosson 2020."""
    to_lms = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
    to_lms = np.array([*to_lms, [0.0883024619, 0.2817188376, 0.6299787005]])
    to_lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099]]
    to_lab = np.array([*to_lab, [0.0259040371, 0.7827717662, -0.8086757660]])
    return np.cbrt(linear @ to_lms.T) @ to_lab.T


@pytest.mark.parametrize("vision", VISION)
def test_sixteen_colours_are_told_apart(vision):
    colors = np.array([rgb(color) for color in palette(16)]) / 255
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    seen = oklab((linear @ np.array(VISION[vision]).T).clip(0, 1))
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 9 * np.eye(16)
    assert apart.min() > 0.075


def test_numbers_read_on_every_colour():
    for color in palette(64):
        light, dark = sorted([luminance(color), luminance(ink(color))], reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_a_number_keeps_its_colour():
    assert palette(5) == palette(40)[:5]
    assert len(set(palette(64))) == 64
    assert palette(1) == ["#E69F00"]
    assert rgb("#E69F00") == (230, 159, 0)
