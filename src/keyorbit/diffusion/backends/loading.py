"""From a model's name to a backend: the shipped tiny model, a folder, a checkpoint, or a Hub id; safetensors only."""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPImageProcessorPil, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from keyorbit.devices import AUTO, usable_device
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.backends.checkpoints import configuration_folder, stored_text_encoder
from keyorbit.diffusion.backends.components import load_component, load_controlnet, load_stored, load_unet
from keyorbit.diffusion.backends.configurations import Zero123PlusIndex
from keyorbit.diffusion.backends.fingerprint import fingerprint, fingerprint_of, older_fingerprint
from keyorbit.diffusion.backends.fit import (
    check_fit,
    check_kind,
    check_pictures,
    check_schedule,
    check_unet_runs,
    check_words,
)
from keyorbit.diffusion.backends.folders import index_of, model_folder
from keyorbit.diffusion.backends.known_cameras import rig_cameras, views_of
from keyorbit.diffusion.backends.stable_diffusion import StableDiffusionBackend, StableDiffusionComponents
from keyorbit.diffusion.backends.zero123plus import Components, Zero123PlusBackend
from keyorbit.diffusion.choices import FROM_FOLDER, ViewChoice, check_dtype
from keyorbit.diffusion.model_facts import file_mark
from keyorbit.diffusion.model_places import check_there
from keyorbit.diffusion.paths import check_model
from keyorbit.diffusion.precision import HALF_TYPES, Loaded, load_settled
from keyorbit.diffusion.rig_choice import check_rig, check_rig_of
from keyorbit.diffusion.tokens import Tokens
from keyorbit.diffusion.tokens_info import TokensInfo
from keyorbit.errors import InputError
from keyorbit.geometry.views import Layout
from keyorbit.ranks import launched
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
        InputError: it is not where the tokens say, or does not load.
    """
    if model is None:
        check_there(tokens.info.model, tokens.info.model_fingerprint)
    views, name = views_of_tokens(tokens.info, views), model or tokens.info.model or "tiny"
    return load_backend(name, device, dtype, unet, rig=views.rig, compile=compile, layout=views.layout)


def views_of_tokens(info: TokensInfo, views: ViewChoice = FROM_FOLDER) -> ViewChoice:
    """The layout and the cameras that are chosen, and those that tokens were found with where nothing is.

    Raises:
        InputError: these cameras are in a file that is not there any more, or that was changed since.
    """
    if views.rig is None and info.cameras_of:
        check_rig_of(info.cameras_of)
        there = file_mark(info.cameras_of, rig_cameras(info.cameras_of)) if info.cameras_mark else ""
        if there != info.cameras_mark:
            raise InputError(
                f"these tokens were discovered with other cameras than are in {info.cameras_of} now: give a file of "
                "those, or this one if it is what you want, --rig FILE.json (rig=)"
            )
    return views.over(info.cameras_of, info.layout)


def load_backend(
    model: str | Path = "tiny",
    device: str = AUTO,
    dtype: str | torch.dtype = AUTO,
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
            Diffusion 1.5 or 2.1, or a Hub id. Weights of the ``fp16`` variant are taken where there are no others. Or
            a checkpoint of Stable Diffusion 1 or 2 in one safetensors file: sizes, schedule and tokenizer are those of
            the model's folder in which it lies, or else of the published model of its kind, from the Hub.
        device: where it runs, such as ``"cpu"`` or ``"cuda"``; given here once. ``"auto"`` is a CUDA GPU if there is
            one, else Apple's, else the CPU.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``, also short (``"bf16"``) or torch's own; attention maps
            and losses are float32 always. ``"auto"`` is float32 on the CPU; on a GPU it is half precision if that keeps
            the model's maps, which is measured here: see :mod:`keyorbit.diffusion.precision`. The backend's
            ``precision`` tells what was chosen.
        unet: a safetensors file with other weights for the UNet, such as InstantMesh's for white backgrounds; by
            diffusers' names or the original ones.
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
    folder = source_folder(str(model), own_unet=unet is None)
    target, kind = device_and_dtype(device, dtype)
    index, other, began = index_of(folder), None if unet is None else Path(unet), time.monotonic()
    load: Callable[[torch.dtype], Loaded]
    if "ramping_coefficients" in index:
        load = partial(_zero123plus, str(model), folder, index, target, other, chosen)
    else:
        check_kind(index, folder)
        if controlnet is not None:
            raise InputError(f"{folder} is a Stable Diffusion model; a ControlNet is for Zero123++ models only")
        if chosen != FROM_FOLDER:
            raise InputError(f"{folder} is a Stable Diffusion model of a single view, which has no cameras or layout")
        if compile:
            raise InputError(f"{folder} is a Stable Diffusion model, which generates no views: leave compile out")
        load = partial(_stable_diffusion, str(model), folder, target, other)
    backend = load(kind) if dtype != AUTO or target.type == "cpu" else load_settled(load)
    if isinstance(backend, Zero123PlusBackend) and controlnet is not None:
        backend.add_controlnet(load_controlnet(_controlnet_folder(str(controlnet)), backend.dtype))
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
    backend = Zero123PlusBackend(
        components,
        layout,
        cameras.to(device),
        told.view_size,
        name,
        fingerprint(folder, unet),
        views.rig or "",
    )
    backend.older_fingerprint = partial(older_fingerprint, folder, unet)
    return backend


def _stable_diffusion(
    name: str, folder: Path, device: torch.device, unet: Path | None, dtype: torch.dtype
) -> StableDiffusionBackend:
    file = _checkpoint(name)
    parts = StableDiffusionComponents(**_parts(folder, _STABLE_DIFFUSION_CLASSES, device, dtype, unet, file))
    check_fit(parts, folder)
    check_words(parts, folder)
    check_schedule(parts.scheduler, folder)
    if not isinstance(side := parts.unet.config.sample_size, int):
        raise InputError(f"{folder / 'unet' / 'config.json'}: sample_size cannot be {side}; it must be a whole number")
    mark = fingerprint(folder, unet) if file is None else _checkpoint_fingerprint(folder, file, unet)
    backend = StableDiffusionBackend(parts, name, mark)
    if file is None:
        backend.older_fingerprint = partial(older_fingerprint, folder, unet)
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
    folder: Path,
    classes: dict[str, Any],
    device: torch.device,
    dtype: torch.dtype,
    unet: Path | None,
    file: Path | None = None,
) -> dict[str, Any]:
    """The model's parts by name; with the weights of a checkpoint, and the UNet with those of the file ``unet``."""

    def load(name: str, kind: Any) -> Any:
        if name == "unet" and unet is not None:
            return load_unet(folder / name, unet, dtype)
        if file is not None and name in ("unet", "vae"):
            return load_stored(folder / name, name, kind, file, dtype)
        if file is not None and name == "text_encoder":
            return stored_text_encoder(folder / name, file, dtype)
        return load_component(folder / name, name, kind, dtype)

    parts = {}
    for name, kind in classes.items():  # one after the other: main memory never holds more than one of them for a GPU
        part = load(name, kind)
        parts[name] = part.to(device) if isinstance(part, torch.nn.Module) else part
    return parts


