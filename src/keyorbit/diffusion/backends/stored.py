"""What lies in the folder of a model's part: its configuration, checked before a library reads it, and its weights."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    UNet2DConditionModel,
)
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import CLIPImageProcessorPil, CLIPTextModel, CLIPVisionModelWithProjection

from keyorbit.diffusion.backends.configurations import (
    PreprocessorConfig,
    SchedulerConfig,
    TextConfig,
    UNetConfig,
    VaeConfig,
    VisionConfig,
    read_config,
)
from keyorbit.diffusion.backends.weight_files import file_names, weight_files
from keyorbit.errors import InputError
from keyorbit.storage.content import json_of, why_no_tensors

_CONFIGS: dict[Any, tuple[str, type]] = {
    UNet2DConditionModel: ("config.json", UNetConfig),
    ControlNetModel: ("config.json", UNetConfig),
    AutoencoderKL: ("config.json", VaeConfig),
    CLIPTextModel: ("config.json", TextConfig),
    CLIPVisionModelWithProjection: ("config.json", VisionConfig),
    CLIPImageProcessorPil: ("preprocessor_config.json", PreprocessorConfig),
    EulerAncestralDiscreteScheduler: ("scheduler_config.json", SchedulerConfig),
    DDIMScheduler: ("scheduler_config.json", SchedulerConfig),
}
_CLASS_FILES = ("config.json", "scheduler_config.json", "preprocessor_config.json", "tokenizer_config.json")
_CLASS_KEYS = ("_class_name", "architectures", "image_processor_type", "feature_extractor_type", "tokenizer_class")


def check_config(path: Path, kind: Any, weights: Path | None = None) -> Any:
    """Read the configuration of the part in the folder ``path``, and check that the weights beside it are of its sizes.

    Args:
        path: the folder.
        kind: the library's class.
        weights: a file in place of the folder's own.

    Returns:
        One of the classes of :mod:`keyorbit.diffusion.backends.configurations`; None where there is no such file.

    Raises:
        InputError: a field holds what it may not, or the weights are too few for it: memory for what it describes is
            never taken.
    """
    name, config_kind = _CONFIGS.get(kind, ("", None))
    if config_kind is None or not (path / name).exists():
        return None  # loading says what is wrong
    config: Any = read_config(path / name, config_kind)
    if not issubclass(kind, nn.Module):
        return config
    files = [weights] if weights else [path / name for name in weight_files(file_names(path)).names]
    stored, needed = sum(map(numbers_in, files)), config.least
    if weights and needed > stored:
        raise InputError(
            f"{weights} holds {stored:,} weights; the network that {path / name} describes has more than {needed:,}: "
            "give a file with all of its weights"
        )
    if files and needed > stored:
        raise InputError(
            f"{path / name} describes a network of more than {needed:,} weights; beside it lie {stored:,}: one of its "
            "sizes is wrong"
        )
    return config


def numbers_in(file: Path) -> int:
    """How many numbers a safetensors file holds, by its header.

    Raises:
        InputError: it is damaged, or no file.
    """
    if not file.is_file():
        raise InputError(f"{file} cannot be loaded: it is no regular file")
    try:
        with safe_open(file, "pt") as stored:
            shapes = [stored.get_slice(key).get_shape() for key in stored.keys()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} cannot be loaded: {why_no_tensors(file, error)}") from error
    return sum(torch.Size(shape).numel() for shape in shapes)


def check_numbers(tensors: Iterable[tuple[str, torch.Tensor]], where: str) -> None:
    """Raise InputError where a weight is not finite; in half precision, where it is NaN."""
    for name, x in tensors:
        if not x.is_floating_point() or x.sum().isfinite():
            continue  # a sum is fast, and any NaN shows in it
        if not (x.isfinite() if x.dtype == torch.float32 else ~x.isnan()).all():
            raise InputError(f"{where} cannot be used: its weights {name} hold numbers that are not finite")


def stored_class(path: Path) -> str | None:
    """The class that a part's own configuration names, if it names one.

    Raises:
        InputError: it cannot be read.
    """
    for name in _CLASS_FILES:
        if not (path / name).exists():
            continue
        config = json_of(path / name, infinite=True)
        for key in _CLASS_KEYS:
            if isinstance(config, dict) and config.get(key):
                found = config[key]
                return str(found[0] if isinstance(found, list) else found)
    return None
