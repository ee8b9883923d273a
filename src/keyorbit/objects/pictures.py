"""Pictures as a viewer shows them (upright, 8 bits a channel), or as stored, where annotations count stored pixels."""

import io
import logging
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, UInt8
from numpy import ndarray
from PIL import ExifTags, Image, UnidentifiedImageError
from scipy.ndimage import maximum_filter, minimum_filter
from torch import Tensor

from keyorbit.errors import InputError
from keyorbit.objects.framing import has_alpha, middle_square
from keyorbit.objects.paths import check_picture
from keyorbit.storage.content import words_of_stand_in

log = logging.getLogger(__name__)

MIN_SIDE = 8
# Times as long as wide: models resize a picture by its shorter side before they cut out its middle square.
_LONGEST = 200
GREY = 127 / 255
# Number of pixels above which a picture is read at a reduced size: 4096 x 4096. Models look at some hundred a side.
LARGEST = 2**24
# A reduced picture has a quarter of these pixels, and this many on its shorter side, if it had them.
_SHORTER = 1024
# Of a mask's brightest value, what is black at most and white at least; and the share of what is not black from which
# an area of one value between them is a label, as of data sets' instances and of trimaps.
_BLACK, _WHITE, _LABEL = 0.05, 0.9, 0.05
# Pixels that are converted at a time.
_STRIP = 2**22

# What brings a stored picture upright, by its EXIF orientation (Exif 3.0, 4.6.5.1.6).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BACK = _TURNS | {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
# Orientations from which on width and height change places.
_ON_ITS_SIDE = 5
_PHOTOMETRIC = 262  # TIFF's tag of what zero means
# Where Pillow keeps the orientation: EXIF of JPEG, WebP and new PNGs, of old PNGs, and XMP of both kinds of files.
_METADATA = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
# Modes that some conversions do not support, or confuse: colour times alpha, and LAB, whose A is not alpha.
_PLAIN = {"La": "LA", "RGBa": "RGBA", "LAB": "RGB"}


@dataclass(frozen=True)
class Source:
    """The photograph that an object's input picture was read from.

    Attributes:
        file: its path as it was given.
        width: in pixels, upright by its EXIF orientation, and before it was reduced.
        height: the same.
    """

    file: str
    width: int
    height: int


def load_image(path: Path, largest: int | None = LARGEST) -> Image.Image:
    """Read a picture as a viewer shows it, fully decoded: upright by its EXIF orientation, with 8 bits a channel.

    Args:
        path: the file.
        largest: number of pixels above which it is reduced to a quarter of them (:func:`reduced_size`), by the means of
            what each new pixel covers. Default 2²⁴. None: never.

    Raises:
        InputError: the file is missing, empty, damaged, not a picture, smaller than 8 pixels a side, more than 200
            times as long as wide, has more pixels than Pillow decodes, or has 32 bits a channel.
    """
    return load_photograph(path, largest)[0]


def load_photograph(path: Path, largest: int | None = LARGEST) -> tuple[Image.Image, Source]:
    """The same, with what is known of the file: places on the picture can be told in the file's own pixels."""
    stored, orientation, size = _decode(path, largest)
    image = _turned(eight_bits(stored, str(path)), orientation)
    width, height = size[::-1] if orientation >= _ON_ITS_SIDE else size
    return image, Source(str(path), width, height)


def decoded_image(data: bytes, name: str, largest: int | None = LARGEST) -> Image.Image:
    """The same of what a file holds, such as an upload; ``name`` is used in error messages.

    Raises:
        InputError: as :func:`load_image`.
    """
    return decoded_photograph(data, name, largest)[0]


def decoded_photograph(data: bytes, name: str, largest: int | None = LARGEST) -> tuple[Image.Image, Source]:
    """The same, with what is known of the file: :func:`load_photograph` of bytes."""
    if not data:
        raise InputError(f"{name} is empty, no picture")
    stored, orientation, size = _decoded(io.BytesIO(data), name, largest)
    width, height = size[::-1] if orientation >= _ON_ITS_SIDE else size
    return _turned(eight_bits(stored, name), orientation), Source(name, width, height)


def load_stored(path: Path, largest: int | None = None) -> Image.Image:
    """Read a picture with its pixels as the file stores them, whatever its EXIF orientation, with 8 bits a channel.

    This is for pictures that come with annotations or cameras which count stored pixels: data sets, and COLMAP.

    Args:
        path: the file.
        largest: as for :func:`load_image`. Default None, for annotations count all pixels.

    Raises:
        InputError: as for :func:`load_image`.
    """
    return eight_bits(_decode(path, largest)[0], str(path))