def model_fingerprint(model: str | Path) -> str:
    """The fingerprint that the loaded model would have.

    Raises:
        InputError: there is no such model.
    """
    folder = source_folder(str(model))
    file = _checkpoint(str(model))
    return fingerprint(folder) if file is None else _checkpoint_fingerprint(folder, file, None)


def _checkpoint_fingerprint(folder: Path, file: Path, unet: Path | None) -> str:
    """The fingerprint of a checkpoint of one file, which is that of a folder with the same weights.

    Its names are another library's, so its parts are loaded, in the type that counts.
    """
    classes = {name: kind for name, kind in _STABLE_DIFFUSION_CLASSES.items() if issubclass(kind, torch.nn.Module)}
    parts = _parts(folder, classes, torch.device("cpu"), torch.float16, unet, file)
    return fingerprint_of({name: part.state_dict() for name, part in parts.items()})


def source_folder(model: str, own_unet: bool = True) -> Path:
    """Where the files of the model of that name are, fetched if need be; see :func:`load_backend`.

    Of a checkpoint of one file it is the folder with its configuration.

    Args:
        model: its name.
        own_unet: whether the weights of its own UNet are wanted. Default True.

    Raises:
        InputError: it is of no kind that can be used, or not to be had; of another kind no weights are fetched.
    """
    if (file := _checkpoint(model)) is not None:
        check_model(model)
        return configuration_folder(file, list(_STABLE_DIFFUSION_CLASSES))
    return model_folder(model, parts_of(model_folder(model)) | ({} if own_unet else {"unet": False}))


def parts_of(folder: Path) -> dict[str, bool]:
    """The parts that are loaded of a model's folder, and whether each of them has weights.

    Raises:
        InputError: the folder holds no model of a kind that can be used.
    """
    classes = _classes(index_of(folder), folder)
    return {name: issubclass(kind, torch.nn.Module) for name, kind in classes.items()}


def _checkpoint(model: str) -> Path | None:
    """The file, where a model is a checkpoint of one."""
    return path if (path := Path(model)).is_file() else None


def _controlnet_folder(model: str) -> Path:
    return model_folder(model, {"": True}, "config.json")


def _classes(index: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The classes of the parts that are loaded, by what ``model_index.json`` says.

    Raises:
        InputError: it describes a model of another kind.
    """
    if "ramping_coefficients" in index:
        return _CLASSES
    check_kind(index, folder)
    return _STABLE_DIFFUSION_CLASSES


def device_and_dtype(device: str, dtype: str | torch.dtype) -> tuple[torch.device, torch.dtype]:
    """The torch device and dtype of these names; a dtype of ``auto`` is float32 on the CPU and float16 elsewhere.

    Raises:
        InputError: one of them is not to be had here.
    """
    name = check_dtype(dtype)
    target = usable_device(device, launched())
    return target, dtype_on(target, name)


def dtype_on(device: torch.device, name: str) -> torch.dtype:
    """The type of that name; ``auto`` is float32 on the CPU and float16 elsewhere."""
    auto = "float32" if device.type == "cpu" else HALF_TYPES[0]
    found: torch.dtype = getattr(torch, auto if name == AUTO else name)
    return found
