"""Checkpoints of one file, in the layout of the original Stable Diffusion.

Sizes, schedule and tokenizer, which such a file has not, are those of a folder; diffusers converts the names.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import (
    DIFFUSERS_DEFAULT_PIPELINE_PATHS,
    create_diffusers_clip_model_from_ldm,
    infer_diffusers_model_type,
)
from safetensors import SafetensorError, safe_open
from transformers import CLIPTextModel

from keyorbit.diffusion.backends.folders import INDEX, index_of, model_folder
from keyorbit.diffusion.backends.original_names import PREFIXES
from keyorbit.diffusion.backends.stored import check_config, check_numbers
from keyorbit.errors import InputError, first_line, memory_shortage
from keyorbit.storage.content import why_no_tensors

# What early merges of checkpoints have without the word between.
_OLD_TEXT = re.compile(r"^(cond_stage_model\.transformer\.)((?:embeddings|encoder|final_layer_norm)\.)")


def configuration_folder(file: Path, parts: Sequence[str]) -> Path:
    """The folder that describes a checkpoint's parts, and has the tokenizer.

    It is the one in which the file lies, if that is a model's; else the configurations of the published model of its
    kind, from the Hub.

    Args:
        file: the checkpoint.
        parts: the folders that are wanted; no weights of them are.

    Raises:
        InputError: the file is damaged or no checkpoint of a Stable Diffusion, or nothing describes it.
    """
    kind = _kind(file)
    if (file.parent / INDEX).is_file():
        if "ramping_coefficients" in index_of(file.parent):
            raise InputError(
                f"{file} lies in the folder of a Zero123++, which is no model of one file: give {file.parent}"
            )
        return file.parent
    name = DIFFUSERS_DEFAULT_PIPELINE_PATHS[kind]["pretrained_model_name_or_path"]
    try:
        return model_folder(name, dict.fromkeys(parts, False))
    except InputError as error:
        raise InputError(
            f"{file} has weights, but neither a tokenizer nor sizes: put it into a model's folder beside {INDEX} "
            f"(those of {name} would do): {error}"
        ) from error


def _kind(file: Path) -> str:
    """Which Stable Diffusion it is, by diffusers' word, from the names and sizes of its weights."""
    try:
        with safe_open(file, "pt") as stored:
            shapes = {key: stored.get_slice(key).get_shape() for key in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} cannot be loaded: {why_no_tensors(file, error)}") from error
    try:
        kind = str(
            infer_diffusers_model_type({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
        )
    except Exception:  # of a model that diffusers does not know, whatever its names make of that
        kind = "unknown"
    if kind not in ("v1", "v2"):
        raise InputError(f"{file} is a checkpoint of the kind {kind}; give one of Stable Diffusion 1 or 2, or a folder")
    if lacking := [part for part, prefix in PREFIXES.items() if not any(key.startswith(prefix) for key in shapes)]:
        raise InputError(
            f"{file} is no checkpoint of a whole Stable Diffusion: it lacks {', '.join(lacking)}; weights of a UNet "
            "alone are for --unet, beside a --model"
        )
    return kind


def stored_text_encoder(folder: Path, file: Path, dtype: torch.dtype) -> Any:
    """The text encoder that ``folder`` describes, with a checkpoint's weights.

    Raises:
        InputError: the checkpoint is damaged, or has another one.
    """
    where = f"the text_encoder in {folder} with the weights of {file}"
    check_config(folder, CLIPTextModel, file)
    try:
        with safe_open(file, "pt") as stored:
            own = [key for key in stored.keys() if key.startswith(PREFIXES["text_encoder"])]  # noqa: SIM118
            weights = {_OLD_TEXT.sub(r"\1text_model.\2", key): stored.get_tensor(key) for key in own}
        module = create_diffusers_clip_model_from_ldm(
            CLIPTextModel, weights, config=str(folder), torch_dtype=dtype, local_files_only=True
        )
        lacking = [name for name, weight in module.named_parameters() if weight.is_meta]
    except Exception as error:
        if memory_shortage(error):
            raise
        raise InputError(f"{where} cannot be loaded: {first_line(error)}") from error
    if lacking:
        raise InputError(f"{where} cannot be loaded: it lacks {lacking[0]}")
    check_numbers(module.state_dict().items(), where)
    return module
