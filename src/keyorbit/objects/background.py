"""What is done with the background of a picture, in words and names."""

from typing import Literal

# auto: cut the object out of a photograph, and leave a picture as it is whose object is known: by its alpha channel, by
# a plain background, or because its views are there. remove: cut out what has no alpha. keep: never.
Background = Literal["auto", "remove", "keep"]
# What told an object from its background: a user's mask, rembg's network, or OpenCV's GrabCut.
CutBy = Literal["mask", "rembg", "grabcut"]
# The name under which detections keep a cut-out, and under which it is found again.
CUT_OUT_FILE = "cutout.png"
# The folder of those of a run, each under its object's name.
CUT_OUTS = "cutouts"
# What installs rembg and OpenCV.
INSTALL = "pip install 'keyorbit[photos]'"
