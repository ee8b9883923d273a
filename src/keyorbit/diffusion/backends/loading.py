"""From a model's name to a backend: the shipped tiny model, a local folder, or a Hub id; safetensors only."""

import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPImageProcessorPil, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.backends.components import check_fit, load_component, load_controlnet, load_unet
from keyorbit.diffusion.backends.folders import model_folder
from keyorbit.diffusion.backends.known_cameras import LAYOUT, cameras_in, check_choice, chosen_cameras
from keyorbit.diffusion.backends.stable_diffusion import StableDiffusionBackend, StableDiffusionComponents
from keyorbit.diffusion.backends.zero123plus import Components, Zero123PlusBackend
from keyorbit.diffusion.choices import check_dtype
from keyorbit.diffusion.tokens import Tokens
from keyorbit.errors import InputError

log = logging.getLogger(__name__)

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


def load_backend_of(
    tokens: Tokens,
    model: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    unet: Path | None = None,
    cameras_of: str | None = None,
    compile: bool = False,
) -> Backend:
    """The model that tokens were found on, with the cameras that they were found with; or another that is named.

    Raises:
        InputError: it does not load.
    """
    chosen = cameras_of or tokens.info.cameras_of or None
    return load_backend(model or tokens.info.model or "tiny", device, dtype, unet, cameras_of=chosen, compile=compile)


def load_backend(
    model: str | Path = "tiny",
    device: str = "cpu",
    dtype: str = "float32",
    unet: str | Path | None = None,
    controlnet: str | Path | None = None,
    cameras_of: str | None = None,
    compile: bool = False,
) -> Backend:
    """Load a Zero123++ or a Stable Diffusion model; its ``model_index.json`` says which it is.

    Args:
        model: ``"tiny"`` (ships with keyorbit), a folder in the layout of ``sudo-ai/zero123plus-v1.2`` or of Stable
            Diffusion 1.5 or 2.1, or a Hub id. Weights of the ``fp16`` variant are taken where there are no others.
        device: where it runs, such as ``"cpu"`` or ``"cuda"``; given here once.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``; attention maps and losses are float32 always.
        unet: a safetensors file with other weights for the UNet, such as InstantMesh's for white backgrounds.
        controlnet: a folder or Hub id such as ``sudo-ai/controlnet-zp11-depth-v1``, for ``depth_images`` of
            :meth:`~keyorbit.diffusion.backends.zero123plus.Zero123PlusBackend.generate`.
        cameras_of: ``"v1.1"``, ``"v1.2"`` or a rig such as ``"instantmesh"``: the cameras of a Zero123++'s views; by
            default those that its folder tells of, see :func:`keyorbit.diffusion.backends.known_cameras.cameras_in`.
        compile: generate views with a compiled UNet, see
            :meth:`~keyorbit.diffusion.backends.zero123plus.Zero123PlusBackend.compile_unet`; by default not.

    Raises:
        InputError: the folder or a component is missing, damaged, foreign or stored as a pickle, the parts do not fit
            each other, there are no such cameras, the device or dtype does not exist, or ``compile`` is given for a
            model that generates no views.
    """
    if cameras_of is not None:
        check_choice(cameras_of)
    folder = source_folder(str(model))
    target, kind = device_and_dtype(device, dtype)
    index, other = _read_index(folder), None if unet is None else Path(unet)
    name, began = str(model), time.monotonic()
    if "ramping_coefficients" in index:
        ramp = _ramp(folder, index)
        backend = Zero123PlusBackend(
            Components(**_parts(folder, _CLASSES, target, kind, other), ramping_coefficients=ramp),
            LAYOUT,
            chosen_cameras(cameras_of or cameras_in(index, folder)).to(target),
            int(index.get("view_size", 320)),
            name,
            fingerprint(folder, other),
            cameras_of or "",
        )
        check_fit(backend.parts, folder)
        if controlnet is not None:
            backend.add_controlnet(load_controlnet(source_folder(str(controlnet)), kind))
        if compile:
            backend.compile_unet()
        return _told(backend, dtype, began)
    if index.get("_class_name") == "StableDiffusionPipeline":
        if controlnet is not None:
            raise InputError(f"{folder} is a Stable Diffusion model; a ControlNet is for Zero123++ models only")
        if cameras_of is not None:
            raise InputError(f"{folder} is a Stable Diffusion model of a single view, which has no cameras")
        if compile:
            raise InputError(f"{folder} is a Stable Diffusion model, which generates no views: leave compile out")
        parts = _parts(folder, _STABLE_DIFFUSION_CLASSES, target, kind, other)
        found = StableDiffusionBackend(StableDiffusionComponents(**parts), name, fingerprint(folder, other))
        return _told(found, dtype, began)
    raise InputError(
        f"{folder / 'model_index.json'} describes a {index.get('_class_name')}: give a Zero123++ model (it has "
        "ramping_coefficients) or a Stable Diffusion one (a StableDiffusionPipeline)"
    )


