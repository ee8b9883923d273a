"""What can be chosen of a detection, and its defaults. It imports no library: the command line reads it."""

from typing import Literal

Space = Literal["constellation", "evidence", "triangulation"]
PEAKS = ("soft", "window", "argmax")
# Draws of noise and warped versions that are averaged.
NOISES, WARPS = 4, 0
