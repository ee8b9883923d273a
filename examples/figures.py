"""The pictures of the README and the docs that show what is found: ``python examples/figures.py docs/images``.

From what ships with the package: its tokens, its tiny model, and the picture alone of the chair in the README's first
lines, which discovery did not see. Nothing in them is true but the input picture: the model makes the views, and every
place is found.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from numpy import ndarray
from PIL import Image
from torch import Tensor

import keyorbit as ko
from keyorbit.app.calls import EXAMPLES
from keyorbit.discovery.selection import furthest_point_sampling
from keyorbit.geometry.hull_mesh import hull_mesh
from keyorbit.objects.pictures import square
from keyorbit.output.crowding import spread_labels
from keyorbit.output.meshes import frustum
from keyorbit.output.page.arrangement import rings
from keyorbit.output.page.solid import vertex_colors
from keyorbit.output.palette import ink, palette
from keyorbit.output.plotting import save_figure

CHAIR = "chair_2_00003"
# Keypoints shown, and of how many of them the rays are drawn.
SHOWN, RAYS = 10, 3
SEEN = 0.1
DARK, LINE, PAPER = "#24292F", "#8C959F", 0.965
# Inches and dots: twice the 880 pixels that a README is wide.
WIDTH, SIDE, INPUT, GAP, HEAD, DPI = 8.8, 1.92, 1.7, 0.06, 0.22, 200
ABOVE = 0.24
HEIGHT = 2 * (SIDE + HEAD) + 2 * GAP + ABOVE
# How near the cameras are drawn, as a share of their distance, and how deep their frusta are.
NEARER, DEPTH = 0.44, 0.2


def draw_overview(found: ko.Detection) -> Figure:
    """The input picture, the points in space below it, and the six views beside them, as the rig stands."""
    flat, points = found.keypoints_2d, found.keypoints_3d
    assert points is not None
    assert flat.input_xy is not None
    assert flat.input_score is not None
    assert flat.cameras is not None
    kept = spread_out(points)
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    left = WIDTH - 3 * (SIDE + GAP)

    def axes(x: float, y: float, width: float, height: float, title: str) -> Any:
        """Inches from the top left corner of the figure; the title stands above."""
        made = figure.add_axes((x / WIDTH, 1 - (y + height) / HEIGHT, width / WIDTH, height / HEIGHT))
        made.set_title(title, fontsize=8, color=DARK, pad=3)
        made.set(xticks=[], yticks=[])
        made.spines[:].set(color="#D0D7DE", linewidth=0.8)
        return made

    def heading(x: float, words: str) -> None:
        figure.text(x / WIDTH, 1 - 0.1 / HEIGHT, words, ha="center", va="center", size=9, color=DARK, weight="bold")

    heading((left - GAP) / 2, "given: one picture")
    heading(left + 1.5 * (SIDE + GAP), "made from it by the tiny model: six views, and the keypoints found in them")
    given = axes((left - INPUT) / 2 - GAP, ABOVE + HEAD, INPUT, INPUT, "and where the points are found on it")
    draw_places(given, square(found.input_square), flat.input_xy, flat.input_score, kept)
    places = rings(flat.cameras)
    assert places is not None
    for i, (view, mask, at) in enumerate(zip(found.views, found.masks, places, strict=True)):
        x, y = left + at.half // 2 * (SIDE + GAP), ABOVE + HEAD + at.row * (SIDE + HEAD)
        place = axes(x, y, SIDE, SIDE, f"view {i}: {at.words}")
        draw_places(place, on_paper(view, mask), flat.xy[i], flat.score[i], kept)
    top = ABOVE + 2 * HEAD + INPUT
    space = axes(0, top, left - 2 * GAP, HEIGHT - HEAD - top, "found: points in space, on the outlines' hull")
    space.spines[:].set_visible(False)
    draw_space(space, found, kept, RAYS, (HEIGHT - HEAD - top) / (left - 2 * GAP))
    return figure


def draw_rays(found: ko.Detection) -> Figure:
    """The cameras, and from each that agrees the ray through the place of each keypoint: they meet in its point."""
    assert found.keypoints_3d is not None
    figure = Figure(figsize=(7, 5), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    draw_space(axes, found, spread_out(found.keypoints_3d), SHOWN, 5 / 7)
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
    draw_numbers(axes, xy.numpy(), [k for k in kept.tolist() if float(score[k]) >= SEEN], 11, 0.041, 1.0)
    axes.set(xlim=(0, 1), ylim=(1, 0))


def draw_numbers(
    axes: Any, places: Float[ndarray, "keypoint 2"], shown: list[int], size: float, radius: float, side: float
) -> None:
    """Numbers in coloured circles, as in the report."""
    colors = palette(len(places))
    middle = side / 2 if side != 1.0 else 0.0  # a picture's places begin at its corner, those in space in the middle
    own = [(float(places[k, 0]) + middle, float(places[k, 1]) + middle) for k in shown]
    spots = spread_labels(own, radius, (0.0, 2.2 * radius, 3 * radius, 4 * radius), side, 0.3 * radius)
    for k, place, spot in zip(shown, own, spots, strict=True):
        at = np.subtract(place if spot is None else spot, middle)
        if not np.allclose(at, places[k]):
            axes.plot(*np.stack([places[k], at]).T, color=ink(colors[k]), lw=2.2, zorder=5)
            axes.plot(*np.stack([places[k], at]).T, color=colors[k], lw=1.2, zorder=5)
            axes.plot(*places[k], "o", ms=0.35 * size, mfc=colors[k], mec=ink(colors[k]), mew=0.5, zorder=5)
        axes.plot(*at, "o", ms=size, mfc=colors[k], mec=ink(colors[k]), mew=0.7, zorder=6)
        style = {"size": 0.62 * size, "weight": "bold", "color": ink(colors[k]), "zorder": 6}
        axes.annotate(str(k), at, ha="center", va="center_baseline", **style)


def draw_space(axes: Any, found: ko.Detection, kept: Tensor, rays: int, shape: float) -> None:
    """The points on the visual hull, the cameras round it, drawn nearer than they stand, and some rays."""
    points, cameras = found.keypoints_3d, found.keypoints_2d.cameras
    assert points is not None
    assert cameras is not None
    eye = ko.orbit_cameras(0.0, 24.0, orthographic=True, scale=1.0)

    def seen(place: Any) -> Float[ndarray, "place 2"]:
        """As the eye sees it: x right, y down, world units."""
        found: ndarray = eye.project(torch.as_tensor(np.atleast_2d(place), dtype=torch.float32))[0].numpy() - 0.5
        return found

    colors, xyz, centers = palette(len(points.xyz)), points.xyz.numpy(), cameras.centers.numpy()
    mesh = hull_mesh(found.masks, cameras)
    if mesh is not None:
        toward = -eye.directions[0].numpy()
        light = np.maximum(mesh.normals @ (0.8 * toward + np.array([0.0, -0.3, 0.4])), 0)[:, None]
        shades = np.clip((0.6 + 0.45 * light) * vertex_colors(mesh, found.views, found.masks, cameras) / 255, 0, 1)
        order = np.argsort((mesh.vertices @ toward)[mesh.quads].mean(1))
        faces = seen(mesh.vertices)[mesh.quads[order]]
        own = shades[mesh.quads[order]].mean(1)
        axes.add_collection(PolyCollection(list(faces), facecolors=own, edgecolors=own, linewidths=0.3, zorder=1))
    best = kept[points.score[kept].topk(min(rays, len(kept))).indices].tolist()
    for i, center in enumerate(centers):
        tip, rim = (place - (1 - NEARER) * center for place in frustum(cameras, i, DEPTH))
        start, corners = seen(tip[0])[0], seen(rim)
        for k in best:
            if points.visible is None or bool(points.visible[i, k]):
                axes.plot(*np.stack([start, seen(xyz[k])[0]]).T, color=colors[k], lw=1.1, alpha=0.8, zorder=2)
        axes.add_patch(Polygon(corners, fc="white", ec=LINE, lw=0.8, alpha=0.85, zorder=3))
        for corner in corners:
            axes.plot(*np.stack([start, corner]).T, color=LINE, lw=0.8, zorder=3)
        axes.text(*(1.14 * start), f"view {i}", size=7, color=DARK, ha="center", va="center", zorder=3)
    reach = 1.25 * NEARER * float(np.linalg.norm(centers, axis=1).max())
    draw_numbers(axes, seen(xyz), kept.tolist(), 9.5, 0.062, 2 * reach)
    axes.set(xlim=(-reach, reach), ylim=(shape * reach, -shape * reach), aspect="equal")


def main(folder: Path) -> None:
    detector = ko.KeypointDetector(ko.load_backend("tiny"), ko.Tokens.load(EXAMPLES / "tokens.safetensors"))
    found = detector.detect_object(EXAMPLES / CHAIR / "cond.png")
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in (("overview", draw_overview(found)), ("rays", draw_rays(found))):
        save_figure(figure, folder / f"{name}.png")
        Image.open(folder / f"{name}.png").convert("RGB").quantize(160).save(folder / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
