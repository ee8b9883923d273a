"""Select which of a model's weights learn, and write them: as a model folder, and as a LoRA file."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE

from keyorbit.diffusion.backends.known_cameras import index_with_views
from keyorbit.diffusion.backends.loading import source_folder
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.errors import InputError
from keyorbit.storage.checkpoint import order_header
from keyorbit.storage.content import json_of
from keyorbit.storage.outputs import replaced_folder
from keyorbit.training.choices import LORA, MODEL
from keyorbit.training.config import Lora, TrainConfig

_ADAPTER = "default"


@contextmanager
def learning(backend: Zero123PlusBackend, config: TrainConfig) -> Iterator[None]:
    """Within the ``with`` block, let the UNet's weights that ``config.train`` names require a gradient.

    A LoRA is added for it and merged at the end, so that the UNet has the same modules again as when it was loaded.

    Raises:
        InputError: peft is not installed, or the LoRA's layers are not in this UNet.
    """
    unet = backend.unet
    if config.train == "full":
        unet.requires_grad_(True)
    elif config.train == "lora":
        _add_lora(unet, config.lora, config.seed)
    if config.checkpointing:
        unet.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if config.train == "lora":
            unet.fuse_lora()
            unet.unload_lora()
        unet.disable_gradient_checkpointing()
        unet.requires_grad_(False)


def save_lora(unet: Any, folder: Path) -> None:
    """Write the adapters as ``pytorch_lora_weights.safetensors``, for diffusers' ``pipe.load_lora_weights(folder)``.

    Raises:
        InputError: the folder holds other files than those of an earlier call, which are replaced.
    """
    from peft.utils import get_peft_model_state_dict

    layers = get_peft_model_state_dict(unet, adapter_name=_ADAPTER)
    metadata = unet.peft_config[_ADAPTER].to_dict()
    metadata["target_modules"] = sorted(metadata["target_modules"])  # a set, and so in another order each time
    layers = {key: value.cpu().contiguous() for key, value in layers.items()}
    with replaced_folder(folder, LORA, overwrite=True) as partial:
        StableDiffusionLoraLoaderMixin.save_lora_weights(partial, layers, unet_lora_adapter_metadata=metadata)
        order_header(partial / LORA_WEIGHT_NAME_SAFE)


def save_model(backend: Zero123PlusBackend, folder: Path) -> None:
    """Write the whole model with the UNet as it is now, in the layout from which it was loaded.

    The weights of the other parts are hard links to the files from which the model was loaded, where the file system
    allows it.

    Raises:
        InputError: the folder holds other files than those of an earlier call, which are replaced.
    """
    source = source_folder(backend.name)
    read = json_of(source / "model_index.json")
    index = index_with_views(read, source, backend.layout, backend.cameras, backend.cameras_of)
    with replaced_folder(folder, MODEL, overwrite=True) as partial:
        for part in sorted(path for path in source.iterdir() if path.is_dir() and path.name in index):
            if part.name != "unet":
                shutil.copytree(part, partial / part.name, copy_function=_link)
        backend.unet.save_pretrained(partial / "unet")
        (partial / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _add_lora(unet: Any, lora: Lora, seed: int) -> None:
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise InputError("training LoRA needs peft: pip install 'keyorbit[train]', or train tokens or full") from error
    settings = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.layers), init_lora_weights=False)
    try:
        # peft draws from the global generator: it is put back, and its numbers are not used.
        with torch.random.fork_rng(devices=[]):
            unet.add_adapter(settings, _ADAPTER)
    except ValueError as error:
        raise InputError(f"no LoRA can be put on the UNet's {', '.join(lora.layers)}: {error}") from error
    generator = torch.Generator().manual_seed(seed)
    for name, p in unet.named_parameters():
        if "lora_A" in name:  # uniform within 1/sqrt(inputs), as peft and a linear layer of torch begin
            start = (2 * torch.rand(p.shape, generator=generator) - 1) / p.shape[1] ** 0.5
            p.data.copy_(start)
        elif "lora_B" in name:
            p.data.zero_()


def _link(source: str, target: str) -> None:
    """Link weights, so that they are on the disk only once; copy files that people may edit."""
    if source.endswith(".safetensors"):
        with suppress(OSError):
            # A Hub snapshot's files are links themselves.
            os.link(os.path.realpath(source), target)
            return
    shutil.copyfile(source, target)