def load_mask(path: Path) -> Image.Image:
    """Read a silhouette as stored, in mode L. If it has more than 8 bits, its brightest value becomes 255.

    Raises:
        InputError: the file is missing, empty, damaged, not a picture, or smaller than 8 pixels a side.
    """
    return _silhouette(_decode(path, None)[0])


def load_silhouette(path: Path, name: str, of: str) -> Image.Image:
    """Read the mask of an object in a picture that :func:`load_image` reads: upright, in mode L, 255 at its brightest.

    Args:
        path: the mask: white on the object; or, if parts of it are transparent, opaque on the object.
        name: of the mask, for error messages.
        of: name of the picture.

    Raises:
        InputError: as for :func:`load_image`; or it marks nothing, everything, or several things by numbers.
    """
    stored, orientation, _ = _decode(path, LARGEST)
    mask = stored.convert("RGBA").getchannel("A") if has_alpha(stored) else None
    painted = mask is None or np.asarray(mask).min() == 255
    if painted or mask is None:
        mask = _silhouette(stored)
    values = np.asarray(mask)
    least, most = int(values.min()), int(values.max())
    if not most:
        raise InputError(f"{name} marks no object in {of}: it is black or transparent everywhere; paint it white")
    if 2 * least > most:
        raise InputError(f"{name} marks all of {of} as the object: paint the background black, or use no mask")
    if painted and _has_labels(values, most):
        raise InputError(
            f"{name} has areas of several greys or colours, as label images and trimaps have, and does not tell which "
            f"is the object in {of}: paint the object white and all else black"
        )
    return _turned(mask.point([min(255, round(value * 255 / most)) for value in range(256)]), orientation)


def _has_labels(values: UInt8[ndarray, "row column"], most: int) -> bool:
    """Whether a large area of a mask has one value between black and its brightest: a number, and no soft edge."""
    between = (values > _BLACK * most) & (values < _WHITE * most)
    flat = between & (maximum_filter(values, 3) == minimum_filter(values, 3))
    return int(np.bincount(values[flat], minlength=1).max()) > _LABEL * int((values > _BLACK * most).sum())


