"""Generated views beside the true ones, and their PSNR: ``python benchmarks/samples.py DATA PICTURE.png``.

Copying the input picture into every view is the baseline to beat.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import keyorbit as ko
from keyorbit.objects.pictures import to_tensor, to_uint8


def psnr(first: torch.Tensor, second: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of 0…1 pictures, dB."""
    return float(-10 * torch.log10((first - second).square().mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--objects", type=int, default=6)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--guidance", type=float, default=4.0)
    args = parser.parse_args()
    backend = ko.load_backend(args.model)
    objects = ko.load_dataset(args.data)[: args.objects]
    rows, made, copied = [], [], []
    for i in range(len(objects)):
        thing = objects[i]
        grid = backend.generate([thing.input_image], torch.Generator().manual_seed(i), args.steps, args.guidance)[0]
        views = ko.split_views(grid, backend.layout).movedim(1, 0)
        source = to_tensor(thing.input_image)[0]
        # The input picture is on white; for the copy, give it the views' grey.
        source = torch.where((source > 0.98).all(0), 127 / 255, source)
        made.append(psnr(views, thing.views))
        copied.append(psnr(source.expand_as(views), thing.views))
        for line in (thing.views, views):
            rows.append(np.concatenate([to_uint8(source), *map(to_uint8, line)], axis=1))
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(args.picture)
    print(f"PSNR of generated views {np.mean(made):.1f} dB; of the input picture copied {np.mean(copied):.1f} dB")
    print(f"{args.picture}: input, then the true views above the generated ones")


if __name__ == "__main__":
    main()
