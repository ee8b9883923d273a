"""A contact sheet for each category of procedural objects: ``python examples/contact_sheets.py docs/images``.

Rows are objects: the input view on its background, then the six views. Dots are the keypoints, dark where hidden.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from keyorbit.synthetic.objects import CATEGORIES
from keyorbit.synthetic.render import composite
from keyorbit.synthetic.samples import Sample, SampleSpec, make_sample

SIZE, OBJECTS, DOT = 96, 6, 1.5


def row(sample: Sample) -> np.ndarray:
    pictures = [composite(sample.input_image, sample.background), *composite(sample.views)]
    drawn = []
    for picture, xy, visible in zip(pictures, sample.keypoints_2d, sample.visible, strict=True):
        image = Image.fromarray(picture)
        pen = ImageDraw.Draw(image)
        for (x, y), seen, known in zip(xy * SIZE, visible, sample.known, strict=True):
            if known:
                pen.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=(255, 0, 255) if seen else (40, 40, 40))
        drawn.append(np.asarray(image))
    return np.concatenate(drawn, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for category in CATEGORIES:
        rows = [row(make_sample(SampleSpec(category, seed, SIZE))) for seed in range(OBJECTS)]
        path = folder / f"{category}.png"
        Image.fromarray(np.concatenate(rows)).quantize(128).save(path, optimize=True)
        print(path)


if __name__ == "__main__":
    main()
