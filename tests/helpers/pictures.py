"""Pictures with known pixels: turned as a phone stores them, and of 16 bits."""

import numpy as np
from PIL import Image

# 16-bit grey and the 8 bits that it is: 257 grey levels of 16 bits round to one of 8.
DEEP = (0, 128, 129, 385, 386, 32767, 32768, 65407, 65535)


LEVELS = (0, 0, 1, 1, 2, 127, 128, 255, 255)


def blocks(across=5, down=3):
    """A picture of squares of one colour each, 8 pixels wide, which JPEG keeps wherever they are turned to."""
    colors = np.random.default_rng(0).integers(0, 256, (down, across, 3), np.uint8)
    return colors.repeat(8, 0).repeat(8, 1)


def stored_for(pixels, orientation):
    """The rows that a file has to store: where its row 0 and column 0 are to be seen is all that EXIF tells."""
    turned = pixels.swapaxes(0, 1)
    return {
        1: pixels,
        2: pixels[:, ::-1],  # row 0 is at the top, column 0 on the right
        3: pixels[::-1, ::-1],  # at the bottom, on the right
        4: pixels[::-1],  # at the bottom, on the left
        5: turned,  # row 0 is on the left, column 0 at the top
        6: turned[::-1],  # on the right, at the top
        7: turned[::-1, ::-1],  # on the right, at the bottom
        8: turned[:, ::-1],  # on the left, at the bottom
    }[orientation]


def exif(orientation):
    tags = Image.Exif()
    tags[274] = orientation
    return tags


def photograph(path, orientation=1, pixels=None):
    """A file that stores a picture turned, as a phone does, and says how."""
    image = Image.fromarray(np.ascontiguousarray(stored_for(blocks() if pixels is None else pixels, orientation)))
    kind = {".jpg": {"quality": 95, "subsampling": 0}, ".webp": {"lossless": True}}.get(path.suffix, {})
    image.save(path, exif=exif(orientation), **kind)
    return path


def close(image, pixels):
    """The same picture, but for what JPEG rounds."""
    found = np.asarray(image)
    return found.shape == pixels.shape and np.abs(found.astype(int) - pixels).max() <= 3


def deep_picture(columns=9, rows=8):
    """DEEP in the first row of a 16-bit picture."""
    pixels = np.zeros((rows, columns), np.uint16)
    pixels[0, :9] = DEEP
    return Image.fromarray(pixels)
