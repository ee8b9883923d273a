"""Weights out of pickles, without running what a pickle may hold; the only place where keyorbit opens one."""

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from keyorbit.budget import check_budget
from keyorbit.errors import InputError, first_line, memory_shortage
from keyorbit.storage.content import stand_in

# The first version of torch whose `weights_only` holds what it promises.
_SAFE = (2, 6)


def convert_file(source: Path, target: Path) -> int:
    """Write the tensors of a pickle as a safetensors file, read it again, and compare every tensor bit by bit.

    The pickle is read with ``torch.load(weights_only=True)``: it can name tensors and plain values, and run no code.

    Args:
        source: a ``.bin``, ``.pt``, ``.pth`` or ``.ckpt`` file: a dictionary of tensors, or one below ``state_dict``.
        target: the file to write; one that is there is replaced.

    Returns:
        How many tensors it holds.

    Raises:
        InputError: it is missing, damaged or no pickle of tensors, it names something else, there is not enough memory,
            or the target cannot be written.
    """
    return write_weights(weights_in(source), target)


def weights_in(source: Path) -> dict[str, torch.Tensor]:
    """The tensors of a pickle by name, as safetensors can store them.

    Raises:
        InputError: as :func:`convert_file`.
    """
    if not source.is_file():
        raise InputError(f"there is no file of weights at {source}")
    # The tensors, and their bytes in a row.
    check_budget({f"the weights in {source}": (2 * source.stat().st_size, "close other programs")})
    return apart(state_dict(loaded(source), source))


def write_weights(tensors: Mapping[str, torch.Tensor], target: Path) -> int:
    """Write tensors as a safetensors file, read it again, and compare all; how many they are.

    Raises:
        InputError: the target cannot be written.
    """
    try:
        save_file(dict(tensors), target, {"format": "pt"})
        check_same(tensors, target)
    except (SafetensorError, OSError) as error:
        raise InputError(f"cannot write {target}: {first_line(error)}") from error
    return len(tensors)


def loaded(source: Path) -> Any:
    """What a pickle holds, if these are tensors and plain values.

    Raises:
        InputError: it holds something else or is damaged, or torch is older than 2.6, whose ``weights_only`` can be
            deceived (CVE-2025-32434).
    """
    if _version() < _SAFE:
        raise InputError(f"pickles are opened by torch 2.6 and later only, and this is {torch.__version__}: update it")
    if words := stand_in(source):
        raise InputError(f"{source} cannot be converted: {words}")
    if source.suffix.lower() != ".safetensors" and _is_safe(source):
        raise InputError(f"{source} is no pickle, but safetensors already: give it a name that ends in .safetensors")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old kinds of pickles
            return torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # of damaged files torch raises nearly anything
        if memory_shortage(error):
            raise
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            raise InputError(
                f"{source} was not opened, since that could run code: it holds {named[1]:.100}, which is no tensor; "
                "get the weights as safetensors"
            ) from error
        said = "" if isinstance(error, pickle.UnpicklingError) else f" ({first_line(error):.100})"
        raise InputError(f"{source} is damaged, or not what torch.save writes{said}") from error


def _is_safe(source: Path) -> bool:
    """Whether a file is safetensors, whatever its name: the length of a header, and the header, which is JSON."""
    with source.open("rb") as file:
        length, start = int.from_bytes(file.read(8), "little"), file.read(2)
    return start == b'{"' and length < source.stat().st_size


def _version() -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])


def state_dict(content: Any, source: Path) -> dict[str, torch.Tensor]:
    """The tensors by name, of a dictionary that holds nothing else, or has such a one below ``state_dict``.

    Raises:
        InputError: there is none.
    """
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{source} holds no weights by name, but a {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise InputError(
                f"{source} is no state dict: it holds a {type(value).__name__} under the name {name!r:.100}"
            )
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            without = "has no values (device meta)" if value.is_meta else "is not a dense tensor"
            raise InputError(f"{source} cannot be stored as safetensors: {name:.100} {without}")
    return {name: value.detach().resolve_conj() for name, value in content.items()}


def apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same with memory of its own for each: safetensors stores none that share theirs, as tied weights do."""
    seen, found = set[int](), {}
    for name, value in tensors.items():
        storage = value.untyped_storage()
        whole = value.is_contiguous() and storage.nbytes() == value.numel() * value.element_size()
        found[name] = value if whole and storage.data_ptr() not in seen else value.contiguous().clone()
        seen.add(storage.data_ptr())
    return found


def check_same(tensors: Mapping[str, torch.Tensor], target: Path) -> None:
    """Raise InputError where the file does not hold these very tensors."""
    with safe_open(target, "pt") as stored:
        if set(stored.keys()) != tensors.keys():
            raise InputError(f"{target} was written wrongly: it does not hold the same names")
        for name, value in tensors.items():
            other = stored.get_tensor(name)
            if (other.dtype, other.shape) != (value.dtype, value.shape) or not torch.equal(
                _bytes(other), _bytes(value)
            ):
                raise InputError(f"{target} was written wrongly: {name} differs; is the disk in order?")


def _bytes(x: torch.Tensor) -> torch.Tensor:
    """Its bytes: NaN equals itself there."""
    return x.reshape(-1).view(torch.uint8) if x.numel() else x.new_empty(0, dtype=torch.uint8)
