"""From a model's name to a backend: the shipped tiny model, a local folder, or a Hub id; safetensors only."""

import hashlib
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPImageProcessorPil, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from keyorbit.devices import AUTO, resolve_device
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.backends.components import load_component, load_controlnet, load_unet
from keyorbit.diffusion.backends.configurations import Zero123PlusIndex
from keyorbit.diffusion.backends.fit import check_fit, check_pictures, check_schedule, check_unet_runs, check_words
from keyorbit.diffusion.backends.folders import model_folder
from keyorbit.diffusion.backends.known_cameras import views_of
from keyorbit.diffusion.backends.stable_diffusion import StableDiffusionBackend, StableDiffusionComponents
from keyorbit.diffusion.backends.zero123plus import Components, Zero123PlusBackend
from keyorbit.diffusion.choices import FROM_FOLDER, ViewChoice, check_dtype
from keyorbit.diffusion.precision import HALF_TYPES, Loaded, load_settled
from keyorbit.diffusion.rig_choice import check_rig
from keyorbit.diffusion.tokens import Tokens
from keyorbit.errors import InputError
from keyorbit.geometry.views import Layout
from keyorbit.ranks import launched
from keyorbit.storage.content import json_of
from keyorbit.values import from_values

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
    device: str = AUTO,
    dtype: str = AUTO,
    unet: Path | None = None,
    views: ViewChoice = FROM_FOLDER,
    compile: bool = False,
) -> Backend:
    """The model that tokens were found on, with the layout and the cameras that they were found with; or others.

    Raises:
        InputError: it does not load.
    """
    views, name = views.over(tokens.info.cameras_of, tokens.info.layout), model or tokens.info.model or "tiny"
    return load_backend(name, device, dtype, unet, rig=views.rig, compile=compile, layout=views.layout)


def load_backend(
    model: str | Path = "tiny",
    device: str = AUTO,
    dtype: str = AUTO,
    unet: str | Path | None = None,
    controlnet: str | Path | None = None,
    rig: str | Path | None = None,
    compile: bool = False,
    layout: str | Layout | None = None,
    *,
    cameras_of: str | None = None,
) -> Backend:
    """Load a Zero123++ or a Stable Diffusion model; its ``model_index.json`` says which it is.

    Args:
        model: ``"tiny"`` (ships with keyorbit), a folder in the layout of ``sudo-ai/zero123plus-v1.2`` or of Stable
            Diffusion 1.5 or 2.1, or a Hub id. Weights of the ``fp16`` variant are taken where there are no others.
        device: where it runs, such as ``"cpu"`` or ``"cuda"``; given here once. ``"auto"`` is a CUDA GPU if there is
            one, else Apple's, else the CPU.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``; attention maps and losses are float32 always. ``"auto"``
            is float32 on the CPU; on a GPU it is half precision if that keeps the model's maps, which is measured
            here: see :mod:`keyorbit.diffusion.precision`. The backend's ``precision`` tells what was chosen.
        unet: a safetensors file with other weights for the UNet, such as InstantMesh's for white backgrounds.
        controlnet: a folder or Hub id such as ``sudo-ai/controlnet-zp11-depth-v1``, for ``depth_images`` of
            :meth:`~keyorbit.diffusion.backends.zero123plus.Zero123PlusBackend.generate`.
        rig: ``"v1.1"``, ``"v1.2"``, the name of a rig such as ``"instantmesh"`` (:func:`keyorbit.rig`) or a JSON file
            of cameras: the cameras of a Zero123++'s views, row by row from the top left. By default those that its
            folder tells of, see :func:`keyorbit.diffusion.backends.known_cameras.views_of`.
        compile: generate views with a compiled UNet, see
            :meth:`~keyorbit.diffusion.backends.zero123plus.Zero123PlusBackend.compile_unet`; by default not.
        layout: rows x columns of a Zero123++'s views, such as ``"2x3"``; by default what its folder tells, else 3 x 2.
        cameras_of: the older name of ``rig``.

    Raises:
        InputError: the folder or a component is missing, damaged, foreign or stored as a pickle, the parts do not fit
            each other, there are no such cameras or not as many as views, the device or dtype does not exist, or
            ``compile`` is given for a model that generates no views.
    """
    rig, text = rig or cameras_of, layout.text if isinstance(layout, Layout) else layout
    chosen = ViewChoice(None if rig is None else str(rig), text)
    if chosen.rig is not None:
        check_rig(chosen.rig)
    folder = source_folder(str(model))
    target, kind = device_and_dtype(device, dtype)
    index, other, began = _read_index(folder), None if unet is None else Path(unet), time.monotonic()
    load: Callable[[torch.dtype], Loaded]
    if "ramping_coefficients" in index:
        load = partial(_zero123plus, str(model), folder, index, target, other, chosen)
    elif index.get("_class_name") == "StableDiffusionPipeline":
        if controlnet is not None:
            raise InputError(f"{folder} is a Stable Diffusion model; a ControlNet is for Zero123++ models only")
        if chosen != FROM_FOLDER:
            raise InputError(f"{folder} is a Stable Diffusion model of a single view, which has no cameras or layout")
        if compile:
            raise InputError(f"{folder} is a Stable Diffusion model, which generates no views: leave compile out")
        load = partial(_stable_diffusion, str(model), folder, target, other)
    else:
        raise InputError(
            f"{folder / 'model_index.json'} describes a {index.get('_class_name')}: give a Zero123++ model (it has "
            "ramping_coefficients) or a Stable Diffusion one (a StableDiffusionPipeline)"
        )
    backend = load(kind) if dtype != AUTO or target.type == "cpu" else load_settled(load)
    if isinstance(backend, Zero123PlusBackend) and controlnet is not None:
        backend.add_controlnet(load_controlnet(source_folder(str(controlnet)), backend.dtype))
    if isinstance(backend, Zero123PlusBackend) and compile:
        backend.compile_unet()
    _tell(backend, began)
    return backend


