"""Cut-outs whose object is small or off-centre, as they are and recentred: ``python benchmarks/cutouts.py``.

Chairs that the shipped example tokens were not found on, cut out (with alpha) or on plain white (``--ground white``),
with the object's longer side at several shares of the picture's, in its middle and in a corner. The truth of a keypoint
is where it is in 3D on the object's true views, and where the picture's true camera shows that point. Errors are in
longer sides of the object's box in the picture, or, in 3D, of the object.
"""

import argparse
import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

import keyorbit as ko
from keyorbit.detection.config import DetectConfig
from keyorbit.detection.peaks import peak_score
from keyorbit.synthetic.samples import Sample, SampleSpec, as_object, make_samples

SHARES = (0.1, 0.2, 0.4, 0.6, 0.85)
SIDE, RENDERED = 512, 256
NEAR = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=5)
    parser.add_argument("--ground", choices=("alpha", "white"), default="alpha")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--noises", type=int, default=1)
    parser.add_argument("--seed", type=int, default=900_000, help="number of the first object")
    parser.add_argument("--json", type=Path, help="also write the keypoints' errors and scores there")
    args = parser.parse_args()
    backend = ko.load_backend("tiny")
    tokens = ko.Tokens.load(Path(str(files("keyorbit") / "assets" / "examples" / "tokens.safetensors")))
    detector = ko.KeypointDetector(backend, tokens, DetectConfig(args.noises))
    specs = [SampleSpec("chair", args.seed + i, RENDERED) for i in range(args.objects)]
    rows = []
    for sample in make_samples(specs):
        true = detector.detect_object(as_object(sample)).keypoints_3d
        for share in args.shares:
            for place in ("middle", "corner"):
                picture, shift, scale = cut_out(sample, share, place, args.ground)
                xy = sample.input_camera.project(true.xyz)[0] * scale + shift
                for recentre in (False, True):
                    thing = replace(ko.ObjectViews("cut-out", picture), recentre=recentre)
                    rows.append({"share": share, "place": place, "recentre": recentre})
                    rows[-1] |= judged(detector, thing, xy, true.xyz, share)
                    if args.json:
                        args.json.write_text(json.dumps(rows), encoding="utf-8")
    Console(width=140).print(table(rows))
    for recentre in (False, True):
        chosen = [row for row in rows if row["recentre"] is recentre]
        errors = np.concatenate([row["error"] for row in chosen])
        for kind in ("sharpness", "score"):
            rank = spearmanr(np.concatenate([row[kind] for row in chosen]), errors).statistic
            print(f"{'recentred' if recentre else 'as it is'}: rank correlation of {kind} and error: {rank:.2f}")


def cut_out(sample: Sample, share: float, place: str, ground: str) -> tuple[Image.Image, torch.Tensor, float]:
    """The picture, and what brings places in the rendered picture to it: scale and shift, in sides."""
    rendered = Image.fromarray(sample.input_image)
    left, top, right, bottom = rendered.getchannel("A").getbbox()
    factor = share * SIDE / max(right - left, bottom - top)
    small = rendered.resize((round(RENDERED * factor),) * 2, Image.Resampling.LANCZOS)
    factor = small.width / RENDERED
    free = [SIDE - (right - left) * factor, SIDE - (bottom - top) * factor]
    # In the corner, a fifth of the free space remains on either side.
    ways = (0.5, 0.5) if place == "middle" else (0.1 + 0.8 * (sample.seed % 2), 0.1 + 0.8 * (sample.seed // 2 % 2))
    x, y = (round(way * space - edge * factor) for way, space, edge in zip(ways, free, (left, top), strict=True))
    canvas = Image.new("RGBA", (SIDE, SIDE))
    canvas.paste(small, (x, y))
    if ground == "white":
        white = Image.new("RGBA", canvas.size, "white")
        white.alpha_composite(canvas)
        canvas = white.convert("RGB")
    return canvas, torch.tensor([x / SIDE, y / SIDE]), small.width / SIDE


def judged(
    detector: ko.KeypointDetector, thing: ko.ObjectViews, xy: torch.Tensor, xyz: torch.Tensor, share: float
) -> dict[str, list[float]]:
    found = detector.detect_object(thing)
    flat, points = found.keypoints_2d, found.keypoints_3d
    recorded = found.input_heatmaps
    size = (xyz.amax(0) - xyz.amin(0)).max()
    return {
        "error": ((flat.input_xy - xy).norm(dim=-1) / share).tolist(),
        "score": flat.input_score.tolist(),
        "sharpness": peak_score(recorded, recorded, detector.config.window).tolist(),
        "error_3d": ((points.xyz - xyz).norm(dim=-1) / size).tolist(),
        "score_3d": points.score.tolist(),
    }


def table(rows: list[dict]) -> Table:
    found = Table("object's side", "where", "recentred", "error", f"within {NEAR}", "score", "3D error", "3D score")
    for key in dict.fromkeys((row["share"], row["place"], row["recentre"]) for row in rows):
        some = [row for row in rows if (row["share"], row["place"], row["recentre"]) == key]
        error, score, in_space, of_space = (
            np.concatenate([row[name] for row in some]) for name in ("error", "score", "error_3d", "score_3d")
        )
        numbers = (np.median(error), np.mean(error < NEAR), score.mean(), np.median(in_space), of_space.mean())
        found.add_row(f"{key[0]:.0%}", key[1], "yes" if key[2] else "no", *(f"{number:.2f}" for number in numbers))
    return found


if __name__ == "__main__":
    main()
