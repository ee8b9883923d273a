"""Functions that the readers share: annotated pictures as objects, crops, and errors for missing files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from PIL import Image, ImageOps

from keyorbit.errors import InputError
from keyorbit.objects.dataset import Draw, ObjectDataset, ObjectViews, Truth
from keyorbit.objects.pictures import load_image, load_mask, load_stored

Box = tuple[float, float, float, float]
Pairs = tuple[tuple[int, int], ...]
# Pixels a side of a squeezed picture: it has about as many as Pillow decodes at most.
LONGEST = 16384
# Pixels a side of the pictures in StableKeypoints.
PUBLISHED_SIDE = 512
# A box that is wider than so many pictures is none of an object in it.
_WIDEST = 4


@dataclass(frozen=True, eq=False)
class Annotation:
    """One annotated picture, which is squeezed to a square as in StableKeypoints.

    Pixels are counted from the picture's corner, as the file stores it, whatever its EXIF orientation.

    Attributes:
        name: of the object.
        picture: the file.
        xy: position of each landmark, in pixels.
        seen: True for known landmarks.
        box: left, top, right, bottom of the object's box, in pixels. Default None: not annotated.
        crop: box that is cut out first. Default None: the whole picture.
        side: if given, xy is in pixels of a square of that side instead. Default None.
        size: if given, width and height of the picture to whose pixels xy, box and crop refer: the file may have been
            resized, or be upright only by its EXIF orientation. Default None: the file's own.
        mask: file of a mask; pixels outside of it become black. Default None.
    """

    name: str
    picture: Path
    xy: Float[ndarray, "landmark 2"]
    seen: Bool[ndarray, " landmark"]
    box: Box | None = None
    crop: Box | None = None
    side: float | None = None
    mask: Path | None = None
    size: tuple[float, float] | None = None


def annotated_objects(
    annotations: Sequence[Annotation],
    names: tuple[str, ...],
    pairs: Pairs,
    what: str,
    lists: Path | None = None,
    draw: Draw | None = None,
) -> ObjectDataset:
    """Make objects of one view with landmarks from annotated pictures; ``draw`` is :class:`ObjectDataset`'s.

    Raises:
        InputError: there is none, or one of the picture files is missing; ``what`` names the data set, and ``lists``
            is the file or folder that lists them.
    """
    if not annotations:
        raise InputError(f"no picture of {what} is left to read: {lists or 'the list'} has none that fits")
    files = [path for a in annotations for path in (a.picture, a.mask) if path is not None]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise InputError(f"{what}: {len(missing)} of {len(files)} pictures are missing, such as {missing[0]}")
    return ObjectDataset(len(annotations), partial(_annotated_at, annotations, names, pairs), draw)


def _annotated_at(annotations: Sequence[Annotation], names: tuple[str, ...], pairs: Pairs, i: int) -> ObjectViews:
    return annotated_object(annotations[i], names, pairs)


def squeezed_object(
    name: str,
    image: Image.Image,
    xy: Float[ndarray, "landmark 2"],
    seen: Bool[ndarray, " landmark"],
    names: tuple[str, ...],
    pairs: Pairs,
    box: Box | None = None,
) -> ObjectViews:
    """Squeeze a picture and its landmarks to a square. xy and box are in pixels of the original picture.

    Raises:
        InputError: the square would have more than 16,384 pixels a side.
    """
    side = max(image.size)
    if side > LONGEST:
        raise InputError(
            f"{name} has {image.width} x {image.height} pixels; it may have {LONGEST:,} a side, as a square"
        )
    square = image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BILINEAR)
    places = np.asarray(xy, float) / [image.width, image.height]
    known = torch.from_numpy(np.asarray(seen, bool))
    size = None
    if box is not None:
        size = torch.tensor([[(box[2] - box[0]) / image.width, (box[3] - box[1]) / image.height]], dtype=torch.float32)
    flat = torch.from_numpy(np.where(np.asarray(seen, bool)[:, None], places, 0.5)).float()
    return ObjectViews(name, square, truth=Truth(names, pairs, None, known, flat[None], known[None], size))


def mirrored(thing: ObjectViews) -> ObjectViews:
    """Mirror an object of one view, whose left landmarks become right ones, as StableKeypoints' CUB does.

    Places are numbers of pixels there: the first of 512 becomes the last, half a pixel from where it is in the picture.
    """
    image, truth = ImageOps.mirror(thing.input_image), thing.truth
    if truth is None:
        return replace(thing, input_image=image)
    order = list(range(len(truth.names)))
    for a, b in truth.pairs:
        order[a], order[b] = b, a
    xy = truth.keypoints_2d[:, order]
    flipped = torch.stack([1 - 1 / PUBLISHED_SIDE - xy[..., 0], xy[..., 1]], -1)
    known, visible = truth.known[order], truth.visible[:, order]
    return replace(thing, input_image=image, truth=replace(truth, keypoints_2d=flipped, known=known, visible=visible))


def check_known(xy: Float[ndarray, "*item 2"], seen: Bool[ndarray, "*item"], where: str) -> None:
    """Raise InputError where a landmark is known and has no place; ``where`` names the file."""
    if not np.isfinite(xy[seen]).all():
        raise InputError(f"{where} cannot be nan where a landmark is visible; it must be a number")


def square_crop(box: Box, padding: float) -> Box:
    """Return the square about a box's centre with its longer side, plus a share ``padding`` of it on each side."""
    half = (0.5 + padding) * max(box[2] - box[0], box[3] - box[1])
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return x - half, y - half, x + half, y + half


