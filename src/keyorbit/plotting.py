"""Pictures of keypoints. Functions return matplotlib figures and never show them; no global pyplot state."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy import ndarray
from torch import Tensor

from keyorbit.errors import InputError

# Okabe & Ito's colour-blind-safe colours first; then lighter and darker relatives, all distinct.
_COLOURS = (
    *("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#FFFFFF"),
    *("#88CCEE", "#44AA99", "#DDCC77", "#CC6677", "#AA4499", "#882255", "#117733", "#332288"),
)


def palette(count: int) -> list[str]:
    """Hex colours of keypoints 0 … count-1; a number has the same colour in every picture and file."""
    more = [to_hex(colormaps["gist_rainbow"]((i * 0.618) % 1.0)) for i in range(max(0, count - len(_COLOURS)))]
    return [*_COLOURS, *more][:count]


def draw_keypoints(
    pictures: Sequence[UInt8[ndarray, "_ _ 3"]],
    xy: Sequence[Float[Tensor, "keypoint 2"]],
    score: Sequence[Float[Tensor, " keypoint"]] | None = None,
    titles: Sequence[str] = (),
    threshold: float = 0.1,
    crosses: Float[Tensor, "keypoint 2"] | None = None,
) -> Figure:
    """Pictures in a row, each with numbered coloured keypoints; those of a score below ``threshold`` are faint.

    pictures: of any sizes.  xy: in the unit square of each picture.  crosses: the same keypoints as projected from
    space onto the first picture.
    """
    count = len(pictures)
    figure = Figure(figsize=(2.9 * count, 3.2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    colors = palette(len(xy[0]))
    for i, picture in enumerate(pictures):
        axes = figure.add_subplot(1, count, i + 1)
        axes.imshow(picture, extent=(0, 1, 1, 0), interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(titles[i] if i < len(titles) else "", fontsize=10)
        places = xy[i].detach().cpu().numpy()
        away = places - places.mean(0)
        away = away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6)
        for k, (place, direction) in enumerate(zip(places, away, strict=True)):
            alpha = 1.0 if score is None or float(score[i][k]) >= threshold else 0.35
            axes.plot(*place, "o", ms=6, mfc=colors[k], mec="black", mew=0.8, alpha=alpha, clip_on=True)
            axes.annotate(
                str(k),
                place,
                xytext=tuple(9 * direction),
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=8,
                color=colors[k],
                alpha=alpha,
                path_effects=[withStroke(linewidth=2, foreground="black")],
            )
            if i == 0 and crosses is not None:
                edge = [withStroke(linewidth=2.5, foreground="black")]
                x, y = crosses[k].tolist()
                axes.plot(x, y, "x", ms=5, mew=1.2, color=colors[k], alpha=alpha, path_effects=edge, clip_on=True)
        axes.set_xlim(0, 1)
        axes.set_ylim(1, 0)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all.

    Raises:
        InputError: the disk refuses.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        figure.savefig(partial, format="png")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error}") from error
