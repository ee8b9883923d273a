"""From a model's name to a backend: the shipped tiny model, a local folder, or a Hub id; safetensors only."""

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import CLIPImageProcessorPil, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from keyorbit.backends.base import Backend
from keyorbit.backends.stable_diffusion import StableDiffusionBackend, StableDiffusionComponents
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
# Any of Stable Diffusion's schedulers reads as DDIM's: what counts is the noise schedule. Other parts are left alone.
_STABLE_DIFFUSION_CLASSES: dict[str, Any] = {
    **{name: _CLASSES[name] for name in ("vae", "unet", "text_encoder", "tokenizer")},
    "scheduler": DDIMScheduler,
}
_WEIGHTS = ("vae", "unet", "text_encoder", "vision_encoder")


def load_backend(model: str | Path = "tiny", device: str = "cpu", dtype: str = "float32") -> Backend:
    """Load a Zero123++ or a Stable Diffusion model; its ``model_index.json`` says which it is.

    Args:
        model: ``"tiny"`` (ships with keyorbit), a folder in the layout of ``sudo-ai/zero123plus-v1.2`` or of Stable
            Diffusion 1.5 or 2.1, or a Hub id. Weights of the ``fp16`` variant are taken where there are no others.
        device: where it runs, such as ``"cpu"`` or ``"cuda"``; given here once.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``; attention maps and losses are float32 always.

    Raises:
        InputError: the folder or a component is missing or damaged, or the device or dtype does not exist.
    """
    folder = _folder(str(model))
    target, kind = _device_and_dtype(device, dtype)
    index = _read_index(folder)
    if "ramping_coefficients" in index:
        parts = _components(folder, _CLASSES, target, kind)
        version = "v1.1" if "v1.1" in str(model) else "v1.2"
        return Zero123PlusBackend(
            Components(**parts, ramping_coefficients=tuple(index["ramping_coefficients"])),
            Layout(3, 2),
            zero123plus_cameras(version).to(target),
            int(index.get("view_size", 320)),
            str(model),
            fingerprint(folder),
        )
    if index.get("_class_name") == "StableDiffusionPipeline":
        parts = _components(folder, _STABLE_DIFFUSION_CLASSES, target, kind)
        return StableDiffusionBackend(StableDiffusionComponents(**parts), str(model), fingerprint(folder))
    raise InputError(
        f"{folder / 'model_index.json'} describes a {index.get('_class_name')}: give a Zero123++ model (it has "
        "ramping_coefficients) or a Stable Diffusion one (a StableDiffusionPipeline)"
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
        wanted = ["model_index.json", "*/*.json", "*/*.txt", "*/*.safetensors"]  # no single-file checkpoints
        return Path(
            snapshot_download(model, allow_patterns=wanted, ignore_patterns=["safety_checker/*", "*.non_ema.*"])
        )
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
    if not isinstance(index, dict):
        raise InputError(f"{path} does not describe a model: it must be a JSON object")
    return index


def _components(folder: Path, classes: dict[str, Any], device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    parts = {name: _component(folder, name, kind, dtype) for name, kind in classes.items()}
    return {name: part.to(device) if name in _WEIGHTS else part for name, part in parts.items()}


def _component(folder: Path, name: str, kind: Any, dtype: torch.dtype) -> Any:
    if not (folder / name).is_dir():
        raise InputError(f"the model in {folder} lacks its {name}: there is no folder {folder / name}")
    kwargs: dict[str, Any] = {}
    if name in _WEIGHTS:
        library_key = "torch_dtype" if name in ("vae", "unet") else "dtype"
        kwargs = {"use_safetensors": True, "variant": _variant(folder / name), library_key: dtype}
    try:
        component = kind.from_pretrained(folder / name, **kwargs)
    except Exception as error:  # the libraries raise whatever they meet in a damaged file
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"the {name} in {folder / name} cannot be loaded: {first_line}") from error
    return component


def _variant(folder: Path) -> str | None:
    """``"fp16"`` where weights are stored in that form only.

    Raises:
        InputError: the weights are there as pickle only.
    """
    stored = [path.name for path in folder.glob("*.safetensors") if ".non_ema" not in path.name]
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled and not stored:
        raise InputError(
            f"{folder} holds its weights as {pickled[0]} only, a pickle, which could run code: "
            "save the model with safe_serialization=True, or get its .safetensors files"
        )
    return "fp16" if stored and all(".fp16" in name for name in stored) else None


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
