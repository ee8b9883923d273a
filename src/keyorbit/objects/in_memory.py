"""Pictures that are in memory already: arrays, tensors, uploads and Pillow's own."""

import os
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Shaped
from numpy import ndarray
from PIL import Image
from torch import Tensor

from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectDataset, ObjectViews, load_dataset
from keyorbit.objects.pictures import check_sides, decoded_image, to_uint8
from keyorbit.values import short

_KINDS = (
    "the path of a picture or an object folder, a Pillow image, a NumPy array [height width channel], a tensor "
    "[channel height width], the bytes of a picture's file, or an ObjectViews"
)
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# How far floats may be beyond 0…1: what resizing leaves.
_BEYOND = 0.01


@runtime_checkable
class Readable(Protocol):
    """An open file, such as an upload."""

    def read(self) -> bytes:
        """All that it holds."""


Given = (
    str | os.PathLike[str] | Image.Image | ndarray | Tensor | bytes | bytearray | memoryview | Readable | ObjectViews
)
Many = list[Any] | tuple[Any, ...] | ObjectDataset
MANY = (list, tuple, ObjectDataset)


def as_objects(pictures: Given | Many) -> Iterator[ObjectViews]:
    """Yield objects from one picture, or from several, each as it is needed.

    Raises:
        InputError: as :func:`as_object`; the message has the number of the picture.
    """
    if isinstance(pictures, MANY):
        yield from (as_object(one, f"picture_{i}") for i, one in enumerate(pictures))
    else:
        yield as_object(pictures)


def as_object(picture: object, name: str = "picture") -> ObjectViews:
    """Return an object from whatever holds its picture.

    Args:
        picture: an object itself, which is returned as it is; the path of a picture or of an object folder; a Pillow
            image; the bytes of a picture's file, or an open one; a NumPy array, [height width] or [height width
            channel]; or a tensor, [height width] or [channel height width]. There are 1 channel, 3, or 4 with alpha.
            Values are whole numbers of 8 bits, or floats of 0…1.
        name: of an object that has none. Default ``picture``.

    Raises:
        InputError: it is something else, or cannot be read; or a path holds several objects.
    """
    match picture:
        case ObjectViews():
            return picture
        case Image.Image():
            return ObjectViews(name, picture)
        case str() | os.PathLike():
            found = load_dataset(os.fsdecode(picture))
            if len(found) != 1:
                raise InputError(f"{picture} holds {len(found)} objects; give them one by one, or as a list")
            return found[0]
        case bytes() | bytearray() | memoryview():
            return ObjectViews(name, decoded_image(bytes(picture), f"what {name} holds"))
        case Tensor():
            return ObjectViews(name, _from_tensor(picture.detach().cpu(), name))
        case ndarray():
            return ObjectViews(name, _from_array(picture, name))
        case Readable():
            data = picture.read()
            if not isinstance(data, bytes):
                raise InputError(f"{name} is a file that was opened as text: open it in binary mode, with 'rb'")
            return as_object(data, name)
    raise InputError(f"{name} cannot be {short(picture)}, of type {type(picture).__name__}; give {_KINDS}")


def _from_tensor(values: Shaped[Tensor, "..."], name: str) -> Image.Image:
    if values.ndim == 3 and values.shape[0] not in _MODES and values.shape[2] in _MODES:
        raise InputError(
            f"{name} has shape {list(values.shape)}: a tensor is [channel height width]; give it .permute(2, 0, 1)"
        )
    if values.dtype in (torch.bfloat16, torch.float16, torch.float64):
        values = values.float()
    if values.ndim == 3 and values.shape[0] in _MODES:
        values = values.permute(1, 2, 0)
    return _from_array(values.numpy(), name)


def _from_array(values: Shaped[ndarray, "..."], name: str) -> Image.Image:
    shape = list(values.shape)
    if len(shape) == 3 and shape[2] not in _MODES and shape[0] in _MODES:
        raise InputError(f"{name} has shape {shape}: an array is [height width channel]; give it .transpose(1, 2, 0)")
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in _MODES) or 0 in shape:
        raise InputError(f"{name} has shape {shape}; one picture is [height width] with 1, 3 or 4 channels or none")
    if np.issubdtype(values.dtype, np.floating):
        values = _bytes_of(values, name)
    elif values.dtype == np.bool_:
        values = values.astype(np.uint8) * 255
    elif values.dtype != np.uint8:
        raise InputError(f"{name} has values of type {values.dtype}; they are whole numbers of 8 bits, or floats 0…1")
    flat = values[..., 0] if len(shape) == 3 and shape[2] == 1 else values
    image = Image.fromarray(np.ascontiguousarray(flat))
    check_sides(image, name)
    return image


def _bytes_of(values: Shaped[ndarray, "..."], name: str) -> ndarray:
    if not np.isfinite(values).all():
        raise InputError(f"{name} has values that are not finite; they are 0…1")
    least, most = float(values.min()), float(values.max())
    if least < -_BEYOND or most > 1 + _BEYOND:
        raise InputError(
            f"{name} has values of {least:g} to {most:g}; floats are 0…1, and whole numbers 0…255 of type uint8"
        )
    return to_uint8(torch.from_numpy(np.atleast_3d(values).astype(np.float32)).permute(2, 0, 1)).reshape(values.shape)
