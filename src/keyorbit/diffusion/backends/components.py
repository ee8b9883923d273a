"""A model's parts from disk: the right class, complete, fitting each other, and never from a pickle."""

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import ControlNetModel, ModelMixin, SchedulerMixin, UNet2DConditionModel
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
from safetensors import safe_open
from transformers import CLIPImageProcessorPil, CLIPTokenizer

from keyorbit.diffusion.backends.original_names import state_dict_of
from keyorbit.diffusion.backends.stored import check_config, check_numbers, stored_class
from keyorbit.diffusion.backends.weight_files import file_names, pickles, weight_files
from keyorbit.diffusion.paths import check_unet
from keyorbit.errors import InputError, first_line, memory_shortage
from keyorbit.storage.content import stand_in

_OTHER_NAMES = {
    CLIPImageProcessorPil: {"CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPFeatureExtractor"},
    CLIPTokenizer: {"CLIPTokenizerFast"},
}


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep the libraries from drawing bars for parts that lie on the disk: they take a moment, and are not ours."""
    libraries, hub_shows = (transformers.utils.logging, diffusers.utils.logging), not are_progress_bars_disabled()
    shown = [one for one in libraries if one.is_progress_bar_enabled()]
    for one in shown:
        one.disable_progress_bar()
    try:
        yield
    finally:
        for one in shown:
            one.enable_progress_bar()
        if not hub_shows:  # which transformers' switch turns too
            disable_progress_bars()


def load_component(path: Path, what: str, kind: Any, dtype: torch.dtype) -> Any:
    """One part of a model folder, as the library's class ``kind``.

    Raises:
        InputError: it is missing, damaged, incomplete, stored as a pickle only, or of another class.
    """
    if not path.is_dir():
        raise InputError(f"the model in {path.parent} lacks its {what}: there is no folder {path}")
    if issubclass(kind, SchedulerMixin):
        return _scheduler(path, what, kind)
    _check_class(path, what, kind)
    check_config(path, kind)
    kwargs: dict[str, Any] = {}
    if issubclass(kind, torch.nn.Module):
        library_key, variant = "torch_dtype" if issubclass(kind, ModelMixin) else "dtype", _variant(path, what)
        kwargs = {"use_safetensors": True, "output_loading_info": True, "variant": variant, library_key: dtype}
    try:
        with without_bars():
            loaded = kind.from_pretrained(path, **kwargs)
    except BaseException as error:  # the libraries raise whatever they meet in a damaged file, also Rust's panics
        if isinstance(error, KeyboardInterrupt | SystemExit) or memory_shortage(error):
            raise
        said = next(filter(None, map(stand_in, sorted(path.iterdir()))), _said(error))
        raise InputError(f"the {what} in {path} cannot be loaded: {said}") from error
    if not kwargs:
        return loaded
    component, info = loaded
    if info["missing_keys"]:
        raise InputError(f"the {what} in {path} lacks {_some(info['missing_keys'])}")
    check_numbers(component.state_dict().items(), f"the {what} in {path}")
    return component


def load_unet(folder: Path, file: Path, dtype: torch.dtype) -> Any:
    """The UNet that ``folder`` describes, with the weights of a separately stored state dict.

    InstantMesh's UNet for white backgrounds comes like this (huggingface.co/TencentARC/InstantMesh). Names may be
    diffusers' own, or those of the original Stable Diffusion, as in a checkpoint of one file.

    Raises:
        InputError: the file is missing, damaged or no safetensors file, or its weights are not this UNet's.
    """
    check_unet(file)
    return load_stored(folder, "unet", UNet2DConditionModel, file, dtype)


def load_stored(folder: Path, what: str, kind: Any, file: Path, dtype: torch.dtype) -> Any:
    """The UNet or VAE that ``folder`` describes, with weights of a file; errors are those of :func:`load_unet`."""
    _check_class(folder, what, kind)
    check_config(folder, kind, file)
    try:
        # Without memory until the weights are put in.
        with torch.device("meta"):
            module = kind.from_config(kind.load_config(folder))
        with safe_open(file, "pt") as stored:
            weights = state_dict_of(stored, what, module.config)
            wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
            _check_weights(file, what, {key: tuple(value.shape) for key, value in weights.items()}, wanted)
            module.load_state_dict({key: value.to(dtype).contiguous() for key, value in weights.items()}, assign=True)
    except InputError:
        raise
    except Exception as error:  # as above
        if memory_shortage(error):
            raise
        raise InputError(
            f"the {what} in {folder} with the weights of {file} cannot be loaded: {first_line(error)}"
        ) from error
    check_numbers(module.state_dict().items(), f"the {what} in {folder} with the weights of {file}")
    return module


def load_controlnet(folder: Path, dtype: torch.dtype) -> Any:
    """A ControlNet stored in the layout of ``sudo-ai/controlnet-zp11-depth-v1``.

    Raises:
        InputError: the folder is not that of one network, or as :func:`load_component`.
    """
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} holds no ControlNet: one has a config.json, and its weights beside that")
    return load_component(folder, "ControlNet", ControlNetModel, dtype)


def _scheduler(path: Path, what: str, kind: Any) -> Any:
    """The folder's scheduler as one of the class ``kind``, with the noise schedule that it has in its own class.

    Classes differ in what they take for a beta that the folder leaves out.
    """
    name = stored_class(path) or kind.__name__
    own = getattr(diffusers, name, None)
    if not (isinstance(own, type) and issubclass(own, SchedulerMixin)):  # also: one that needs what is not installed
        _check_class(path, what, kind)
        own = kind
    known, told = _parameters(own), check_config(path, kind)
    if "beta_start" not in known or "snr_shift_scale" in known or (told and told.use_flow_sigmas):
        raise InputError(
            f"the {what} in {path} is a {name}, whose noise is not told by betas as Stable Diffusion's is: models of "
            "flow matching and their like cannot be used"
        )
    try:
        stored = {**known, **kind.load_config(path)}
        return kind.from_config({name: stored[name] for name in _parameters(kind) if name in stored})
    except Exception as error:
        raise InputError(f"the {what} in {path} cannot be loaded: {first_line(error)}") from error


def _parameters(kind: Any) -> dict[str, Any]:
    return {name: one.default for name, one in signature(kind).parameters.items()}


def _check_class(path: Path, what: str, kind: Any) -> None:
    found = stored_class(path)
    known = {kind.__name__, *getattr(kind, "_compatibles", ()), *_OTHER_NAMES.get(kind, ())}
    if found is not None and found not in known:
        raise InputError(f"the {what} in {path} is a {found}, not a {kind.__name__}")


def _variant(path: Path, what: str) -> str | None:
    """That of the weights which are loaded, such as ``"fp16"``; raises InputError where there are none."""
    weights = weight_files(names := file_names(path))
    if weights.names:
        return weights.variant
    if found := pickles(names):
        raise InputError(
            f"{path} holds its weights as the pickle {found[0]} only, and pickles are never opened: convert the model "
            f"with 'keyorbit convert {path.parent if (path.parent / 'model_index.json').exists() else path} NEW'"
        )
    other = [name for name in names if name.endswith(".safetensors") and not name.startswith(".")]
    found_there = f"; there are {_some(other)}" if other else ""
    raise InputError(
        f"the {what} in {path} lacks its weights, or some of their shards: they must be .safetensors files, named as "
        f"diffusers and transformers name them{found_there}"
    )


def _check_weights(
    file: Path, what: str, found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]
) -> None:
    complaints = []
    if missing := wanted.keys() - found.keys():
        complaints.append(f"lacks {_some(missing)}")
    if unexpected := found.keys() - wanted.keys():
        complaints.append(f"has besides {_some(unexpected)}")
    if other := [key for key in wanted.keys() & found.keys() if found[key] != wanted[key]]:
        complaints.append(f"has other shapes for {_some(other)}")
    if complaints:
        raise InputError(f"the state dict {file} is not of this model's {what}: it {'; it '.join(complaints)}")


def _said(error: BaseException) -> str:
    """What a library says of a part, without its advice on its own options."""
    return first_line(error).partition(". If you want to instead")[0]


def _some(keys: Any) -> str:
    """The first few of the names, and how many there are."""
    names = sorted(keys)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
