"""Pictures as every viewer shows them: upright, with 8 bits a channel; or as stored, where others counted pixels so."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from keyorbit.errors import InputError
from keyorbit.objects.paths import check_picture

MIN_SIDE = 8
GREY = 127 / 255

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
# Where Pillow keeps the orientation: EXIF of JPEG, WebP and new PNGs, of old PNGs, and XMP of both kinds of files.
_METADATA = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
# Modes that some conversions do not know, or take for others: colour times alpha, and LAB, whose A is no alpha.
_PLAIN = {"La": "LA", "RGBa": "RGBA", "LAB": "RGB"}


def load_image(path: Path) -> Image.Image:
    """A picture as a viewer shows it, fully decoded: upright by its EXIF orientation, with 8 bits a channel.

    Raises:
        InputError: missing, empty, damaged, not a picture, smaller than 8 pixels a side, or of 32 bits a channel.
    """
    stored, orientation = _decode(path)
    return _turned(eight_bits(stored, str(path)), orientation)


def load_stored(path: Path) -> Image.Image:
    """A picture with its pixels where the file stores them, whatever its EXIF orientation, with 8 bits a channel.

    For pictures that come with annotations or cameras which count stored pixels: data sets, and COLMAP.

    Raises:
        InputError: as for :func:`load_image`.
    """
    return eight_bits(_decode(path)[0], str(path))


def load_mask(path: Path) -> Image.Image:
    """A silhouette as stored, of mode L. Its brightest value becomes 255 where it has more than 8 bits.

    Raises:
        InputError: missing, empty, damaged, not a picture, or smaller than 8 pixels a side.
    """
    stored, _ = _decode(path)
    if stored.mode[0] not in "IF":
        return eight_bits(stored).convert("L")
    # Not by 65535: a mask of 0 and 1 may be stored in 16 bits too, and would be black.
    values = np.nan_to_num(np.asarray(stored).astype(np.float64)).clip(0)
    return Image.fromarray(np.rint(values / (values.max() or 1) * 255).astype(np.uint8))


def as_shown(image: Image.Image) -> Image.Image:
    """A picture in memory as a viewer shows it: upright by the EXIF orientation that it carries, with 8 bits a channel.

    What comes out carries no orientation, so that nobody turns it again; a picture that is so already comes out itself.

    Raises:
        InputError: its values have no known range.
    """
    image.load()
    shown = eight_bits(image)
    if image.format == "TIFF":
        # Pillow has turned it as it decoded it; some versions leave the tag on the file, but not on a copy.
        return _turned(shown, 1)
    orientation = _orientation(image)
    return _turned(shown, orientation) if orientation in _TURNS else shown


def eight_bits(image: Image.Image, name: str = "a picture") -> Image.Image:
    """A picture with 8 bits a channel: 16-bit grey is scaled so that 65535 becomes 255, rounded to the nearest.

    A grey value that stands for transparency becomes alpha. ``name`` says whose picture it is.

    Raises:
        InputError: integers or floats of 32 bits, which have no known range.
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


def has_alpha(image: Image.Image) -> bool:
    """Whether a picture tells what is transparent: by a channel, or by a colour that stands for it."""
    return "A" in image.getbands() or "transparency" in image.info


def to_tensor(
    image: Image.Image,
) -> tuple[Float[Tensor, "3 height width"], Bool[Tensor, "height width"] | None]:
    """A picture as shown, 0…1 with transparency on grey 127, and its silhouette where it has an alpha channel.

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


def _decode(path: Path) -> tuple[Image.Image, int]:
    """A picture as stored, in its own mode and without the orientation, and that orientation: 1 where there is none."""
    check_picture(path)
    try:
        # Not by its name: Pillow 12.3 maps some TIFFs into memory then, and scrambles those that lie on their side.
        with path.open("rb") as stream, Image.open(stream) as file:
            if file.format == "TIFF":
                # Pillow turns these, and these alone, as it decodes them, and then forgets how.
                orientation = _orientation(file)
                file.load()
                image = _transposed(file, _BACK.get(orientation))
            else:
                # Before it is decoded, a PNG does not know what follows its pixels.
                file.load()
                orientation = _orientation(file)
                image = file.copy()
            image.format = file.format
    except UnidentifiedImageError as error:
        kind = "a HEIC picture" if path.suffix.lower() in (".heic", ".heif") else "of no kind that is known here"
        raise InputError(f"{path} cannot be read as a picture: it is {kind}; save it as JPEG or PNG") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as a picture: {error}") from error
    if min(image.size) < MIN_SIDE:
        raise InputError(f"{path} is {image.width}x{image.height} pixels; a picture needs {MIN_SIDE} a side at least")
    for key in _METADATA:
        image.info.pop(key, None)
    return image, orientation


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation that a picture carries, in EXIF or XMP; 1 where it cannot be read."""
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
    """A turned copy, in memory."""
    return image.copy() if how is None else image.transpose(how)


def on_grey(image: Image.Image) -> Image.Image:
    """An RGB picture as a viewer shows it; transparency becomes the grey 127 that Zero123++ was trained with.

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


def middle_square(image: Image.Image) -> tuple[int, int, int, int]:
    """The box of a picture's middle square, as models crop it: left, top, right, bottom, in pixels."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return left, top, left + side, top + side


def to_uint8(view: Tensor) -> UInt8[ndarray, "height width 3"]:
    """A 0…1 picture ``[3 height width]`` as bytes ``[height width 3]``."""
    pixels: ndarray = (view.permute(1, 2, 0).cpu().numpy() * 255).round().clip(0, 255).astype(np.uint8)
    return pixels


def square(image: Image.Image) -> UInt8[ndarray, "side side 3"]:
    """The middle square of the input picture on grey: what the model sees, and what its input_xy refer to."""
    rgb = on_grey(image)
    return np.asarray(rgb.crop(middle_square(rgb)))
