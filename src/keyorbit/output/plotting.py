"""Figures of keypoints, heatmaps and losses. Functions return matplotlib figures and never show them; no pyplot."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.keypoints import Keypoints3D
from keyorbit.output.choices import Edge
from keyorbit.output.crowding import spread_labels
from keyorbit.output.palette import FAINT, ink, palette
from keyorbit.storage.files import whole_file

# Matplotlib takes half a second to import: it is loaded where something is drawn.
if TYPE_CHECKING:
    import matplotlib.figure

# Matplotlib's map that reads the same with and without red-green colour blindness.
HEAT = "cividis"
# Pixels a side, about four times as many as a picture of a row gets in a figure.
_DRAWN = 1024
# Of a keypoint's number, in sides of a picture: its radius, and how far from the keypoint it may stand.
_LABEL, _DISTANCES = 0.03, (0.048, 0.075, 0.105, 0.14)
# A running mean reaches so far to both sides, as a share of all steps.
_REACH = 0.05


def _no_larger(picture: UInt8[ndarray, "_ _ 3"]) -> UInt8[ndarray, "_ _ 3"]:
    """The picture at about the size that is drawn: matplotlib takes 50 bytes for each pixel that it is given."""
    factor = max(picture.shape[:2]) // _DRAWN
    return picture if factor < 2 else np.asarray(Image.fromarray(picture).reduce(factor))


def draw_keypoints(
    pictures: Sequence[UInt8[ndarray, "_ _ 3"]],
    xy: Sequence[Float[Tensor, "keypoint 2"]],
    score: Sequence[Float[Tensor, " keypoint"]] | None = None,
    titles: Sequence[str] = (),
    crosses: Float[Tensor, "keypoint 2"] | None = None,
    heading: tuple[str, str] = ("", ""),
    hollow: bool = False,
    hidden: Sequence[int] = (),
) -> "matplotlib.figure.Figure":
    """Draw pictures in a row, each with numbered coloured keypoints; those with a score below 0.1 are faint.

    Args:
        pictures: of any sizes.
        xy: in the unit square of each picture.
        score: of each keypoint in each picture. Default None: none is faint.
        titles: above the pictures. Default: none.
        crosses: the same keypoints projected from space onto the first picture. Default None: no crosses.
        heading: a sentence over all pictures, and its colour. Default: none.
        hollow: draw grey rings in place of all keypoints, since they mean nothing. Default False.
        hidden: keypoints that are not drawn. Default: none.
    """
    from matplotlib.patheffects import withStroke

    count = len(pictures)
    figure = _figure(2.9 * count, 3.2 if not heading[0] else 3.5)
    if heading[0]:
        figure.suptitle(fill(heading[0], 34 * count), color=heading[1], fontsize=11)
    colors = palette(len(xy[0]))
    for i, picture in enumerate(pictures):
        axes = figure.add_subplot(1, count, i + 1)
        axes.imshow(_no_larger(picture), extent=(0, 1, 1, 0), interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(titles[i] if i < len(titles) else "", fontsize=10)
        places = xy[i].detach().cpu().numpy()
        shown = [k for k in range(len(places)) if k not in hidden]
        spots = spread_labels([(float(x), float(y)) for x, y in places[shown]], _LABEL, _DISTANCES, 1.0, 0.01)
        beside = dict(zip(shown, spots, strict=True))
        for k, place in enumerate(places):
            if k in hidden:
                continue
            if hollow:
                axes.plot(*place, "o", ms=6, mfc="none", mec="#777777", mew=0.8, alpha=0.6, clip_on=True)
                continue
            alpha = 1.0 if score is None or float(score[i][k]) >= FAINT else 0.35
            axes.plot(*place, "o", ms=6, mfc=colors[k], mec=ink(colors[k]), mew=0.8, alpha=alpha, clip_on=True)
            spot = beside[k] or (float(place[0]), float(place[1]) - _DISTANCES[0])
            far = float(np.hypot(*np.subtract(spot, place))) > _DISTANCES[0] + 1e-6
            axes.annotate(
                str(k),
                place,
                xytext=spot,
                arrowprops={"arrowstyle": "-", "lw": 0.8, "color": colors[k], "shrinkA": 3, "shrinkB": 3}
                if far
                else None,
                ha="center",
                va="center",
                fontsize=8,
                color=colors[k],
                alpha=alpha,
                path_effects=[withStroke(linewidth=2, foreground=ink(colors[k]))],
            )
            if i == 0 and crosses is not None:
                edge = [withStroke(linewidth=2.5, foreground=ink(colors[k]))]
                x, y = crosses[k].tolist()
                axes.plot(x, y, "x", ms=5, mew=1.2, color=colors[k], alpha=alpha, path_effects=edge, clip_on=True)
        axes.set_xlim(0, 1)
        axes.set_ylim(1, 0)
    return figure


def draw_heatmaps(
    heatmaps: Float[Tensor, "row col height width"],
    row_titles: Sequence[str] = (),
    col_titles: Sequence[str] = (),
    pictures: Sequence[UInt8[ndarray, "_ _ 3"]] = (),
) -> "matplotlib.figure.Figure":
    """Draw a grid of heatmaps, each scaled to its own maximum, over greyed ``pictures`` (one a column) if given."""
    rows, cols = heatmaps.shape[:2]
    figure = _figure(1.25 * cols + 1.5, 1.25 * rows + 0.4)
    values = heatmaps.detach().cpu().numpy()
    for row in range(rows):
        for col in range(cols):
            axes = figure.add_subplot(rows, cols, row * cols + col + 1)
            if col < len(pictures):
                axes.imshow(pictures[col].mean(-1), extent=(0, 1, 1, 0), cmap="gray", vmin=0, vmax=255)
            axes.imshow(values[row, col], extent=(0, 1, 1, 0), cmap=HEAT, alpha=0.7 if len(pictures) else 1.0)
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0 and col < len(col_titles):
                axes.set_title(col_titles[col], fontsize=8)
            if col == 0 and row < len(row_titles):
                axes.set_ylabel(row_titles[row], fontsize=8, rotation=0, ha="right", va="center")
    return figure


def draw_losses(history: Sequence[Mapping[str, float]]) -> "matplotlib.figure.Figure":
    """Draw one small plot for each term over the steps, the total first: measured values and their running mean.

    ``history`` is the log of ``keyorbit discover``: the step, and the value of every term. Raises ValueError when it is
    empty.
    """
    terms = loss_terms(history)
    if not terms:
        raise ValueError("there are no losses to draw: the history is empty")
    cols = min(3, len(terms))
    rows = math.ceil(len(terms) / cols)
    figure = _figure(3.2 * cols, 2.3 * rows)
    steps = [entry["step"] for entry in history]
    for i, term in enumerate(terms):
        axes = figure.add_subplot(rows, cols, i + 1)
        values = [entry[term] for entry in history]
        axes.plot(steps, values, lw=0.7, color="#999999")
        axes.plot(steps, running_mean(values), lw=1.8, color=palette(5)[4])
        axes.set_title(term, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_points(
    points: Keypoints3D, cameras: Cameras | None = None, skeleton: Sequence[Edge] = ()
) -> "matplotlib.figure.Figure":
    """Draw numbered keypoints in space, z up, with the directions of the cameras. Points of score 0 are left out."""
    figure = _figure(5.0, 5.0)
    axes: Any = figure.add_subplot(projection="3d")
    xyz, colors = points.xyz.detach().cpu().numpy(), palette(len(points.xyz))
    kept = [k for k in range(len(xyz)) if float(points.score[k]) > 0]
    for edge in skeleton:
        if set(edge) <= set(kept):
            axes.plot(*xyz[list(edge)].T, color="#777777", lw=1)
    for k in kept:
        axes.plot(*xyz[k, :, None], "o", ms=7, mfc=colors[k], mec=ink(colors[k]))
        axes.text(*xyz[k], f"  {k}", fontsize=8)
    if cameras is not None:
        reach = 1.3 * max(float(np.abs(xyz[kept]).max()) if kept else 0.5, 1e-3)
        for i, center in enumerate(cameras.centers.cpu().numpy()):
            place = center / max(float(np.linalg.norm(center)), 1e-9) * reach
            axes.plot(*place[:, None], "^", ms=6, color="#777777")
            axes.text(*place, f" view {i}", fontsize=7, color="#777777")
    axes.set_aspect("equal")
    axes.set(xlabel="x", ylabel="y", zlabel="z")
    return figure


def loss_terms(history: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the terms of a loss history, ``total`` first, without step and time."""
    names = [name for name in history[0] if name not in ("step", "seconds")] if history else []
    return sorted(names, key=lambda name: name != "total")


def running_mean(values: Sequence[float]) -> list[float]:
    """Compute the running mean over a window that extends by 5 % of the whole length to both sides."""
    reach = round(_REACH * len(values))
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, float))])
    index = np.arange(len(values))
    low, high = np.maximum(0, index - reach), np.minimum(len(values), index + reach + 1)
    mean: list[float] = ((sums[high] - sums[low]) / (high - low)).tolist()
    return mean


def save_figure(figure: "matplotlib.figure.Figure", path: Path) -> None:
    """Write a PNG, all of it or nothing.

    Raises:
        InputError: the file cannot be written.
    """
    with whole_file(path) as partial:
        figure.savefig(partial, format="png")


def _figure(width: float, height: float) -> "matplotlib.figure.Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
