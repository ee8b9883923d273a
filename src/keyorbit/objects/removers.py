"""What tells an object from its background: rembg's network, or GrabCut; both are optional dependencies."""

import contextlib
import io
import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from PIL import Image

from keyorbit.objects.background import INSTALL, CutBy
from keyorbit.objects.grabcut import grabcut_mask

log = logging.getLogger(__name__)

# U²-Net (Qin et al., Pattern Recognition 2020), Apache-2.0, as the demonstrations of InstantMesh and TripoSR take it.
# Not rembg's own default, which changed over its versions to a network that may not be used commercially.
_NETWORK = "u2net"

Mask = Float[ndarray, "height width"]


def object_mask(image: Image.Image) -> tuple[Mask, CutBy] | None:
    """Return how much of each pixel is the object's, 0…1 at any size, and what told it; None if nothing can.

    It is rembg if that is installed and works, else GrabCut if OpenCV is installed.
    """
    rgb = image.convert("RGB")
    if (remove := _rembg()) is not None:
        try:
            return remove(rgb), "rembg"
        except Exception as error:  # of onnxruntime, whose errors share no type
            log.warning("rembg failed on a picture (%s); it is cut out by its colours", _first_line(error))
    try:
        cv2 = import_module("cv2")
    except ImportError:
        return None
    return grabcut_mask(rgb, cv2), "grabcut"


@cache
def _rembg() -> Callable[[Image.Image], Mask] | None:
    """Return the network as a function, loaded once; None, which is told once, where it cannot be loaded."""
    said = io.StringIO()
    try:
        # Without onnxruntime, rembg prints advice and ends the program.
        with contextlib.redirect_stdout(said):
            rembg = import_module("rembg")
            session = rembg.new_session(_NETWORK)
    except ModuleNotFoundError as error:
        if error.name != "rembg":
            log.warning("rembg cannot be used, for it needs %s: %s", error.name, INSTALL)
        return None
    except SystemExit:
        log.warning("rembg cannot be used without onnxruntime: %s", INSTALL)
        return None
    except Exception as error:  # of the network connection, of a damaged file, of onnxruntime
        log.warning(
            "rembg cannot load its network %s (%s): connect once, or put the file where rembg keeps it; objects are "
            "cut out by their colours",
            _NETWORK,
            _first_line(error),
        )
        return None

    def remove(image: Image.Image) -> Mask:
        mask = rembg.remove(image, session=session, only_mask=True)
        return np.asarray(mask.convert("L"), float) / 255

    return remove


def _first_line(error: BaseException) -> str:
    """What an error says, short: those of connections hold whole addresses and causes."""
    lines = str(error).strip().splitlines()
    words = lines[0] if lines else type(error).__name__
    return words if len(words) <= 120 else f"{words[:119]}…"