def need_folder(path: Path, what: str) -> Path:
    """Return the path if a folder is there.

    Raises:
        InputError: it is missing; ``what`` names the data set.
    """
    if not path.is_dir():
        raise InputError(f"{what} lacks the folder {path.name}: there is none at {path}")
    return path


def picture_size(path: Path) -> tuple[int, int]:
    """Return a picture's width and height as stored, without decoding it.

    Raises:
        InputError: it is no picture.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:  # Pillow raises nearly anything for damaged pictures
        raise InputError(f"{path} cannot be read as a picture: {error}") from error


def check_split(split: str, known: Iterable[str], what: str) -> None:
    """Raise InputError for a split that the data set does not have."""
    if split not in (known := tuple(known)):
        raise InputError(f"{what} has the splits {', '.join(known)}, not {split!r}")


def annotated_object(annotation: Annotation, names: tuple[str, ...], pairs: Pairs) -> ObjectViews:
    """Make one of these objects.

    Raises:
        InputError: its picture cannot be read, has another shape than the annotations, or is far from its box.
    """
    image = _as_annotated(annotation.picture, annotation.size).convert("RGB")
    across, down = np.divide(image.size, annotation.size or image.size).tolist()
    xy = np.asarray(annotation.xy, float) * [across, down]
    box, crop = (_scaled(one, across, down) for one in (annotation.box, annotation.crop))
    if annotation.mask is not None:
        mask = load_mask(annotation.mask).resize(image.size, Image.Resampling.BILINEAR)
        image = Image.composite(image, Image.new("RGB", image.size), _as_white(mask))
    if annotation.side is not None:
        xy = xy / annotation.side * [image.width, image.height]
    if crop is not None:
        left, top, right, bottom = (round(side) for side in crop)
        if max(right - left, bottom - top) > _WIDEST * max(image.size):
            raise InputError(
                f"{annotation.name}: the box is {right - left} x {bottom - top} pixels, and the picture "
                f"{annotation.picture} only {image.width} x {image.height}"
            )
        image = image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
        xy = xy - [left, top]
        if box is not None:
            box = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    return squeezed_object(annotation.name, image, xy, annotation.seen, names, pairs, box)


def _as_annotated(path: Path, size: tuple[float, float] | None) -> Image.Image:
    """Read a picture as it was annotated, by its size then: as stored, or else upright; either may have been resized.

    Raises:
        InputError: as :func:`load_stored`, or neither has that shape.
    """
    stored = load_stored(path)
    if size is None or stored.size == size:
        return stored
    upright = load_image(path, None)
    for image in (upright, stored):
        if image.size == size:
            return image
    for image in (stored, upright):
        # What rounding to whole pixels leaves, in both.
        slack = sum(0.5 / side for side in (*image.size, *size))
        if abs(image.width * size[1] / (image.height * size[0]) - 1) <= slack:
            return image
    raise InputError(
        f"{path} has {stored.width}x{stored.height} pixels, and its annotations are for {size[0]:g}x{size[1]:g}, "
        "another shape: give it as it was annotated, or resized as a whole"
    )


def _scaled(box: Box | None, across: float, down: float) -> Box | None:
    return None if box is None else (box[0] * across, box[1] * down, box[2] * across, box[3] * down)


def _as_white(mask: Image.Image) -> Image.Image:
    """Convert a mask to 0 and 255; the published masks have 0 and 1."""
    brightest = max(int(np.asarray(mask).max()), 1)
    return mask.point(lambda value: value * 255 // brightest)
