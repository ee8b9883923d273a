"""What can be chosen of a detection, and its defaults. It imports no library: the command line reads it."""

from typing import Literal, get_args

Space = Literal["constellation", "evidence", "triangulation"]
Peak = Literal["soft", "window", "argmax"]
PEAKS = get_args(Peak)
# Draws of noise and warped versions that are averaged.
NOISES, WARPS = 4, 0
