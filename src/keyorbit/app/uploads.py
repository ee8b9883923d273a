"""Files from visitors. Files that are too large or no pictures are refused before they are decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from keyorbit.errors import InputError
from keyorbit.objects.cutout import check_mask_size
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.paths import named_as_picture
from keyorbit.objects.pictures import load_image, load_silhouette
from keyorbit.storage.folder_names import readable

# Of a picture of many.
_SIDE = 1024
# Names of files that say nothing: examples, and what was pasted.
_NO_NAMES = ("cond", "image", "clipboard", "")


@dataclass(frozen=True)
class Limits:
    """Limits of what a visitor may request.

    Attributes:
        bytes: of one picture. Default 10 MiB.
        pixels: of one picture. Default 16 million.
        pictures: of one discovery. Default 64.
        waiting: number of calls of one endpoint that wait; further ones are refused. Default 64.
        turn: seconds that a call waits for its turn at the model. Default ten minutes.
        seconds: of one discovery, which then ends and keeps what is there. Default half an hour.
    """

    bytes: int = 10 * 2**20
    pixels: int = 16_000_000
    pictures: int = 64
    waiting: int = 64
    turn: float = 600.0
    seconds: float = 1800.0

    @property
    def request(self) -> int:
        """Number of bytes of all pictures that one request uploads."""
        return self.bytes * self.pictures

    @property
    def words(self) -> str:
        """What visitors are told of the limits beforehand."""
        return (
            f"A picture has at most {self.bytes / 2**20:g} MB and {self.pixels / 1e6:g} million pixels. A discovery "
            f"takes at most {self.pictures} pictures and {self.seconds / 60:g} minutes. Uploads and results are "
            "removed when you close the page, and after an hour at the latest."
        )


def open_picture(path: str | Path | None, limits: Limits, name: str = "That file") -> Image.Image:
    """Read a visitor's picture.

    Raises:
        InputError: there is none, or it is too large, damaged or not a picture. The message does not contain a path.
    """
    if path is None:
        raise InputError("There is no picture yet: drop one, or pick an example.")
    path = Path(path)
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise InputError(f"{name} was removed; upload it again.") from error
    if size > limits.bytes:
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


def called(path: str | None) -> str:
    """What an object is called after the file of its picture; ``picture`` where that has no name of its own."""
    name = readable(Path(path or "").stem)
    return "picture" if name in _NO_NAMES else name


def open_mask(path: str | Path | None, picture: Image.Image, limits: Limits) -> Image.Image | None:
    """Read a visitor's mask of that picture; None for none.

    Raises:
        InputError: it is no picture within the limits, marks nothing or everything, or has another size. The message
            does not contain a path.
    """
    if path is None:
        return None
    name, of = "That mask", "the picture"
    open_picture(path, limits, name)
    mask = load_silhouette(Path(path), name, of)
    check_mask_size(mask, picture, name, of)
    return mask


def open_pictures(paths: Sequence[str] | None, limits: Limits) -> list[ObjectViews]:
    """Read the pictures of a visitor's folder, reduced to 1024 pixels a side; other files in it are ignored.

    Raises:
        InputError: there are none or too many, or one cannot be used.
    """
    chosen = [path for path in map(Path, paths or ()) if named_as_picture(path)]
    if not chosen:
        raise InputError("There are no pictures in that folder yet: choose a folder of PNG or JPEG files.")
    if len(chosen) > limits.pictures:
        raise InputError(f"That folder has {len(chosen)} pictures; {limits.pictures} are the most.")
    return [ObjectViews(path.stem, _reduced(open_picture(path, limits, path.name))) for path in sorted(chosen)]


def _reduced(picture: Image.Image) -> Image.Image:
    """All of a folder are in memory at once, and a model sees far fewer pixels."""
    picture.thumbnail((_SIDE, _SIDE))
    return picture
