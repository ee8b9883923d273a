"""One object in one picture: its input, its views, and the rays that meet in its points: ``make figures``.

``python examples/rays.py RUN OBJECT docs/images``; without a run a chair's landmarks stand for what a run finds.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import keyorbit as ko
from keyorbit.objects.pictures import to_uint8
from keyorbit.output.plotting import draw_keypoints, palette, save_figure
from keyorbit.synthetic.samples import SampleSpec, as_object, make_sample


def draw_rays(cameras: ko.Cameras, xy: torch.Tensor, points: torch.Tensor, visible: torch.Tensor) -> Figure:
    """The cameras in space, and from each a ray through every place that agrees, up to where it passes the point."""
    figure = Figure(figsize=(7, 6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(projection="3d")
    colors = palette(len(points))
    centers = cameras.centers
    inverse = torch.linalg.inv(cameras.intrinsics)
    for v in range(len(cameras)):
        ends = torch.cat([xy[v], torch.ones_like(xy[v, :, :1])], dim=-1) @ inverse[v].T
        directions = torch.nn.functional.normalize(ends @ cameras.world_to_camera[v, :3, :3], dim=-1)
        reach = ((points - centers[v]) * directions).sum(-1, keepdim=True)
        for k in visible[v].nonzero()[:, 0].tolist():
            line = torch.stack([centers[v], centers[v] + 1.05 * reach[k] * directions[k]])
            axes.plot(*line.T.numpy(), color=colors[k], lw=0.7, alpha=0.7)
        axes.scatter(*centers[v].numpy(), marker="s", color="black", s=20)
        axes.text(*(1.08 * centers[v]).numpy(), f"view {v}", fontsize=8)
    axes.scatter(*points.T.numpy(), c=colors, s=36, edgecolors="black", depthshade=False)
    reach_all = float(np.abs(centers.numpy()).max())
    axes.set(xlim=(-reach_all, reach_all), ylim=(-reach_all, reach_all), zlim=(-reach_all / 2, reach_all / 2))
    axes.set_box_aspect((2, 2, 1), zoom=1.5)
    axes.view_init(elev=28, azim=-60)
    axes.set_axis_off()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("object", nargs="?", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.run and args.object:
        tokens = ko.Tokens.load(args.run / "tokens.safetensors")
        found = ko.KeypointDetector(ko.load_backend(tokens.info.model), tokens).detect_object(args.object)
        flat, points, views = found.keypoints_2d, found.keypoints_3d, found.views
        picture, given = np.asarray(found.input_image.convert("RGB")), flat.input_xy
        if points is None:
            raise SystemExit("a single view has no rays to draw")
        crosses = found.input_camera.cameras.project(points.xyz)[0] if found.input_camera else None
    else:
        thing = as_object(make_sample(SampleSpec("chair", 3 * 10**6, 96)))
        truth, views, cameras = thing.truth, thing.views, thing.cameras
        noise = 0.004 * torch.randn(truth.keypoints_2d[1:].shape, generator=torch.Generator().manual_seed(0))
        flat = ko.Keypoints2D(truth.keypoints_2d[1:] + noise, torch.where(truth.visible[1:], 1.0, 0.05), cameras)
        points, picture = flat.triangulate(), np.asarray(thing.input_image)
        given, crosses = truth.keypoints_2d[0], None
    pictures = [picture, *(to_uint8(view) for view in views)]
    titles = ["input", *(f"view {i}" for i in range(len(views)))]
    places = [given, *flat.xy]
    save_figure(draw_keypoints(pictures, places, titles=titles, crosses=crosses), args.folder / "object_views.png")
    visible = points.visible & (points.score > 0)
    save_figure(draw_rays(flat.cameras, flat.xy, points.xyz, visible), args.folder / "object_rays.png")


if __name__ == "__main__":
    main()
