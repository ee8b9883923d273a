"""What a training would miss on this machine, told before it begins: packages, a GPU, room, files."""

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from keyorbit.errors import InputError

# By the names under which they are imported.
_NEEDED = ("accelerate", "diffusers", "einops", "jaxtyping", "msgspec", "safetensors", "scipy", "transformers", "PIL")
_TO_RENDER = ("trimesh", "embreex")
_ROOM = 2 * 10**9


def missing(out: Path, files: Sequence[str], device: str, init: Path | None, meshes: Path | None) -> list[str]:
    """What stands in the way of a training in ``out``, one sentence each.

    Args:
        files: those that it renders if they are not there.
        device: auto, cpu or cuda.
        init: the model folder to start from.
        meshes: the folder of meshes.
    """
    found = [f"the package {name} is not installed" for name in _NEEDED if importlib.util.find_spec(name) is None]
    lacking = [name for name in files if not (out / name).is_file()]
    if lacking:
        found += [
            f"the package {name} is not installed, and {', '.join(lacking)} has to be rendered"
            for name in _TO_RENDER
            if importlib.util.find_spec(name) is None
        ]
    if device not in ("auto", "cpu", "cuda"):
        found.append(f"--device is {device}; it must be auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        found.append("--device cuda: torch sees no GPU; give --device cpu, or install torch for CUDA")
    if init is not None and not (init / "model_index.json").is_file():
        found.append(f"--init: there is no model in {init}")
    if meshes is not None and not meshes.is_dir():
        found.append(f"--meshes: {meshes} is no folder")
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if (free := shutil.disk_usage(there).free) < _ROOM:
        found.append(f"{there} has room for {free / 1e9:.1f} GB; a run takes about {_ROOM / 1e9:.0f}")
    return found


def check(out: Path, files: Sequence[str], device: str, init: Path | None, meshes: Path | None) -> None:
    """Raise InputError with all that is :func:`missing`, if anything is."""
    if found := missing(out, files, device, init, meshes):
        raise InputError("; ".join(found))
