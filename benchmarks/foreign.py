"""Keypoints on meshes that no generator of ours made: ``python benchmarks/foreign.py MESHES RUNS PICTURE.png``.

MESHES is where packages that carry meshes were unpacked, RUNS has one run of ``keyorbit discover`` a category, by its
name. Nobody marked landmarks on these meshes, so each is seen at twelve headings: the points found, turned back, should
be the same ones. That they reproject well is less of a test, see docs/research-log.md.

    pip download --no-deps --dest wheels pyvista pybullet miniworld duckietown-world-daffy    # 200 MB; unpack them
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

import keyorbit as ko
from keyorbit.evaluation.evaluate import SEEN
from keyorbit.objects.pictures import to_uint8
from keyorbit.output.palette import palette, rgb
from keyorbit.synthetic.meshes.objects import render_mesh
from keyorbit.synthetic.shapes import rotation_about

SIZE, DOT, NEAR = 128, 3, 0.1


@dataclass(frozen=True)
class Mesh:
    """A mesh file, its upward axis, and whose tokens are read on it."""

    name: str
    category: str
    file: str
    up: str = "y"


MESHES = (
    Mesh("office chair", "chair", "miniworld/meshes/office_chair.obj"),
    Mesh("airliner", "aeroplane", "pyvista/examples/airplane.ply", "z"),
    Mesh("bus", "car", "duckietown*/src/duckietown_world/data/gd1/meshes/bus/bus.obj"),
    Mesh("lorry", "car", "duckietown*/src/duckietown_world/data/gd1/meshes/truck/truck.obj"),
    Mesh("rabbit", "animal", "pybullet_data/bunny.obj"),
    Mesh("duck", "animal", "pybullet_data/duck.obj"),
)


def textured(file: Path, folder: Path) -> Path:
    """The mesh; where it came without its materials but a picture of its name lies beside it, one that wears that."""
    picture = file.with_suffix(".png")
    if not picture.is_file() or file.with_suffix(".mtl").is_file():
        return file
    mesh = trimesh.load(file, force="mesh", process=False)
    mesh.visual = trimesh.visual.TextureVisuals(mesh.visual.uv, image=Image.open(picture).convert("RGB"))
    mesh.export(folder / f"{file.stem}.glb")
    return folder / f"{file.stem}.glb"


def seen(file: Path, up: str, heading: float, folder: Path) -> ko.ObjectViews:
    """The mesh turned by that many degrees, as an object of six true views."""
    render_mesh(file, folder, SIZE, azimuth_deg=heading, up=up)
    return ko.load_dataset(folder)[0]


def same_place(points: torch.Tensor) -> float:
    """Share of keypoints [heading keypoint 3] that lie where another heading has them, over all pairs of headings."""
    one, other = torch.triu_indices(len(points), len(points), 1)
    return float(ko.metrics.pck(points[one], points[other], NEAR))


def drawn(found: ko.Detection) -> np.ndarray:
    """The input picture and the six views with a dot for every keypoint that they show clearly."""
    flat = found.keypoints_2d
    colors = [rgb(color) for color in palette(flat.xy.shape[1])]
    row = [found.input_image.convert("RGB").resize((SIZE, SIZE))]
    for view, xy, score in zip(found.views, flat.xy, flat.score, strict=True):
        image = Image.fromarray(to_uint8(view)).resize((SIZE, SIZE))
        pen = ImageDraw.Draw(image)
        for (x, y), sure, color in zip((xy * SIZE).tolist(), score.tolist(), colors, strict=True):
            if sure >= SEEN:
                pen.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=color, outline=(0, 0, 0))
        row.append(image)
    return np.concatenate([np.asarray(image) for image in row], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("meshes", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--headings", type=int, default=12)
    parser.add_argument("--model", default="tiny")
    args = parser.parse_args()
    backend = ko.load_backend(args.model)
    table = Table("mesh", "tokens of", "reprojection, % of side", f"same place within {NEAR:g} of the size, %")
    rows = []
    for mesh in MESHES:
        tokens = ko.Tokens.load(args.runs / mesh.category / "tokens.safetensors")
        detector = ko.KeypointDetector(backend, tokens)
        points, errors = [], []
        with tempfile.TemporaryDirectory() as folder:
            file = textured(next(args.meshes.glob(mesh.file)), Path(folder))
            for i in range(args.headings):
                heading = 360 * i / args.headings
                found = detector.detect_object(seen(file, mesh.up, heading, Path(folder) / f"{i}"))
                assert found.keypoints_3d is not None
                back = torch.from_numpy(rotation_about("z", heading)).float()
                points.append(found.keypoints_3d.xyz @ back.T)
                errors.append(found.keypoints_3d.reprojection_error)
                if i == 1:
                    rows.append(drawn(found))
        error = float(torch.stack(errors).median())
        table.add_row(mesh.name, mesh.category, f"{100 * error:.1f}", f"{100 * same_place(torch.stack(points)):.0f}")
    Console(width=120).print(table)
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).quantize(256).save(args.picture, optimize=True)


if __name__ == "__main__":
    main()