def _silhouette(stored: Image.Image) -> Image.Image:
    if stored.mode[0] not in "IF":
        return eight_bits(stored).convert("L")
    # Not by 65535: a mask of 0 and 1 may be stored in 16 bits too, and would be black.
    pixels = np.asarray(stored)
    rows = range(0, len(pixels), max(1, _STRIP // pixels.shape[1]))
    brightest = max(float(_positive(pixels[i : i + rows.step]).max()) for i in rows) or 1.0
    mask = np.empty(pixels.shape, np.uint8)
    for i in rows:
        mask[i : i + rows.step] = np.rint(_positive(pixels[i : i + rows.step]) / brightest * 255)
    return Image.fromarray(mask)


def _positive(pixels: ndarray) -> Float64[ndarray, "row column"]:
    """Values without those that are negative or no numbers."""
    values: ndarray = np.nan_to_num(pixels.astype(np.float64)).clip(0)
    return values


def reduced_size(size: tuple[int, int], largest: int | None) -> tuple[int, int] | None:
    """Return width and height at which a picture is read; None where it is read as it is."""
    if largest is None or math.prod(size) <= largest:
        return None
    factor = min(math.sqrt(4 * math.prod(size) / largest), max(1.0, min(size) / _SHORTER))
    return None if factor == 1 else (round(size[0] / factor), round(size[1] / factor))


def reduced(image: Image.Image, size: tuple[int, int], name: str = "a picture") -> Image.Image:
    """Convert a picture to 8 bits a channel and to a smaller size, strip by strip. Each pixel is the mean of a box.

    Raises:
        InputError: as :func:`eight_bits`.
    """
    width, height = size
    step = image.height / height
    rows = max(1, int(_STRIP / image.width / step))
    strips = []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = math.floor(top * step), min(math.ceil(bottom * step), image.height)
        strip = image.crop((0, first, image.width, last))
        strip.format = image.format
        strip = eight_bits(strip, name)
        if has_alpha(strip):
            strip = strip.convert("RGBA")
        elif strip.mode in ("1", "P"):
            strip = strip.convert("L" if strip.mode == "1" else "RGB")
        box = (0, top * step - first, image.width, min(bottom * step - first, strip.height))
        strips.append(strip.resize((width, bottom - top), Image.Resampling.BOX, box))
    whole = Image.new(strips[0].mode, size)
    for i, strip in enumerate(strips):
        whole.paste(strip, (0, i * rows))
    return whole


def as_shown(image: Image.Image) -> Image.Image:
    """Convert a picture in memory to what a viewer shows: upright by its EXIF orientation, with 8 bits a channel.

    The result carries no orientation, so that it is not rotated twice. A picture that needs no change is returned as it
    is.

    Raises:
        InputError: its values have no known range.
    """
    image.load()
    shown = eight_bits(image)
    if image.format == "TIFF":
        # Pillow has rotated it while decoding; some versions leave the tag on the file, but not on a copy.
        return _turned(shown, 1)
    orientation = _orientation(image)
    return _turned(shown, orientation) if orientation in _TURNS else shown


def eight_bits(image: Image.Image, name: str = "a picture") -> Image.Image:
    """Convert a picture to 8 bits a channel. 16-bit grey is scaled so that 65535 becomes 255, and rounded.

    A grey value that stands for transparency becomes alpha. ``name`` is used in error messages.

    Raises:
        InputError: the picture has integers or floats of 32 bits, which have no known range.
    """
    if image.mode in _PLAIN:
        return image.convert(_PLAIN[image.mode])
    if image.mode[0] not in "IF":
        return image
    # Older versions of Pillow open 16-bit grey as 32-bit integers: PNG in 10.0, PGM still.
    wide = image.mode == "I" and image.format in ("PNG", "PPM")
    if not wide and not image.mode.startswith("I;16"):
        raise InputError(
            f"{name} has values of mode {image.mode}, whose range is not known: scale them to 0…255 and save it with "
            "8 bits a channel"
        )
    values = np.asarray(image).astype(np.int32)
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def to_tensor(
    image: Image.Image,
) -> tuple[Float[Tensor, "3 height width"], Bool[Tensor, "height width"] | None]:
    """Convert a picture to values 0…1 with transparency on grey 127, and to its silhouette if it has an alpha channel.

    Raises:
        InputError: its values have no known range.
    """
    image = as_shown(image)
    if not has_alpha(image):
        rgb = np.asarray(image.convert("RGB"), np.float32) / 255
        return torch.from_numpy(rgb).permute(2, 0, 1), None
    rgba = torch.from_numpy(np.asarray(image.convert("RGBA"), np.float32) / 255).permute(2, 0, 1)
    alpha = rgba[3:]
    return rgba[:3] * alpha + GREY * (1 - alpha), alpha[0] > 0.5


def _decode(path: Path, largest: int | None) -> tuple[Image.Image, int, tuple[int, int]]:
    """Return a picture as stored, in its own mode unless it is reduced, its EXIF orientation (1 for none) and size."""
    check_picture(path)
    try:
        # Not by its name: Pillow 12.3 maps some TIFFs into memory then, and scrambles those that lie on their side.
        with path.open("rb") as stream:
            return _decoded(stream, str(path), largest)
    except OSError as error:
        raise InputError(f"{path} cannot be read as a picture: {error}") from error


def _decoded(
    stream: io.BytesIO | io.BufferedReader, name: str, largest: int | None
) -> tuple[Image.Image, int, tuple[int, int]]:
    try:
        with _opened(stream) as file:
            whole = file.size
            if file.format == "TIFF":
                # Pillow turns these, and these alone, as it decodes them, and then forgets how.
                orientation = _orientation(file)
                file.load()
                whole = file.size[::-1] if orientation >= _ON_ITS_SIDE else file.size
                image = _transposed(_copied(file, reduced_size(file.size, largest), name), _BACK.get(orientation))
                if file.mode.startswith("I;16") and file.tag_v2.get(_PHOTOMETRIC) == 0:  # type: ignore[attr-defined]
                    grey = np.asarray(image)  # white is zero, which Pillow heeds in 8 bits only
                    image = Image.fromarray(np.iinfo(grey.dtype).max - grey)
            else:
                size = reduced_size(file.size, largest)
                if size is not None:
                    file.draft(None, size)  # JPEG decodes to a half, a quarter or an eighth; other kinds do not
                # What follows a PNG's pixels is read only when it is decoded.
                file.load()
                orientation = _orientation(file)
                image = _copied(file, size, name)
            image.format = file.format
            if _animated(file):
                log.warning("%s has several frames: the first one is read", name)
    except UnidentifiedImageError as error:
        stream.seek(0)
        raise InputError(f"{name} cannot be read as a picture: it is {_kind(stream.read(64))}") from error
    except Image.DecompressionBombError as error:
        words = str(error).partition(",")[0]
        raise InputError(f"{name} is too large a picture: {words}; save it at a smaller size") from error
    except (InputError, MemoryError):
        raise
    except Exception as error:  # of damaged files Pillow raises nearly anything
        raise InputError(f"{name} cannot be read as a picture: {error or type(error).__name__}") from error
    check_sides(image, name)
    for key in _METADATA:
        image.info.pop(key, None)
    return image, orientation, whole


def check_sides(image: Image.Image, name: str) -> None:
    """Raise InputError for a picture that is too small, or much longer than wide; ``name`` is of the picture."""
    if min(image.size) < MIN_SIDE:
        raise InputError(f"{name} is {image.width}x{image.height} pixels; a picture needs {MIN_SIDE} a side at least")
    if max(image.size) > _LONGEST * min(image.size):
        sides = f"{image.width}x{image.height}"
        raise InputError(f"{name} is {sides} pixels; a picture is at most {_LONGEST} times as long as wide: cut it")


def _kind(start: bytes) -> str:
    """What a file is that Pillow does not know, by its first bytes, and what to do: they go by any name."""
    if words := words_of_stand_in(start.decode(errors="replace")):
        return words.removeprefix("it is ")
    if start.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"<":
        return "text such as a web page or an SVG; save the picture itself, as JPEG or PNG"
    kind = "of no kind that is known here"
    if start[4:8] == b"ftyp":
        kind = "an AVIF picture, which Pillow 11.3 reads" if start[8:12] in (b"avif", b"avis") else "a HEIC picture"
    return f"{kind}; save it as JPEG or PNG"


def _opened(stream: io.BytesIO | io.BufferedReader) -> Image.Image:
    with warnings.catch_warnings():
        # Between its limit and twice of it Pillow warns of what is reduced here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        Image.init()
        # Pillow gives an EPS, whatever its name, to another program, Ghostscript.
        return Image.open(stream, formats=[name for name in Image.ID if name not in ("EPS", "WMF")])


def _animated(file: Image.Image) -> bool:
    """Whether there are further frames or pages, where they matter: cameras put a preview behind a JPEG (MPO)."""
    try:
        return file.format != "MPO" and bool(getattr(file, "is_animated", False))
    except Exception:  # a second frame that is damaged; the first was read
        return True


def _copied(file: Image.Image, size: tuple[int, int] | None, name: str) -> Image.Image:
    return file.copy() if size is None else reduced(file, size, name)


def _orientation(image: Image.Image) -> int:
    """Return the orientation that a picture carries in EXIF or XMP; 1 where it cannot be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        # Damaged EXIF makes Pillow raise nearly anything, and the picture is good without it.
        return 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    upright = _transposed(image, _TURNS.get(orientation))
    for key in _METADATA:
        upright.info.pop(key, None)
    return upright


def _transposed(image: Image.Image, how: Image.Transpose | None) -> Image.Image:
    """Return a rotated copy."""
    return image.copy() if how is None else image.transpose(how)


def on_grey(image: Image.Image) -> Image.Image:
    """Convert a picture to RGB as a viewer shows it, with transparency on the grey 127 of Zero123++'s training.

    Raises:
        InputError: its values have no known range.
    """
    image = as_shown(image)
    if has_alpha(image):
        rgba = image.convert("RGBA")
        ground = Image.new("RGB", rgba.size, (127, 127, 127))
        ground.paste(rgba, mask=rgba.getchannel("A"))
        return ground
    return image.convert("RGB")


def to_uint8(view: Tensor) -> UInt8[ndarray, "height width channel"]:
    """Convert a picture of values 0…1 ``[channel height width]`` to bytes ``[height width channel]``."""
    pixels: ndarray = (view.permute(1, 2, 0).cpu().numpy() * 255).round().clip(0, 255).astype(np.uint8)
    return pixels


def square(image: Image.Image) -> UInt8[ndarray, "side side 3"]:
    """Return the middle square of a picture on grey."""
    rgb = on_grey(image)
    return np.asarray(rgb.crop(middle_square(rgb)))
