"""What a model looks like, without its weights: published facts by name, or the ``config.json`` files of a folder.

Parameter counts of the named ones are tested against the published ones. Sources: the ``config.json`` files of
``sudo-ai/zero123plus-v1.1`` and ``-v1.2``, ``stable-diffusion-v1-5`` and ``stabilityai/stable-diffusion-2-1``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from keyorbit.diffusion.backends.configurations import (
    PreprocessorConfig,
    SchedulerConfig,
    TextConfig,
    UNetConfig,
    VaeConfig,
    Zero123PlusIndex,
    read_config,
)
from keyorbit.diffusion.backends.folders import index_of, model_folder
from keyorbit.diffusion.choices import layout_numbers
from keyorbit.diffusion.paths import check_architecture
from keyorbit.errors import InputError
from keyorbit.geometry.views import Layout
from keyorbit.storage.content import json_of

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Architecture:
    """The configurations of a model's parts, in the words of their libraries, and its sizes in pixels.

    ``condition_size`` is the side of the input picture that Zero123++'s condition pass reads; a model without one
    (Stable Diffusion) has a single pass.
    """

    name: str
    unet: Config
    vae: Config
    text_encoder: Config
    layout: Layout
    view_size: int
    condition_size: int | None
    prediction_type: str

    @property
    def text_tokens(self) -> int:
        """Rows of the context before the learnable ones."""
        return int(self.text_encoder.get("max_position_embeddings", 77))

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width in pixels of the picture of all views."""
        return self.layout.rows * self.view_size, self.layout.cols * self.view_size

    def build_unet(self, device: str = "meta") -> Any:
        """The UNet; on the meta device shapes without numbers, elsewhere with the library's random weights."""
        with torch.device(device):
            return _frozen(UNet2DConditionModel.from_config(self.unet))

    def build_vae(self) -> Any:
        """The VAE on the meta device."""
        with torch.device("meta"):
            return _frozen(AutoencoderKL.from_config(self.vae))

    def build_text_encoder(self) -> Any:
        """The text encoder on the meta device."""
        with torch.device("meta"):
            return _frozen(CLIPTextModel(CLIPTextConfig(**self.text_encoder)))


_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
_UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
}
# diffusers reads `attention_head_dim` as the number of heads.
_UNET_1 = {**_UNET, "sample_size": 64, "attention_head_dim": 8, "cross_attention_dim": 768}
_UNET_2 = {
    **_UNET,
    "sample_size": 96,
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
_TEXT_1 = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
}
_TEXT_2 = {
    **_TEXT_1,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}
_ZERO = Architecture("zero123plus-v1.2", _UNET_2, _VAE, _TEXT_2, Layout(3, 2), 320, 512, "v_prediction")
_NAMED = (
    _ZERO,
    replace(_ZERO, name="zero123plus-v1.1"),
    Architecture("stable-diffusion-1.5", _UNET_1, _VAE, _TEXT_1, Layout(1, 1), 512, None, "epsilon"),
    Architecture("stable-diffusion-2.1", _UNET_2, _VAE, _TEXT_2, Layout(1, 1), 768, None, "v_prediction"),
)
ARCHITECTURES: Mapping[str, Architecture] = {known.name: known for known in _NAMED}


def load_architecture(model: str | Path, layout: str | None = None) -> Architecture:
    """A model's architecture; reads no weights.

    Args:
        model: a name in :data:`ARCHITECTURES`, ``"tiny"``, a model folder, or a Hub id (of which only the
            JSON files are downloaded).
        layout: rows x columns of a Zero123++'s views, such as ``2x3``. Default None: what its folder tells, else 3 x 2.

    Raises:
        InputError: no such model, a configuration is missing or damaged, the parts are of other classes, or the model
            has a single view and a layout is given.
    """
    found = ARCHITECTURES.get(str(model)) or _of_folder(model)
    if layout is None:
        return found
    if found.condition_size is None:
        raise InputError(f"{model} is a model of a single view, which has no layout")
    return replace(found, layout=Layout(*layout_numbers(layout)))


def _of_folder(model: str | Path) -> Architecture:
    folder = _config_folder(str(model))
    index = index_of(folder)
    unet, vae = _part(folder, "unet", "UNet2DConditionModel"), _part(folder, "vae", "AutoencoderKL")
    text = _read(folder / "text_encoder/config.json")
    _read(folder / "scheduler/scheduler_config.json")
    sizes = read_config(folder / "unet/config.json", UNetConfig)
    factor = 2 ** (len(read_config(folder / "vae/config.json", VaeConfig).block_out_channels) - 1)
    read_config(folder / "text_encoder/config.json", TextConfig)
    _check_fit(folder, unet, vae, text)
    prediction = read_config(folder / "scheduler/scheduler_config.json", SchedulerConfig).prediction_type
    if "ramping_coefficients" in index:
        told = read_config(folder / "model_index.json", Zero123PlusIndex)
        pictures = folder / "feature_extractor_vae/preprocessor_config.json"
        _read(pictures)
        condition = read_config(pictures, PreprocessorConfig).crop_side or 512
        view, layout = told.view_size, Layout(*(told.rows_and_columns or (3, 2)))
    elif isinstance(sizes.sample_size, int):
        view, condition, layout = sizes.sample_size * factor, None, Layout(1, 1)
    else:
        raise InputError(
            f"{folder / 'unet/config.json'}: sample_size cannot be {sizes.sample_size}; it must be a whole number"
        )
    return Architecture(str(model), unet, vae, text, layout, view, condition, prediction)


def _frozen(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False).eval()


def _config_folder(model: str) -> Path:
    check_architecture(model)
    return model_folder(model)


def _part(folder: Path, name: str, expected: str) -> dict[str, Any]:
    config = _read(folder / name / "config.json")
    found = config.get("_class_name", expected)
    if found != expected:
        raise InputError(f"the {name} in {folder} is a {found}; keyorbit inspects models with a {expected}")
    return config


def _check_fit(folder: Path, unet: Config, vae: Config, text: Config) -> None:
    """Refuse models that take more than one text encoder or more than a latent: the UNet could not be run."""
    pairs = (
        ("text_encoder", text.get("hidden_size"), "cross_attention_dim", unet.get("cross_attention_dim")),
        ("vae", vae.get("latent_channels"), "in_channels", unet.get("in_channels")),
    )
    for part, given, name, taken in pairs:
        if given is None or given != taken:
            raise InputError(f"the {part} in {folder} gives {given} channels and the unet's {name} is {taken}")


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(f"the model lacks {path}, which tells its sizes")
    content = json_of(path, infinite=True)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no configuration: it is not a JSON object")
    return content