def _zero123plus(
    name: str,
    folder: Path,
    index: dict[str, Any],
    device: torch.device,
    unet: Path | None,
    views: ViewChoice,
    dtype: torch.dtype,
) -> Zero123PlusBackend:
    told = from_values(Zero123PlusIndex, index, str(folder / "model_index.json"), others=True)
    layout, cameras = views_of(index, told, folder, views)
    parts = _parts(folder, _CLASSES, device, dtype, unet)
    components = Components(**parts, ramping_coefficients=told.ramping_coefficients)
    check_fit(components, folder)
    check_words(components, folder)
    check_schedule(components.scheduler, folder)
    check_pictures(components, folder)
    check_unet_runs(components, told.view_size, layout, folder)
    return Zero123PlusBackend(
        components,
        layout,
        cameras.to(device),
        told.view_size,
        name,
        fingerprint(folder, unet),
        views.rig or "",
    )


def _stable_diffusion(
    name: str, folder: Path, device: torch.device, unet: Path | None, dtype: torch.dtype
) -> StableDiffusionBackend:
    parts = StableDiffusionComponents(**_parts(folder, _STABLE_DIFFUSION_CLASSES, device, dtype, unet))
    check_fit(parts, folder)
    check_words(parts, folder)
    check_schedule(parts.scheduler, folder)
    if not isinstance(side := parts.unet.config.sample_size, int):
        raise InputError(f"{folder / 'unet' / 'config.json'}: sample_size cannot be {side}; it must be a whole number")
    backend = StableDiffusionBackend(parts, name, fingerprint(folder, unet))
    check_unet_runs(parts, backend.view_size, backend.layout, folder)
    return backend


def _tell(backend: Backend, began: float) -> None:
    """A line in the log."""
    views = f"{backend.layout.num_views} views of {backend.view_size} pixels"
    place = f"{backend.precision.dtype} on {backend.device}"
    if backend.device.type == "cpu":
        place += f" with {torch.get_num_threads()} threads"
    took = time.monotonic() - began
    log.info("model %s (%s): %s, %s, loaded in %.1f s", backend.name, backend.fingerprint, views, place, took)


def _parts(
    folder: Path, classes: dict[str, Any], device: torch.device, dtype: torch.dtype, unet: Path | None
) -> dict[str, Any]:
    """The model's parts by name, the UNet with the weights of the file ``unet`` if there is one."""

    def load(name: str, kind: Any) -> Any:
        if name == "unet" and unet is not None:
            return load_unet(folder / name, unet, dtype)
        return load_component(folder / name, name, kind, dtype)

    parts = {}
    for name, kind in classes.items():  # one after the other: main memory never holds more than one of them for a GPU
        part = load(name, kind)
        parts[name] = part.to(device) if isinstance(part, torch.nn.Module) else part
    return parts


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
    if not path.exists():
        raise InputError(f"{folder} is no model folder: it has no model_index.json")
    index = json_of(path, infinite=True)
    if not isinstance(index, dict):
        raise InputError(f"{path} does not describe a model: it must be a JSON object")
    return index


def usable_device(name: str) -> torch.device:
    """The torch device of that name, on which something was computed.

    Raises:
        InputError: it is not to be had here.
    """
    try:
        device = torch.device(resolve_device(name, launched()))
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise InputError(f"device {name!r} is not to be had here: {reason[:200]}") from error
    return device


def device_and_dtype(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """The torch device and dtype of these names; a dtype of ``auto`` is float32 on the CPU and float16 elsewhere.

    Raises:
        InputError: one of them is not to be had here.
    """
    check_dtype(dtype)
    target = usable_device(device)
    return target, dtype_on(target, dtype)


def dtype_on(device: torch.device, name: str) -> torch.dtype:
    """The type of that name; ``auto`` is float32 on the CPU and float16 elsewhere."""
    auto = "float32" if device.type == "cpu" else HALF_TYPES[0]
    found: torch.dtype = getattr(torch, auto if name == AUTO else name)
    return found
