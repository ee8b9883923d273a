"""Weights by the names of the original Stable Diffusion, converted to diffusers' by its own functions."""

from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

# What stands before the names of a part in a checkpoint of one file.
PREFIXES = {"unet": "model.diffusion_model.", "vae": "first_stage_model.", "text_encoder": "cond_stage_model."}
_CONVERTERS = {"unet": convert_ldm_unet_checkpoint, "vae": convert_ldm_vae_checkpoint}
# What training scripts and torch.compile leave before all names of a UNet, also one before the other.
_LEFT = ("unet.", "module.", "_orig_mod.")
# InstantMesh's training has its UNet under these names, beside the rest of its pipeline.
_TRAINED = "unet.unet."


def state_dict_of(stored: Any, what: str, config: Any) -> dict[str, torch.Tensor]:
    """The weights of a part in an open file, by diffusers' names: the UNet, or the VAE.

    Args:
        stored: an open safetensors file.
        what: ``"unet"`` or ``"vae"``.
        config: of the part.
    """
    keys, prefix = list(stored.keys()), PREFIXES[what]
    if own := [key for key in keys if key.startswith(prefix)]:
        return dict(_CONVERTERS[what]({key: stored.get_tensor(key) for key in own}, config))
    if "input_blocks.0.0.weight" in keys:
        return dict(_CONVERTERS[what]({prefix + key: stored.get_tensor(key) for key in keys}, config))
    keys = [key for key in keys if key.startswith(_TRAINED)] or keys
    left = ""
    while word := next((word for word in _LEFT if all(key.startswith(left + word) for key in keys)), ""):
        left += word
    return {key.removeprefix(left): stored.get_tensor(key) for key in keys}
