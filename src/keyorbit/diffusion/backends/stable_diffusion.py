"""Stable Diffusion 1.5 and 2.1 as StableKeypoints uses them: one view, the picture itself; no cameras, no 3D.

Hedlin et al. 2024, Unsupervised Keypoints from Pretrained Diffusion Models (github.com/ubc-vision/StableKeypoints).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from keyorbit.diffusion.backends.base import Condition, Precision, Watch, first_parameter
from keyorbit.diffusion.backends.text import check_phrase, encode_phrases, encode_prompts, random_rows
from keyorbit.diffusion.layers import cross_attention_layers
from keyorbit.diffusion.turns import in_turn
from keyorbit.errors import InputError
from keyorbit.geometry.views import Layout
from keyorbit.objects.framing import middle_square
from keyorbit.objects.pictures import on_grey

# StableKeypoints reads the first four cross-attention layers on the way up that have at most 32 × 32 positions.
_NUM_LAYERS = 4
_MOST_POSITIONS = 32**2
_GUIDANCE = 8.5


@dataclass(frozen=True)
class StableDiffusionComponents:
    """The parts of a Stable Diffusion folder that are used, each the library's own class, under its folder name."""

    vae: Any
    unet: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any


class StableDiffusionBackend:
    """A frozen Stable Diffusion, of ε- or v-prediction, that looks at the picture itself with the empty prompt.

    ``view_size`` is the side in pixels that the weights were trained at (512, or 768). The ``fingerprint`` tells two
    sets of weights apart.
    """

    cameras = None
    cameras_of = ""
    has_condition_pass = False
    # The last of 50 DDIM steps as StableKeypoints counts them (0, 20, …, 980): next to no noise.
    default_timestep = 0

    def __init__(self, parts: StableDiffusionComponents, name: str, fingerprint: str = "") -> None:
        self.parts, self.name, self.fingerprint = parts, name, fingerprint
        self.older_fingerprint: Callable[[], str] = str
        self.unet, self.layout = parts.unet, Layout(1, 1)
        self.precision = Precision(str(parts.unet.dtype).removeprefix("torch."))
        width = parts.unet.config.time_cond_proj_dim
        self._guidance = None if width is None else guidance_embedding(width)
        for module in (parts.vae, parts.unet, parts.text_encoder):
            module.requires_grad_(False).eval()

    @property
    def device(self) -> torch.device:
        return first_parameter(self.unet).device

    @property
    def dtype(self) -> torch.dtype:
        return first_parameter(self.unet).dtype

    @property
    def view_size(self) -> int:
        return int(self.unet.config.sample_size) * self._factor

    @property
    def default_layers(self) -> tuple[str, ...]:
        """StableKeypoints' choice; see :func:`first_up_layers`."""
        return first_up_layers(self.unet, self.latent_size(self.view_size, self.view_size))

    @property
    def _factor(self) -> int:
        """Pixels per latent position, along each side."""
        return int(2 ** (len(self.parts.vae.config.block_out_channels) - 1))

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the latent of a picture of that size."""
        return height // self._factor, width // self._factor

    def encode_prompts(self, prompts: Sequence[str]) -> Float[Tensor, "batch text context_width"]:
        """The text encoder's last hidden states, padded to the tokenizer's length (77)."""
        return encode_prompts(self.parts.tokenizer, self.parts.text_encoder, prompts)

    def text_statistics(self, generator: torch.Generator) -> Float[Tensor, "row context_width"]:
        """Context rows of random words: what the model's text embeddings look like."""
        return random_rows(self.parts.tokenizer, self.parts.text_encoder, generator)

    @torch.no_grad()
    def encode_phrases(self, phrases: Sequence[str]) -> Float[Tensor, "phrase context_width"]:
        """One context row for each phrase: the text encoder's last hidden state at the phrase's end.

        Raises:
            InputError: as :func:`keyorbit.diffusion.backends.text.check_phrase`.
        """
        for phrase in phrases:
            check_phrase(self.parts.tokenizer, phrase)
        return encode_phrases(self.parts.tokenizer, self.parts.text_encoder, phrases)

    def generate(
        self,
        images: Sequence[Image.Image],
        generator: torch.Generator | Sequence[torch.Generator],
        *,
        watch: Watch | None = None,
    ) -> Float[Tensor, "batch 3 height width"]:
        """The middle square of each picture at the model's size, 0…1: nothing is generated, nothing is drawn.

        Transparency becomes grey 127.
        """
        return torch.stack([_square(image, self.view_size) for image in images])

    def encode_condition(self, images: Sequence[Image.Image]) -> Condition:
        """The empty prompt for each picture, and a latent without channels: there is no condition pass."""
        return self.empty_condition(len(images))

    def empty_condition(self, count: int) -> Condition:
        """The same as of any picture: the empty prompt."""
        context = self.encode_prompts([""]).expand(count, -1, -1)
        return Condition(context.new_zeros(count, 0, 1, 1), context)

    def encode_images(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch channel latent_height latent_width"]:
        """Pictures (0…1) as the latents that the UNet denoises: the VAE's mean, times its scaling factor."""
        pixels = images.to(self.device, self.dtype) * 2 - 1
        mean: Tensor = self.parts.vae.encode(pixels).latent_dist.mean
        latents: Tensor = mean * self.parts.vae.config.scaling_factor
        return latents

    def decode(
        self, latents: Float[Tensor, "batch channel latent_height latent_width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Pictures (0…1, float32) from latents; the inverse of :meth:`encode_images`."""
        scaled = latents.to(self.dtype) / self.parts.vae.config.scaling_factor
        pixels: Tensor = self.parts.vae.decode(scaled, return_dict=False)[0]
        return (pixels.float() / 2 + 0.5).clamp(0, 1)

    def add_noise(self, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """DDIM's noising, sqrt(ᾱ) x + sqrt(1 - ᾱ) ε; ``timestep [batch]``."""
        noised: Tensor = self.parts.scheduler.add_noise(latents, noise, timestep.long())
        return noised

    @in_turn
    def denoise(
        self,
        latents: Float[Tensor, "batch channel height width"],
        timestep: Tensor,
        context: Float[Tensor, "batch all context_width"],
        condition_latent: Tensor | None = None,
        condition_noise: Tensor | None = None,
    ) -> Float[Tensor, "batch channel height width"]:
        """The UNet's prediction, ε or v as its scheduler says; ``clean_latents`` understands both.

        Args:
            latents: the noised picture.
            timestep: ``[batch]`` or a scalar, 0…999.
            context: text rows, with learnable tokens behind them if attention is being captured.
            condition_latent: not looked at, and neither is ``condition_noise``: for models with a condition pass.
        """
        told = {} if self._guidance is None else {"timestep_cond": self._guidance.to(latents)}
        prediction: Tensor = self.unet(latents, timestep.to(latents.device), context, **told).sample
        return prediction

    def clean_latents(self, latents: Tensor, prediction: Tensor, timestep: int) -> Tensor:
        """What the UNet takes to lie below the noise: x₀ from the noised latents and the prediction for them.

        Raises:
            InputError: the scheduler's prediction type is none of ε, v and x₀.
        """
        alpha: Tensor = self.parts.scheduler.alphas_cumprod[timestep].to(latents)
        kind = self.parts.scheduler.config.prediction_type
        if kind == "epsilon":
            return (latents - (1 - alpha).sqrt() * prediction) / alpha.sqrt()
        if kind == "v_prediction":
            return alpha.sqrt() * latents - (1 - alpha).sqrt() * prediction
        if kind == "sample":
            return prediction
        raise InputError(f"the scheduler of {self.name} predicts {kind!r}: it must be epsilon, v_prediction or sample")


def guidance_embedding(width: int) -> Float[Tensor, "1 width"]:
    """What a latent consistency model is told of the guidance that it imitates, for 8.5, diffusers' default for it.

    Luo et al. 2023, Latent Consistency Models; w is one less, and the model was trained with nothing near 0.
    """
    half = width // 2
    angles = 1000 * (_GUIDANCE - 1) * torch.logspace(0, -4, half)
    return torch.cat([angles.sin(), angles.cos(), torch.zeros(width % 2)])[None]


def first_up_layers(
    unet: nn.Module, latent: tuple[int, int], count: int = _NUM_LAYERS, most_positions: int = _MOST_POSITIONS
) -> tuple[str, ...]:
    """Names of the first ``count`` cross-attention layers on the way up of at most ``most_positions`` positions.

    For Stable Diffusion 1.5 at 512 pixels: three layers of 16 × 16 and one of 32 × 32. ``latent`` is (height, width).
    The last up block works at the latent's size, each one before it at half of the next.

    Raises:
        InputError: the UNet has no such layer.
    """
    blocks = len(unet.up_blocks)  # type: ignore[arg-type]
    found = []
    for name in cross_attention_layers(unet, "up_blocks.*"):
        halvings = blocks - 1 - int(name.split(".")[1])
        height, width = (-(-side // 2**halvings) for side in latent)
        if height * width <= most_positions:
            found.append(name)
    if not found:
        raise InputError(f"no cross-attention layer of the up blocks has {most_positions} positions or fewer")
    return tuple(found[:count])


def _square(image: Image.Image, side: int) -> Float[Tensor, "3 side side"]:
    """The middle square of a picture on grey, resized, 0…1."""
    rgb = on_grey(image)
    resized = rgb.resize((side, side), Image.Resampling.BICUBIC, box=middle_square(rgb))
    return torch.from_numpy(np.asarray(resized, np.float32) / 255).permute(2, 0, 1)
