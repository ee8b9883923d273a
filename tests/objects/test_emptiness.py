"""Noise is told from pictures, whatever its size, its kind and its file."""

import io

import numpy as np
import pytest
from PIL import Image

from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.emptiness import is_noise


def noise(size, channels=3):
    shape = (size, size + size // 3, channels)[: 2 if channels == 1 else 3]
    return Image.fromarray(np.random.default_rng(size).integers(0, 256, shape, dtype=np.uint8))


def as_jpeg(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)
    return Image.open(file)


@pytest.mark.parametrize("size", [33, 63, 128, 256, 700])
def test_noise_is_noise(size):
    kinds = noise(size), noise(size, 1), as_jpeg(noise(size)), Image.effect_noise((size, size), 80)
    assert all(is_noise(ObjectViews("noise", image)) for image in kinds)


def test_pictures_are_not(objects):
    for thing in objects:
        grainy = np.asarray(thing.input_image.convert("RGB").resize((200, 200))).astype(int)
        grainy = grainy + np.random.default_rng(0).integers(-60, 60, grainy.shape)
        for image in (thing.input_image, Image.fromarray(grainy.clip(0, 255).astype(np.uint8))):
            assert not is_noise(ObjectViews("thing", image))
    # Too small to tell, and dithered.
    assert not is_noise(ObjectViews("thing", noise(24)))
    assert not is_noise(ObjectViews("thing", Image.linear_gradient("L").convert("1")))
