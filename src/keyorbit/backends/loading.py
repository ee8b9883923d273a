"""From a model's name to a backend: the shipped tiny model, a local folder, or a Hub id; safetensors only."""

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import CLIPImageProcessorPil, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from keyorbit.backends.zero123plus import Components, Zero123PlusBackend
from keyorbit.cameras import zero123plus_cameras
from keyorbit.errors import InputError
from keyorbit.views import Layout

_CLASSES: dict[str, Any] = {
    "vae": AutoencoderKL,
    "unet": UNet2DConditionModel,
    "text_encoder": CLIPTextModel,
    "tokenizer": CLIPTokenizer,
    "vision_encoder": CLIPVisionModelWithProjection,
    "feature_extractor_clip": CLIPImageProcessorPil,
    "feature_extractor_vae": CLIPImageProcessorPil,
    "scheduler": EulerAncestralDiscreteScheduler,
}
_WEIGHTS = ("vae", "unet", "text_encoder", "vision_encoder")


def load_backend(model: str | Path = "tiny", device: str = "cpu", dtype: str = "float32") -> Zero123PlusBackend:
    """Load a Zero123++ model.

    Args:
        model: ``"tiny"`` (ships with keyorbit), a folder in the layout of ``sudo-ai/zero123plus-v1.2``, or a Hub id.
        device: where it runs, such as ``"cpu"`` or ``"cuda"``; given here once.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``; attention maps and losses are float32 always.

    Raises:
        InputError: the folder or a component is missing or damaged, or the device or dtype does not exist.
    """
    folder = _folder(str(model))
    target, kind = _device_and_dtype(device, dtype)
    index = _read_index(folder)
    version = "v1.1" if "v1.1" in str(model) else "v1.2"
    loaded = {name: _component(folder, name, kind).to(target) for name in _WEIGHTS}
    loaded |= {name: _component(folder, name, kind) for name in _CLASSES if name not in _WEIGHTS}
    parts = Components(**loaded, ramping_coefficients=tuple(index["ramping_coefficients"]))
    return Zero123PlusBackend(
        parts,
        Layout(3, 2),
        zero123plus_cameras(version).to(target),
        int(index.get("view_size", 320)),
        str(model),
        fingerprint(folder),
    )


def fingerprint(folder: Path) -> str:
    """A short hash of a model folder's weights: names, sizes, and the first, middle and last MiB of each file."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*/*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            for start in (0, size // 2, max(0, size - 2**20)):
                file.seek(start)
                digest.update(file.read(2**20))
    return digest.hexdigest()[:16]


def _folder(model: str) -> Path:
    if model == "tiny":
        return Path(str(files("keyorbit"))) / "assets" / "tiny"
    path = Path(model)
    if path.is_dir():
        return path
    if path.exists() or model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise InputError(f"no model folder at {model}; give 'tiny', a folder, or a Hub id such as owner/name")
    try:
        return Path(snapshot_download(model, allow_patterns=["*.json", "*.txt", "*.safetensors"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(f"model {model} is neither a folder here nor to be had from the Hub: {error}") from error


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / "model_index.json"
    try:
        index: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{folder} is no model folder: it has no model_index.json") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(index, dict) or "ramping_coefficients" not in index:
        raise InputError(f"{path} has no ramping_coefficients: {folder} is not a Zero123++ model")
    return index


def _component(folder: Path, name: str, dtype: torch.dtype) -> Any:
    if not (folder / name).is_dir():
        raise InputError(f"the model in {folder} lacks its {name}: there is no folder {folder / name}")
    kwargs: dict[str, Any] = {"use_safetensors": True} if name in _WEIGHTS else {}
    if name in _WEIGHTS:
        library_key = "torch_dtype" if name in ("vae", "unet") else "dtype"
        kwargs[library_key] = dtype
    try:
        component = _CLASSES[name].from_pretrained(folder / name, **kwargs)
    except Exception as error:  # the libraries raise whatever they meet in a damaged file
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"the {name} in {folder / name} cannot be loaded: {first_line}") from error
    return component


def _device_and_dtype(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in known:
        raise InputError(f"dtype {dtype!r} is not one of {', '.join(known)}")
    try:
        target = torch.device(device)
        torch.empty(1, device=target)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} is not to be had here: {str(error).splitlines()[0]}") from error
    return target, known[dtype]
