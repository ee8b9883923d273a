"""The README's picture from a finished ``make demo``: an unseen chair, its keypoints, their heatmaps, and its points.

python examples/figures.py build/demo docs/images/overview.png
"""

import sys
from pathlib import Path

from PIL import Image

import keyorbit as ko
from keyorbit.plotting import draw_heatmaps, draw_keypoints, draw_points, save_figure
from keyorbit.results import to_uint8


def main(demo: Path, target: Path) -> None:
    tokens = ko.Tokens.load(demo / "run" / "tokens.safetensors")
    thing = ko.load_dataset(demo / "test")[0]
    found = ko.KeypointDetector(ko.load_backend(tokens.info.model), tokens).detect_object(thing)
    flat, points = found.keypoints_2d, found.keypoints_3d
    assert points is not None
    pictures, titles = [to_uint8(view) for view in found.views], [f"view {i}" for i in range(len(found.views))]
    best = points.score.topk(3).indices.sort().values
    heat = found.heatmaps[:, best].transpose(0, 1)
    figures = {
        "views": draw_keypoints(pictures, [*flat.xy], [*flat.score], titles),
        "heatmaps": draw_heatmaps(heat, [f"keypoint {k}" for k in best.tolist()], titles, pictures),
        "points": draw_points(points, flat.cameras),
    }
    parts = []
    for name, figure in figures.items():
        path = target.with_name(f"{target.stem}_{name}.png")
        save_figure(figure, path)
        parts.append(Image.open(path).convert("RGB"))
        path.unlink()
    views, heatmaps, space = parts
    heatmaps.thumbnail((views.width - space.width, space.height))
    sheet = Image.new("RGB", (views.width, views.height + space.height), "white")
    sheet.paste(views, (0, 0))
    sheet.paste(heatmaps, (0, views.height + (space.height - heatmaps.height) // 2))
    sheet.paste(space, (views.width - space.width, views.height))
    sheet.save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
