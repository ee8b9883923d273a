"""What can be chosen of a detection, and its defaults. It imports no library: the command line reads it."""

from typing import Annotated, Literal, get_args

from msgspec import Meta

Space = Literal["constellation", "evidence", "triangulation"]
Peak = Literal["soft", "window", "argmax"]
PEAKS = get_args(Peak)
# In sides of the view.
Window = Annotated[float, Meta(ge=1e-3, le=10)]
# Draws of noise and warped versions that are averaged.
NOISES, WARPS = 4, 0
