"""How well objects are cut out of photograph-like pictures: ``python benchmarks/photographs.py``.

Rendered objects with their true alpha stand before grounds made here: gradients, clouds of noise, planks, tiles,
leaves, and a wall above a floor, with a soft shadow below every other one. Each way to cut them out is judged by the
intersection over union of its mask with the true one, and by how far the picture on grey is from the true one on grey.
``--grounds FOLDER`` adds crops of a folder's pictures, ``--rendered FOLDER`` RGBA pictures of further objects.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter

from keyorbit.objects.framing import has_alpha
from keyorbit.objects.grabcut import grabcut_mask
from keyorbit.objects.matte import cut_by
from keyorbit.objects.pictures import load_image, on_grey
from keyorbit.synthetic.samples import SampleSpec, make_samples

CATEGORIES = ("chair", "animal", "car", "aeroplane", "mug", "table", "lamp", "person")
SIDE, RENDERED = 384, 288
# The object's longer side, in sides of the picture.
SHARES = (0.45, 0.85)
GROUNDS = ("gradient", "clouds", "planks", "tiles", "leaves", "room")


@dataclass(frozen=True, eq=False)
class Photograph:
    """A picture made of a rendered object and a ground; the truth in it.

    Attributes:
        name: of the object and the ground.
        picture: RGB.
        truth: RGBA of the object at its place, transparent elsewhere.
    """

    name: str
    picture: Image.Image
    truth: Image.Image


def ground(kind: str, rng: np.random.Generator, side: int = SIDE) -> ndarray:
    """A ground of values 0…1, [side side 3]."""
    y, x = np.mgrid[:side, :side] / side
    one, other = rng.uniform(0.1, 0.95, (2, 3))
    if kind == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        along = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) + 0.5
        made = one + (other - one) * along[..., None].clip(0, 1) + _noise(rng, side, 40)[..., None] * 0.05
    elif kind == "clouds":
        mix = sum(_noise(rng, side, size) * size for size in (6, 16, 48)) / 60
        made = one + (other - one) * (0.5 + 0.6 * mix)[..., None].clip(0, 1)
    elif kind == "planks":
        wide = rng.integers(5, 11)
        number = (x * wide).astype(int)
        tone = rng.uniform(0.75, 1.15, wide + 1)[number]
        grain = gaussian_filter(rng.standard_normal((side, side)), (24, 0.7))
        made = one * (tone + 0.6 * grain)[..., None]
        made[np.abs(x * wide - np.round(x * wide)) < 0.03] *= 0.5
    elif kind == "tiles":
        wide = rng.integers(4, 9)
        odd = ((x * wide).astype(int) + (y * wide).astype(int)) % 2
        made = np.where(odd[..., None] == 1, one, other) + _noise(rng, side, 3)[..., None] * 0.05
    elif kind == "leaves":
        spots = _noise(rng, side, 5) + 0.5 * _noise(rng, side, 2)
        green = np.array([0.25, 0.45, 0.15]) * rng.uniform(0.7, 1.3, 3)
        made = green * (0.9 + 0.45 * spots)[..., None]
    else:  # a wall above a floor
        horizon = rng.uniform(0.45, 0.7)
        floor = one * (1.2 - 0.5 * y)[..., None]
        made = np.where((y > horizon)[..., None], floor, other * (0.8 + 0.3 * x)[..., None])
        made = made + _noise(rng, side, 12)[..., None] * 0.04
    return np.asarray(made + rng.standard_normal((side, side, 3)) * 0.012).clip(0, 1)


def _noise(rng: np.random.Generator, side: int, size: float) -> ndarray:
    """Smooth noise of standard deviation 1."""
    values = gaussian_filter(rng.standard_normal((side, side)), size, mode="wrap")
    return values / values.std()


def crops(folder: Path) -> list[Image.Image]:
    """Pictures of a folder, as they are."""
    found = (load_image(path) for path in sorted(folder.iterdir()) if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    return [image.convert("RGB") for image in found if not has_alpha(image)]


def crop(image: Image.Image, rng: np.random.Generator, side: int = SIDE) -> ndarray:
    """A random square of a picture, at least 60 % of its shorter side."""
    wide = round(min(image.size) * rng.uniform(0.6, 1))
    left, top = (int(rng.integers(0, length - wide + 1)) for length in image.size)
    square = image.crop((left, top, left + wide, top + wide)).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(square, float) / 255


def placed(rendered: Image.Image, rng: np.random.Generator, side: int = SIDE) -> Image.Image:
    """The object on a transparent square, at a random size near its middle."""
    cut = rendered.crop(rendered.getchannel("A").getbbox())
    factor = rng.uniform(*SHARES) * side / max(cut.size)
    cut = cut.resize((max(1, round(cut.width * factor)), max(1, round(cut.height * factor))), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (side, side))
    free = [(side - length) / 2 for length in cut.size]
    canvas.paste(cut, tuple(round(space * (1 + rng.uniform(-0.6, 0.6))) for space in free))
    return canvas


def composed(name: str, truth: Image.Image, behind: ndarray, shadow: bool) -> Photograph:
    """The object before a ground, as a JPEG of quality 90 would have it but for its blocks."""
    rgba = np.asarray(truth, float) / 255
    alpha = rgba[..., 3:]
    if shadow:
        side = len(rgba)
        fallen = gaussian_filter(np.roll(alpha[..., 0], (side // 30, side // 40), (0, 1)), side / 60)
        behind = behind * (1 - 0.45 * fallen[..., None])
    picture = rgba[..., :3] * alpha + behind * (1 - alpha)
    return Photograph(name, Image.fromarray((picture * 255).round().astype(np.uint8)), truth)


def photographs(
    count: int, seed: int, grounds: list[Image.Image], views: list[tuple[str, Image.Image]]
) -> Iterator[Photograph]:
    """Objects of every category before every ground in turn; then the given views before them."""
    specs = [SampleSpec(CATEGORIES[i % len(CATEGORIES)], seed + i, RENDERED) for i in range(count)]
    things = [(f"{one.category} {one.seed}", Image.fromarray(one.input_image)) for one in make_samples(specs)]
    for i, (name, rendered) in enumerate([*things, *views]):
        rng = np.random.default_rng((seed, i))
        number = (i + i // len(CATEGORIES)) % (len(GROUNDS) + (1 if grounds else 0))
        given = number == len(GROUNDS)
        behind = crop(grounds[int(rng.integers(len(grounds)))], rng) if given else ground(GROUNDS[number], rng)
        kind = "picture" if given else GROUNDS[number]
        yield composed(f"{name} before {kind}", placed(rendered, rng), behind, i % 2 == 1)


def masks(name: str) -> Callable[[Image.Image], ndarray]:
    """A way to cut out by its name.

    ``rectangle`` is GrabCut as it is usually begun, with a margin of 5 %.
    """
    import cv2

    cv2.setNumThreads(1)
    if name == "grabcut":
        return lambda image: grabcut_mask(image, cv2)

    def rectangle(image: Image.Image) -> ndarray:
        factor = 224 / max(image.size)
        small = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BOX)
        marks, margin = np.zeros(small.size[::-1], np.uint8), round(0.05 * min(small.size))
        inner = (margin, margin, small.width - 2 * margin, small.height - 2 * margin)
        cv2.setRNGSeed(0)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(np.asarray(small)[..., ::-1].copy(), marks, inner, *models, 5, cv2.GC_INIT_WITH_RECT)
        return np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(float)

    return rectangle


def on_grey_of(image: Image.Image) -> ndarray:
    return np.asarray(on_grey(image).resize((256, 256), Image.Resampling.BOX), float) / 255


def judged(one: Photograph, way: Callable[[Image.Image], ndarray], soft: bool) -> dict[str, float]:
    """Overlap of the mask with the true one, and error of the cut-out on grey at the model's size."""
    began = time.perf_counter()
    cut = cut_by(one.picture, way(one.picture), soft)
    seconds = time.perf_counter() - began
    true, found = (np.asarray(image.getchannel("A")) > 127 for image in (one.truth, cut))
    overlap = (true & found).sum() / max(1, (true | found).sum())
    error = np.abs(on_grey_of(one.truth) - on_grey_of(cut)).mean()
    return {"iou": float(overlap), "error": float(error), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grounds", type=Path, help="a folder of pictures, crops of which are grounds, too")
    parser.add_argument("--rendered", type=Path, help="a folder of RGBA pictures of further objects")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    grounds = crops(args.grounds) if args.grounds else []
    views = [(path.stem, load_image(path)) for path in sorted(args.rendered.glob("*.png"))] if args.rendered else []
    made = list(photographs(args.objects, args.seed, grounds, views))
    table = Table("way", "ground", "IoU, median", "10th percentile", "error on grey, %", "seconds")
    rows = []
    for way in ("rectangle", "grabcut"):
        for one in made:
            rows.append({"way": way, "name": one.name} | judged(one, masks(way), True))
        mine = [row for row in rows if row["way"] == way]
        kinds = sorted({str(row["name"]).rpartition(" ")[2] for row in mine})
        for kind in ["all", *kinds]:
            some = [row for row in mine if kind in ("all", str(row["name"]).rpartition(" ")[2])]
            iou, error, seconds = (np.array([row[key] for row in some]) for key in ("iou", "error", "seconds"))
            numbers = np.median(iou), np.percentile(iou, 10), 100 * np.median(error), np.median(seconds)
            table.add_row(way, f"{kind} ({len(some)})", *(f"{number:.2f}" for number in numbers))
    Console(width=120).print(table)
    if args.json:
        args.json.write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
