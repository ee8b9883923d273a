"""The docs' picture of keypoints in words, by the tiny model: ``python examples/named.py docs/images/named.png``."""

import sys
from importlib.resources import files

import numpy as np
from matplotlib.figure import Figure

import keyorbit as ko
from keyorbit.objects.pictures import to_uint8
from keyorbit.output.palette import palette

PHRASES = (
    *("lower front left leg", "lower front right leg", "lower back left leg", "lower back right leg"),
    *("left upper back", "right upper back", "front left seat", "middle seat"),
)
VIEWS = (2, 4)


def main(path: str) -> None:
    """Draw two views of a chair with the names of the points beside them, those that are further left on the left."""
    backend = ko.load_backend("tiny")
    tokens = ko.Tokens.from_phrases(backend, PHRASES)
    chair = ko.load_dataset(files("keyorbit") / "assets" / "examples")[1]
    found = ko.KeypointDetector(backend, tokens).detect_object(chair)
    figure, colors = Figure((11, 3.6), layout="constrained"), palette(len(PHRASES))
    for axes, view in zip(figure.subplots(1, len(VIEWS)), VIEWS, strict=True):
        axes.imshow(to_uint8(found.views[view]), extent=(0, 1, 1, 0), interpolation="nearest")
        xy = found.keypoints_2d.xy[view].numpy()
        for side, numbers in ((-0.06, np.flatnonzero(xy[:, 0] < 0.5)), (1.06, np.flatnonzero(xy[:, 0] >= 0.5))):
            heights = np.linspace(0.08, 0.92, max(2, len(numbers)))
            for height, number in zip(heights, numbers[np.argsort(xy[numbers, 1])], strict=False):
                axes.plot([xy[number, 0], side], [xy[number, 1], height], color="0.25", lw=0.8, clip_on=False)
                axes.plot(*xy[number], "o", color=colors[number], mec="black", ms=8)
                where = "right" if side < 0 else "left"
                axes.text(side, height, PHRASES[number], ha=where, va="center", fontsize=10)
        axes.set_xlim(0, 1)
        axes.set_ylim(1, 0)
        axes.axis("off")
    figure.savefig(path, dpi=110, facecolor="white")


if __name__ == "__main__":
    main(*sys.argv[1:])
