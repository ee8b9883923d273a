"""Files from visitors. Files that are too large or no pictures are refused before they are decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.pictures import load_image


@dataclass(frozen=True)
class Limits:
    """Limits of what a visitor may request.

    Attributes:
        bytes: of one picture. Default 10 MiB.
        pixels: of one picture. Default 16 million.
        pictures: of one discovery. Default 64.
        steps: of one discovery. Default 1000.
        tokens: of one discovery. Default 32.
    """

    bytes: int = 10 * 2**20
    pixels: int = 16_000_000
    pictures: int = 64
    steps: int = 1000
    tokens: int = 32


def open_picture(path: str | Path | None, limits: Limits, name: str = "That file") -> Image.Image:
    """Read a visitor's picture.

    Raises:
        InputError: there is none, or it is too large, damaged or not a picture. The message does not contain a path.
    """
    if path is None:
        raise InputError("There is no picture yet: drop one, or pick an example.")
    path = Path(path)
    if path.stat().st_size > limits.bytes:
        raise InputError(f"{name} is larger than {limits.bytes / 2**20:g} MB; make it smaller.")
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{name} cannot be read as a picture; give a PNG, JPEG or WebP.") from error
    if width * height > limits.pixels:
        raise InputError(f"{name} has {width} × {height} pixels; {limits.pixels / 1e6:g} million are the most.")
    try:
        return load_image(path)
    except InputError as error:
        raise InputError(
            f"{name} is damaged, has 32 bits a channel, or is smaller than 8 pixels a side; give another picture."
        ) from error


def open_pictures(paths: Sequence[str] | None, limits: Limits) -> list[ObjectViews]:
    """Read the pictures of a visitor's folder; other files in it are ignored.

    Raises:
        InputError: there are none or too many, or one cannot be used.
    """
    chosen = [path for path in map(Path, paths or ()) if path.suffix.lower() in Image.registered_extensions()]
    if not chosen:
        raise InputError("There are no pictures in that folder yet: choose a folder of PNG or JPEG files.")
    if len(chosen) > limits.pictures:
        raise InputError(f"That folder has {len(chosen)} pictures; {limits.pictures} are the most.")
    return [ObjectViews(path.stem, open_picture(path, limits, path.name)) for path in sorted(chosen)]
