"""Whether a picture shows anything at all: neither one colour nor noise."""

import numpy as np
from PIL import Image

from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.pictures import on_grey

# Pixels a side at which the picture is looked at, each the mean of a box: noise of sensors and of JPEG is gone then.
_LOOKED = 32
# Levels of 0…255 by which some pixel differs from the others at least, where there is something.
_DIFFERS = 6
# Correlation of neighbouring places, across and down, up to which a picture is noise: that of noise is at most 0.12,
# also of small JPEGs; that of pictures at least 0.5, and that of sheets of many small ones 0.3.
_ALIKE = 0.2


def check_seen(thing: ObjectViews, where: str = "") -> None:
    """Raise an error for an object of which there is nothing but a picture of one colour.

    Args:
        thing: the object.
        where: it was read from, for the message. Default: it is not told.

    Raises:
        InputError: no pixel of the picture, at 32 x 32, differs from another by more than 6 of 255 levels; or it is
            transparent everywhere.
    """
    if thing.views is not None:
        return
    small = np.asarray(on_grey(thing.framed_image).resize((_LOOKED, _LOOKED), Image.Resampling.BOX)).astype(np.int16)
    if int(np.ptp(small.reshape(-1, 3), axis=0).max()) <= _DIFFERS:
        words = "it has one colour everywhere; give a picture that shows an object"
        raise InputError(f"{where}{where and ': '}the picture of {thing.name} is empty: {words}")


def is_noise(thing: ObjectViews) -> bool:
    """Whether places in an object's input picture, about 32 a side, have nothing to do with their neighbours.

    A model of several views makes of noise one of the objects that it knows, which is as good as any.
    """
    picture = on_grey(thing.framed_image)
    if min(picture.size) < _LOOKED:
        return False
    pixels = np.asarray(picture.reduce(min(picture.size) // _LOOKED)).astype(float)
    away = pixels - pixels.mean((0, 1))
    across, down = (away[:, 1:] * away[:, :-1]).mean(), (away[1:] * away[:-1]).mean()
    return bool(max(across, down) < _ALIKE * (away * away).mean())
