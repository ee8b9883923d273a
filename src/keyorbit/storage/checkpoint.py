"""Checkpoints without pickle: one safetensors file of tensors, with JSON metadata in its header, written atomically."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from keyorbit.errors import InputError
from keyorbit.storage.files import make_folder, whole_file


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Replace ``path`` by the new state. If anything fails (a full disk, a kill), the old file stays as it was."""
    make_folder(path.parent)
    # safetensors refuses tensors that share memory, and keeps no strides.
    flat = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
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
            return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not a whole keyorbit checkpoint: {error}") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state as a flat mapping, by the number of the parameter."""
    return {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the state that :func:`optimizer_tensors` returned."""
    state = optimizer.state_dict()
    restored: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            restored.setdefault(int(index), {})[name] = value
    state["state"] = restored
    optimizer.load_state_dict(state)
