"""Checkpoints without pickle: one safetensors file of tensors, with JSON metadata in its header, written atomically."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from keyorbit.errors import InputError
from keyorbit.storage.content import why_no_tensors
from keyorbit.storage.files import make_folder, whole_file, write_bytes

_DIGEST = "sha256"


def save_checkpoint(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], digest: bool = False
) -> None:
    """Replace ``path`` by the new state. If anything fails (a full disk, a kill), the old file stays as it was.

    With ``digest`` the metadata hold one of everything in the file, by which :func:`load_checkpoint` notices damage.

    Raises:
        InputError: the disk refuses.
    """
    make_folder(path.parent)
    # safetensors refuses tensors that share memory, and keeps no strides.
    flat = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    if digest:
        metadata = {**metadata, _DIGEST: _digest(flat, metadata)}
    with whole_file(path) as partial:
        try:
            save_file(flat, partial, metadata={"keyorbit": json.dumps(dict(metadata))})
        except SafetensorError as error:
            raise InputError(f"cannot write {path}: {error}") from error


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the metadata of :func:`save_checkpoint`.

    Raises:
        InputError: the file is missing, damaged, or not written by keyorbit.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["keyorbit"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        said = "its header is another program's" if isinstance(error, KeyError) else why_no_tensors(path, error)
        raise InputError(f"{path} is not a whole keyorbit checkpoint: {said}") from error
    if not isinstance(metadata, dict):
        raise InputError(f"{path} is not a whole keyorbit checkpoint: its header is no table")
    known = metadata.pop(_DIGEST, None)
    if known is not None and known != _digest(tensors, metadata):
        raise InputError(f"{path} is damaged: it does not hold what was written; take an earlier one or begin anew")
    return tensors, metadata


def check_tensors(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, path: Path
) -> None:
    """Check that a checkpoint holds a run's tensors, and a state of its optimizer.

    Args:
        found: of the checkpoint.
        wanted: tensors that have to be there, of these shapes.
        optimizer: of Adam's kind. Its state may be missing as a whole for a parameter that has not learned yet.
        path: of the checkpoint.

    Raises:
        InputError: naming the tensor that is missing, of another type or shape, or not finite.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    expected = dict(wanted)
    for i, p in enumerate(parameters):
        if any(name.startswith(f"optimizer.{i}.") for name in found):
            expected |= {f"optimizer.{i}.{name}": p for name in ("exp_avg", "exp_avg_sq")}
            expected[f"optimizer.{i}.step"] = torch.zeros(())
    if lacking := sorted(expected.keys() - found.keys()):
        raise InputError(f"{path} lacks {lacking[0]}, one of the tensors of this run")
    if unknown := sorted(name for name in found.keys() - expected.keys() if name.startswith("optimizer.")):
        raise InputError(f"{path} holds {unknown[0]}, which is no state of this run's optimizer")
    for name, like in expected.items():
        x = found[name]
        if x.shape != like.shape or not x.is_floating_point() or not x.isfinite().all():
            raise InputError(
                f"{path}: {name} cannot be of type {x.dtype} and shape {list(x.shape)}, or not finite; it must hold "
                f"finite numbers of shape {list(like.shape)}"
            )
        if name.startswith("optimizer.") and name.endswith((".step", ".exp_avg_sq")) and (x < 0).any():
            raise InputError(f"{path}: {name} cannot be negative")


def order_header(path: Path) -> None:
    """Bring the metadata in a safetensors file's header into one order; the library writes several in any.

    Raises:
        InputError: the disk refuses.
    """
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # as the library aligns what follows
    write_bytes(path, len(text).to_bytes(8, "little"), text, memoryview(data)[start:])


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """A short hash of tensors, which are contiguous and on the CPU, and of metadata as JSON keeps them."""
    found = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state as a flat mapping, by the number of the parameter."""
    return {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the state that :func:`optimizer_tensors` returned.

    Raises:
        ValueError: they are not of such an optimizer.
    """
    state = optimizer.state_dict()
    restored: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            restored.setdefault(int(index), {})[name] = value
    state["state"] = restored
    optimizer.load_state_dict(state)
