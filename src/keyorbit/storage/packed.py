"""Results as files: their tensors and pictures in one safetensors file, all else as JSON in its header."""

import io
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import torch
from jaxtyping import jaxtyped
from PIL import Image
from torch import Tensor

from keyorbit.errors import InputError
from keyorbit.storage.checkpoint import load_checkpoint, save_checkpoint
from keyorbit.values import from_value, short

T = TypeVar("T")
FORMAT = "keyorbit-result-1"
# In place of a tensor, or of a picture, whose PNG is a tensor of bytes.
_TENSOR, _PICTURE = "tensor:", "picture:"


def save_result(result: Any, path: Path) -> None:
    """Write a dataclass of tensors, pictures, plain values, and dataclasses, tables and tuples of these.

    Raises:
        InputError: the disk refuses.
    """
    tensors: dict[str, Tensor] = {}
    values = _packed(result, "", tensors)
    save_checkpoint(path, tensors, {"format": FORMAT, "kind": type(result).__name__, "values": values}, digest=True)


def load_result(kind: type[T], path: Path) -> T:
    """Read what :func:`save_result` wrote.

    Raises:
        InputError: the file is missing, damaged, or holds another kind of result.
    """
    tensors, header = load_checkpoint(path)
    if header.get("format") != FORMAT or header.get("kind") != kind.__name__:
        raise InputError(f"{path} holds no {kind.__name__} that keyorbit saved, but {short(header.get('kind'))}")
    found: T = _unpacked(kind, header.get("values"), tensors, str(path))
    return found


def _packed(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _packed(getattr(value, one.name), f"{name}.{one.name}", tensors) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _packed(inner, f"{name}.{key}", tensors) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_packed(inner, f"{name}.{i}", tensors) for i, inner in enumerate(value)]
    if isinstance(value, Tensor):
        tensors[name[1:]] = value
        return _TENSOR + name[1:]
    if isinstance(value, Image.Image):
        data = io.BytesIO()
        value.save(data, "PNG")
        tensors[name[1:]] = torch.from_numpy(np.frombuffer(data.getvalue(), np.uint8).copy())
        return _PICTURE + name[1:]
    return value


def _unpacked(hint: Any, value: Any, tensors: Mapping[str, Tensor], where: str) -> Any:
    choices = get_args(hint) if not isinstance(hint, type) and NoneType in get_args(hint) else (hint,)
    if value is None and NoneType in choices:
        return None
    kind = next(choice for choice in choices if choice is not NoneType)
    origin, inner = get_origin(kind), get_args(kind)
    if isinstance(value, str) and value.startswith((_TENSOR, _PICTURE)):
        return _tensor(kind, value, tensors, where)
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, Mapping):
        return _dataclass(kind, value, tensors, where)
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {key: _unpacked(inner[1], item, tensors, f"{where}: {short(key)}") for key, item in value.items()}
    if origin is tuple and inner[1:] == (...,) and isinstance(value, list):
        return tuple(_unpacked(inner[0], item, tensors, f"{where}[{i}]") for i, item in enumerate(value))
    if kind is Image.Image or issubclass(_made_of(kind), Tensor) or is_dataclass(kind):
        raise InputError(f"{where} cannot be {short(value)}; it must be a {getattr(kind, '__name__', kind)}")
    return from_value(hint, value, where)


def _made_of(kind: Any) -> type:
    """What jaxtyping's types are arrays of; of others, none."""
    found: type = getattr(kind, "array_type", NoneType)
    return found


def _tensor(kind: Any, value: str, tensors: Mapping[str, Tensor], where: str) -> Any:
    mark, _, name = value.partition(":")
    if name not in tensors:
        raise InputError(f"{where} lacks the tensor {short(name)}")
    found = tensors[name]
    if kind is Image.Image and mark + ":" == _PICTURE:
        try:
            picture = Image.open(io.BytesIO(found.numpy().tobytes()), formats=["PNG"])
            picture.load()
        except Exception as error:  # of damaged files Pillow raises nearly anything
            raise InputError(f"{where} holds no picture: {error}") from error
        return picture.copy()
    _check_tensor(kind, found if mark + ":" == _TENSOR else None, where)
    return found


def _check_tensor(kind: Any, found: Tensor | None, where: str) -> None:
    if not isinstance(found, kind):
        told = "a picture" if found is None else f"a tensor of type {found.dtype} and shape {list(found.shape)}"
        raise InputError(f"{where} cannot be {told}; it must be {getattr(kind, '__name__', kind)}")


def _dataclass(kind: type[T], values: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> T:
    hints, given = get_type_hints(kind, include_extras=True), {}
    for one in fields(kind):  # type: ignore[arg-type]
        if one.name in values:
            given[one.name] = _unpacked(hints[one.name], values[one.name], tensors, f"{where}: {one.name}")
        elif one.default is MISSING and one.default_factory is MISSING:
            raise InputError(f"{where} lacks {one.name}")
    with jaxtyped("context"):  # once more together: sizes of one name are the same in all fields
        for name, value in given.items():
            if isinstance(value, Tensor) and not isinstance(value, hints[name]):
                raise InputError(
                    f"{where}: {name} cannot be a tensor of shape {list(value.shape)} beside the others; it must be "
                    f"{hints[name]}"
                )
    try:
        return kind(**given)
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:  # parts that do not fit each other
        raise InputError(f"{where}: {error}") from error
