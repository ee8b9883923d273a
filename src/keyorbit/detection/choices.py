"""What can be chosen of a detection, and its defaults. It imports no library: the command line reads it."""

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from msgspec import Meta

Space = Literal["constellation", "evidence", "triangulation"]
Peak = Literal["soft", "window", "argmax"]
PEAKS = get_args(Peak)
# In sides of the view.
Window = Annotated[float, Meta(ge=1e-3, le=10)]
# How far the maps of a keypoint and of a phrase agree, and from where on one is the other's name.
Agreement = Annotated[float, Meta(ge=0, le=1)]
NEAR_NAME = 0.5
# Draws of noise and warped versions that are averaged.
NOISES, WARPS = 4, 0


def keypoint_name(index: int, names: Sequence[str] = ()) -> str:
    """Return a keypoint's name in every file: its own of ``names``, or such as ``keypoint_03`` where it has none."""
    own = names[index] if names else ""
    return own or f"keypoint_{index:02d}"
