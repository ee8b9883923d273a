"""The README's picture from a finished ``make demo``: a chair that was not seen before, its keypoints, its points.

python examples/figures.py build/demo docs/images/overview.png

Of the first test chairs it shows the one whose keypoints score best.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy import ndarray

import keyorbit as ko
from keyorbit.palette import ink, palette
from keyorbit.plotting import save_figure
from keyorbit.results import square, to_uint8
from keyorbit.scenes import frustum

# Objects to choose from, keypoints shown at most, and keypoints whose rays are drawn.
OBJECTS, SHOWN, RAYS = 8, 12, 2
SEEN = 0.1
GREY, DARK = "#8C959F", "#24292F"
# Twice the 880 pixels that a README is wide.
WIDTH, HEIGHT, DPI = 8.8, 4.62, 200


def draw_overview(found: ko.Detection) -> Figure:
    """The input picture, the points in space below it, and the six views beside them."""
    flat, points = found.keypoints_2d, found.keypoints_3d
    assert points is not None
    assert flat.input_xy is not None
    assert flat.input_score is not None
    kept = points.score.topk(min(SHOWN, len(points.score))).indices
    kept = kept[points.score[kept] > 0].sort().values
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    side, gap, head = 2.02, 0.06, 0.22
    left = WIDTH - 3 * side - 3 * gap

    def box(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        """Inches from the top left corner, as matplotlib places axes."""
        return x / WIDTH, 1 - (y + height) / HEIGHT, width / WIDTH, height / HEIGHT

    given = figure.add_axes(box((left - side) / 2, head + gap, side, side))
    draw_places(given, square(found.input_image), flat.input_xy, flat.input_score, kept, "the picture")
    for i, view in enumerate(found.views):
        row, col = divmod(i, 3)
        place = box(left + col * (side + gap), gap + head + row * (side + head), side, side)
        draw_places(figure.add_axes(place), to_uint8(view), flat.xy[i], flat.score[i], kept, f"view {i}")
    top = 2 * head + side + gap
    space: Any = figure.add_axes(box(0, top, left - gap, HEIGHT - top), projection="3d")
    draw_space(space, found, kept)
    return figure


def draw_places(
    axes: Any, picture: UInt8[ndarray, "_ _ 3"], xy: torch.Tensor, score: torch.Tensor, kept: torch.Tensor, title: str
) -> None:
    """One picture with its keypoints; numbers stand outside the cloud of points, each beside its own."""
    axes.imshow(picture, extent=(0, 1, 1, 0), interpolation="lanczos")
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
    axes.set_title(title, fontsize=8, color=DARK, pad=3)
    axes.spines[:].set(color="#D0D7DE", linewidth=0.8)
    colors = palette(len(xy))
    places = xy.numpy()
    shown = [k for k in kept.tolist() if float(score[k]) >= SEEN]
    for k, (x, y) in zip(shown, label_places(places[shown]), strict=True):
        outline = [withStroke(linewidth=1.8, foreground=ink(colors[k]))]
        axes.plot(*places[k], "o", ms=6.5, mfc=colors[k], mec=ink(colors[k]), mew=0.9)
        axes.text(
            x, y, str(k), fontsize=7.5, weight="bold", ha="center", va="center", color=colors[k], path_effects=outline
        )


def label_places(places: ndarray, reach: float = 0.075, steps: int = 60) -> ndarray:
    """Where numbers stand: near their points, away from other points and numbers, and inside the picture."""
    if len(places) == 0:
        return places
    away = places - places.mean(0)
    labels = places + reach * away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6)
    for _ in range(steps):
        others = np.concatenate([labels, places])
        push = labels[:, None] - others[None]
        distance = np.maximum(np.linalg.norm(push, axis=-1, keepdims=True), 1e-6)
        force = (push / distance * np.maximum(0, reach - distance)).sum(1)
        labels = labels + 0.5 * force
        string = labels - places
        length = np.maximum(np.linalg.norm(string, axis=1, keepdims=True), 1e-6)
        labels = np.clip(places + string * np.clip(length, reach, 1.4 * reach) / length, 0.04, 0.96)
    return labels


def draw_space(axes: Any, found: ko.Detection, kept: torch.Tensor) -> None:
    """The points, and the cameras drawn nearer than they stand, with the rays of the best points."""
    flat, points = found.keypoints_2d, found.keypoints_3d
    assert points is not None
    assert flat.cameras is not None
    colors, xyz = palette(len(points.xyz)), points.xyz.numpy()
    centers = flat.cameras.centers.numpy()
    nearer = 0.62
    best = kept[points.score[kept].topk(min(RAYS, len(kept))).indices].tolist()
    for i, center in enumerate(centers):
        tip, rim = frustum(flat.cameras, i, 0.3)
        tip, rim = (place - center + nearer * center for place in (tip, rim))
        for start, end in [*zip(tip, rim, strict=True), *zip(rim, np.roll(rim, -1, 0), strict=True)]:
            axes.plot(*np.stack([start, end]).T, color=GREY, lw=0.7)
        axes.text(*(1.16 * nearer * center), str(i), fontsize=7, color=DARK, ha="center", va="center")
        for k in best:
            if points.visible is None or bool(points.visible[i, k]):
                axes.plot(*np.stack([nearer * center, xyz[k]]).T, color=colors[k], lw=0.8, alpha=0.8)
    for k in kept.tolist():
        axes.plot(*xyz[k, :, None], "o", ms=6, mfc=colors[k], mec=ink(colors[k]), mew=0.8)
    reach = nearer * float(np.abs(centers).max())
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach / 2, reach / 2))
    axes.set_box_aspect((2, 2, 1), zoom=1.75)
    axes.view_init(elev=26, azim=20)
    axes.set_axis_off()
    axes.set_title("in space, with the views' cameras", fontsize=8, color=DARK, y=0.93)


def main(demo: Path, target: Path) -> None:
    tokens = ko.Tokens.load(demo / "run" / "tokens.safetensors")
    detector = ko.KeypointDetector(ko.load_backend(tokens.info.model), tokens)
    found = [detector.detect_object(thing) for thing in ko.load_dataset(demo / "test")[:OBJECTS]]
    target.parent.mkdir(parents=True, exist_ok=True)
    save_figure(draw_overview(max(found, key=_mean_score)), target)


def _mean_score(found: ko.Detection) -> float:
    assert found.keypoints_3d is not None
    return float(found.keypoints_3d.score.mean())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
