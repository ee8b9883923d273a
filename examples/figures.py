"""The README's picture from a finished ``make demo``: a chair that was not seen before, its keypoints, its points.

python examples/figures.py build/demo docs/images/overview.png

Of the first test chairs it shows the one whose keypoints score best.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from numpy import ndarray
from torch import Tensor

import keyorbit as ko
from keyorbit.discovery.selection import furthest_point_sampling
from keyorbit.geometry.hull import hull_points, silhouette_distance
from keyorbit.objects.pictures import square
from keyorbit.output.meshes import frustum
from keyorbit.output.palette import ink, palette
from keyorbit.output.plotting import save_figure

# Objects to choose from, keypoints shown, of which the rays of so many are drawn, and points of the visual hull.
OBJECTS, SHOWN, RAYS, HULL = 8, 10, 2, 4000
SEEN = 0.1
DARK, LINE, PAPER = "#24292F", "#8C959F", 0.965
# Inches and dots: twice the 880 pixels that a README is wide.
WIDTH, SIDE, INPUT, GAP, HEAD, DPI = 8.8, 1.92, 1.6, 0.06, 0.22, 200
HEIGHT = 2 * (SIDE + HEAD) + 2 * GAP
# How near the cameras are drawn, as a share of their distance, and how deep their frusta are.
NEARER, DEPTH = 0.44, 0.2


def draw_overview(found: ko.Detection) -> Figure:
    """The input picture, the points in space below it, and the six views beside them."""
    flat, points = found.keypoints_2d, found.keypoints_3d
    assert points is not None
    assert flat.input_xy is not None
    assert flat.input_score is not None
    kept = spread_out(points)
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    left = WIDTH - 3 * (SIDE + GAP)

    def axes(x: float, y: float, width: float, height: float, title: str) -> Any:
        """Inches from the top left corner of the figure; the title stands above."""
        made = figure.add_axes((x / WIDTH, 1 - (y + height) / HEIGHT, width / WIDTH, height / HEIGHT))
        made.set_title(title, fontsize=8.5, color=DARK, pad=3)
        made.set(xticks=[], yticks=[])
        made.spines[:].set(color="#D0D7DE", linewidth=0.8)
        return made

    given = axes((left - INPUT) / 2 - GAP, HEAD, INPUT, INPUT, "one picture")
    draw_places(given, square(found.input_image), flat.input_xy, flat.input_score, kept)
    for i, (view, mask) in enumerate(zip(found.views, found.masks, strict=True)):
        row, col = divmod(i, 3)
        place = axes(left + col * (SIDE + GAP), HEAD + row * (SIDE + HEAD), SIDE, SIDE, f"view {i}")
        draw_places(place, on_paper(view, mask), flat.xy[i], flat.score[i], kept)
    space = axes(
        0, 2 * HEAD + INPUT, left - 2 * GAP, HEIGHT - 2 * HEAD - INPUT, "points in space, and the views' cameras"
    )
    space.spines[:].set_visible(False)
    draw_space(space, found, kept)
    return figure


def on_paper(
    view: Float[Tensor, "3 height width"], mask: Bool[Tensor, "height width"]
) -> Float[ndarray, "new_height new_width 3"]:
    """A view enlarged, with a light background behind the object."""
    layers = torch.cat([view, mask[None].to(view)])[None]
    large = torch.nn.functional.interpolate(layers, scale_factor=6, mode="bicubic", antialias=True)[0].clamp(0, 1)
    picture = large[:3] * large[3:] + PAPER * (1 - large[3:])
    return picture.permute(1, 2, 0).numpy()


def spread_out(points: ko.Keypoints3D) -> Tensor:
    """The keypoints shown, in order: the best one, and then of those that score well the furthest from the others."""
    good = (points.score >= SEEN).nonzero()[:, 0]
    if len(good) <= SHOWN:
        return good
    best = int(good[points.score[good].argmax()])
    return furthest_point_sampling(points.xyz[None], SHOWN, good, best).sort().values


def draw_places(axes: Any, picture: ndarray, xy: Tensor, score: Tensor, kept: Tensor) -> None:
    """One picture with its keypoints; those that it does not show clearly are left out."""
    axes.imshow(picture, extent=(0, 1, 1, 0), interpolation="lanczos")
    draw_numbers(axes, xy.numpy(), [k for k in kept.tolist() if float(score[k]) >= SEEN], 12)
    axes.set(xlim=(0, 1), ylim=(1, 0))


def draw_numbers(axes: Any, places: Float[ndarray, "keypoint 2"], shown: list[int], size: float) -> None:
    """Numbers in coloured circles, as in the report."""
    colors = palette(len(places))
    for k in shown:
        axes.plot(*places[k], "o", ms=size, mfc=colors[k], mec=ink(colors[k]), mew=0.7, zorder=5)
        style = {"size": 0.62 * size, "weight": "bold", "color": ink(colors[k]), "zorder": 5}
        axes.annotate(str(k), places[k], ha="center", va="center_baseline", **style)


def draw_space(axes: Any, found: ko.Detection, kept: Tensor) -> None:
    """The points within the visual hull, the cameras round it, drawn nearer than they stand, and some rays."""
    points, cameras = found.keypoints_3d, found.keypoints_2d.cameras
    assert points is not None
    assert cameras is not None
    eye = ko.orbit_cameras(0.0, 24.0, orthographic=True, scale=1.0)

    def seen(place: Any) -> Float[ndarray, "place 2"]:
        """As the eye sees it: x right, y down, world units."""
        found: ndarray = eye.project(torch.as_tensor(np.atleast_2d(place), dtype=torch.float32))[0].numpy() - 0.5
        return found

    colors, xyz, centers = palette(len(points.xyz)), points.xyz.numpy(), cameras.centers.numpy()
    hull = hull_points(silhouette_distance(found.masks), cameras, HULL, torch.Generator().manual_seed(0))
    # Their colours are those of view 0, which the eye is near to.
    grid = 2 * cameras.project(hull)[:1, None] - 1
    shades = torch.nn.functional.grid_sample(found.views[:1], grid, align_corners=False)[0, :, 0].T.clamp(0, 1)
    axes.scatter(*seen(hull.numpy()).T, s=5, linewidths=0, c=shades.numpy(), alpha=0.3, zorder=1)
    best = kept[points.score[kept].topk(min(RAYS, len(kept))).indices].tolist()
    for i, center in enumerate(centers):
        tip, rim = (place - (1 - NEARER) * center for place in frustum(cameras, i, DEPTH))
        start, corners = seen(tip[0])[0], seen(rim)
        for k in best:
            if points.visible is None or bool(points.visible[i, k]):
                axes.plot(*np.stack([start, seen(xyz[k])[0]]).T, color=colors[k], lw=1.1, zorder=2)
        axes.add_patch(Polygon(corners, fc="white", ec=LINE, lw=0.8, alpha=0.85, zorder=3))
        for corner in corners:
            axes.plot(*np.stack([start, corner]).T, color=LINE, lw=0.8, zorder=3)
        axes.text(*(1.14 * start), str(i), size=8, color=DARK, ha="center", va="center", zorder=3)
    draw_numbers(axes, seen(xyz), kept.tolist(), 10)
    reach = 1.25 * NEARER * float(np.linalg.norm(centers, axis=1).max())
    height = reach * (HEIGHT - 2 * HEAD - INPUT) / (WIDTH - 3 * (SIDE + GAP) - 2 * GAP)
    axes.set(xlim=(-reach, reach), ylim=(height, -height), aspect="equal")


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