def _told(backend: Backend, dtype: str, began: float) -> Backend:
    """The backend, after a line in the log about it."""
    views = f"{backend.layout.num_views} views of {backend.view_size} pixels"
    place = f"{dtype} on {backend.device}"
    if backend.device.type == "cpu":
        place += f" with {torch.get_num_threads()} threads"
    took = time.monotonic() - began
    log.info("model %s (%s): %s, %s, loaded in %.1f s", backend.name, backend.fingerprint, views, place, took)
    return backend


def _ramp(folder: Path, index: dict[str, Any]) -> tuple[float, ...]:
    coefficients = index["ramping_coefficients"]
    if not (isinstance(coefficients, list) and all(isinstance(x, int | float) for x in coefficients)):
        raise InputError(f"{folder / 'model_index.json'} has ramping_coefficients that are not a list of numbers")
    return tuple(coefficients)


def _parts(
    folder: Path, classes: dict[str, Any], device: torch.device, dtype: torch.dtype, unet: Path | None
) -> dict[str, Any]:
    """The model's parts by name, the UNet with the weights of the file ``unet`` if there is one."""
    parts = {
        name: load_unet(folder / name, unet, dtype)
        if name == "unet" and unet is not None
        else load_component(folder / name, name, kind, dtype)
        for name, kind in classes.items()
    }
    return {name: part.to(device) if isinstance(part, torch.nn.Module) else part for name, part in parts.items()}


def fingerprint(folder: Path, unet: Path | None = None) -> str:
    """A short hash of a model folder's weights: names, sizes, and the first, middle and last MiB of each file.

    With ``unet``, that file stands in for the folder's own UNet.
    """
    digest = hashlib.sha256()
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.glob("*/*.safetensors"))}
    if unet is not None:
        files = {name: path for name, path in files.items() if not name.startswith("unet/")} | {"unet": unet}
    for name, path in files.items():
        size = path.stat().st_size
        digest.update(f"{name} {size}\n".encode())
        with path.open("rb") as file:
            for start in (0, size // 2, max(0, size - 2**20)):
                file.seek(start)
                digest.update(file.read(2**20))
    return digest.hexdigest()[:16]


def model_fingerprint(model: str | Path) -> str:
    """The :func:`fingerprint` that the loaded model would have; reads no more than that takes.

    Raises:
        InputError: there is no such model.
    """
    return fingerprint(source_folder(str(model)))


def source_folder(model: str) -> Path:
    """Where the files of the model of that name are; see :func:`load_backend`."""
    # A single-file checkpoint at the root is left behind; a ControlNet's own files lie there.
    wanted = ("*.json", "*/*.txt", "*/*.safetensors", "diffusion_pytorch_model*.safetensors")
    return model_folder(model, wanted, ("safety_checker/*", "*.non_ema.*"))


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


def device_and_dtype(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """The torch device and dtype of these names.

    Raises:
        InputError: one of them is not to be had here.
    """
    check_dtype(dtype)
    try:
        target = torch.device(device)
        torch.empty(1, device=target)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} is not to be had here: {str(error).splitlines()[0]}") from error
    return target, getattr(torch, dtype)
