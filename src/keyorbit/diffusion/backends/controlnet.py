"""A ControlNet beside Zero123++'s UNet: depth maps steer the views (v1.1), or views become normal maps (v1.2).

As in the published pipeline (github.com/SUDO-AI-3D/zero123plus, diffusers-support/pipeline.py), it runs with the grid
pass only and sees no reference: its residuals are added to the UNet's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from keyorbit.errors import InputError


@dataclass(frozen=True)
class Control:
    """What the ControlNet sees, -1…1 in pixels of the whole grid, and how much its residuals weigh.

    One picture serves a batch of any size.
    """

    pixels: Float[Tensor, "control 3 pixel_height pixel_width"]
    scale: float = 1.0

    @classmethod
    def from_pictures(cls, pictures: Sequence[Image.Image], size: tuple[int, int], scale: float) -> "Control":
        """RGB pictures of ``size`` (height, width) as they are; nothing is resized.

        Raises:
            InputError: a picture has another size.
        """
        for picture in pictures:
            if picture.size != (size[1], size[0]):
                raise InputError(
                    f"a control picture of {picture.width}x{picture.height} pixels does not fit a grid of "
                    f"{size[1]}x{size[0]}: it shows all views, at the size that is generated"
                )
        stack = torch.stack([torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8) for p in pictures])
        pixels = rearrange(stack, "b (h w c) -> b c h w", h=size[0], w=size[1], c=3)
        return cls(pixels.float() / 127.5 - 1, scale)

    def repeat(self, count: int, halves: int) -> "Control":
        """Each picture ``count`` times in a row, and all that ``halves`` times; a single one stays single."""
        if len(self.pixels) == 1:
            return self
        return Control(self.pixels.repeat_interleave(count, 0).repeat(halves, 1, 1, 1), self.scale)


def residuals(
    controlnet: Any,
    control: Control,
    latents: Float[Tensor, "batch channel height width"],
    timestep: Tensor,
    text: Float[Tensor, "batch text context_width"],
) -> dict[str, Any]:
    """The arguments with which a diffusers UNet adds what the ControlNet says."""
    pixels = control.pixels.to(latents.device, latents.dtype)
    down, middle = controlnet(latents, timestep, text, pixels, conditioning_scale=control.scale, return_dict=False)
    return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


def check_controlnet(controlnet: Any, unet: Any, factor: int) -> None:
    """Raise InputError unless the ControlNet's residuals fit the UNet; ``factor`` is pixels per latent position."""
    shared = ("in_channels", "cross_attention_dim", "block_out_channels", "layers_per_block")
    pairs = {key: (_plain(controlnet.config[key]), _plain(unet.config[key])) for key in shared}
    pairs["dtype"] = controlnet.dtype, unet.dtype
    # Its picture is halved once less often than there are channel counts.
    pairs["pixels per latent position"] = 2 ** (len(controlnet.config.conditioning_embedding_out_channels) - 1), factor
    wrong = [f"{key} {own}, not {unets}" for key, (own, unets) in pairs.items() if own != unets]
    if wrong:
        raise InputError(f"the ControlNet does not fit the model's UNet: it has {'; '.join(wrong)}")


def _plain(value: Any) -> Any:
    """JSON configurations have lists where fresh ones have tuples."""
    return tuple(value) if isinstance(value, list) else value
