"""Six rendered views as one picture, and the memory that rendering them takes."""

from einops import rearrange
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from keyorbit.budget import check_budget
from keyorbit.geometry.views import Layout

LAYOUT = Layout(3, 2)
# Memory while an object is rendered, for each pixel of a view; measured, see tests/synthetic/test_dataset_make.py.
_PIXEL_BYTES = 2600


def check_rendering(size: int, workers: int = 1) -> None:
    """Raise InputError where the views of that many pixels a side, rendered by so many processes, do not fit memory."""
    needed = _PIXEL_BYTES * size**2 * workers
    check_budget({f"rendering views of {size} x {size} pixels": (needed, "ask for smaller views, or fewer workers")})


def grid_of(views: UInt8[ndarray, "view size size 4"]) -> Image.Image:
    """Return six views as one picture of three rows."""
    return Image.fromarray(rearrange(views, "(r c) h w k -> (r h) (c w) k", r=LAYOUT.rows, c=LAYOUT.cols))
