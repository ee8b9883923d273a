"""Zero123++ on current diffusers: one picture of an object becomes a grid of six consistent views.

Follows the published pipeline (github.com/SUDO-AI-3D/zero123plus, diffusers-support/pipeline.py) in every number,
with all randomness drawn from one generator. Each denoising step runs the UNet twice: the *condition pass* writes the
self-attention input of every layer for the noised input picture, the *grid pass* attends to it as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import EulerAncestralDiscreteScheduler
from einops import rearrange, repeat
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from keyorbit.backends.reference_attention import ReferenceAttention
from keyorbit.cameras import Cameras
from keyorbit.errors import InputError
from keyorbit.tokens import Tokens
from keyorbit.views import Layout

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Condition:
    """What the model is told about an object: the input picture's latent, and the text rows of the context."""

    latent: Float[Tensor, "batch channel height width"]
    context: Float[Tensor, "batch text context_width"]

    def repeat(self, count: int) -> "Condition":
        """Each item ``count`` times in a row."""
        return Condition(
            repeat(self.latent, "b c h w -> (b n) c h w", n=count),
            repeat(self.context, "b t w -> (b n) t w", n=count),
        )


@dataclass(frozen=True)
class Components:
    """The parts of a Zero123++ folder, each the library's own class, under its folder name."""

    vae: Any
    unet: Any
    text_encoder: Any
    tokenizer: Any
    vision_encoder: Any
    feature_extractor_clip: Any
    feature_extractor_vae: Any
    scheduler: Any
    ramping_coefficients: tuple[float, ...]


class Zero123PlusBackend:
    """A frozen Zero123++ with its layout and cameras.

    ``view_size`` is the side of one view in pixels (320 for the published weights). The ``fingerprint`` tells
    two sets of weights apart.
    """

    def __init__(
        self,
        parts: Components,
        layout: Layout,
        cameras: Cameras,
        view_size: int,
        name: str,
        fingerprint: str = "",
    ) -> None:
        self.parts, self.layout, self.cameras = parts, layout, cameras
        self.view_size, self.name, self.fingerprint = view_size, name, fingerprint
        self.unet = parts.unet
        for module in (parts.vae, parts.unet, parts.text_encoder, parts.vision_encoder):
            module.requires_grad_(False).eval()
        processors = {key: ReferenceAttention(key, value) for key, value in self.unet.attn_processors.items()}
        self.unet.set_attn_processor(processors)

    @property
    def device(self) -> torch.device:
        return torch.device(self.unet.device)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.unet.dtype
        return dtype

    @property
    def grid_size(self) -> tuple[int, int]:
        """Height and width of the picture of all views, in pixels."""
        return self.layout.rows * self.view_size, self.layout.cols * self.view_size

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the latent of a picture of that size."""
        factor = 2 ** (len(self.parts.vae.config.block_out_channels) - 1)
        return height // factor, width // factor

    def encode_prompts(self, prompts: Sequence[str]) -> Float[Tensor, "batch text context_width"]:
        """The text encoder's last hidden states, padded to the tokenizer's length (77)."""
        tokenizer = self.parts.tokenizer
        ids = tokenizer(
            list(prompts),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        hidden: Tensor = self.parts.text_encoder(ids.to(self.device)).last_hidden_state
        return hidden

    def text_statistics(self, generator: torch.Generator) -> Float[Tensor, "row context_width"]:
        """Context rows of random words: what the model's text embeddings look like."""
        vocabulary = len(self.parts.tokenizer)
        ids = torch.randint(0, vocabulary, (16, self.parts.tokenizer.model_max_length), generator=generator)
        with torch.no_grad():
            hidden = self.parts.text_encoder(ids.to(self.device)).last_hidden_state
        rows: Tensor = rearrange(hidden, "b t w -> (b t) w")
        return rows

    def encode_condition(
        self,
        images: Sequence[Image.Image],
        generator: torch.Generator | None = None,
        prompts: str | Sequence[str] = "",
    ) -> Condition:
        """The condition of each input picture; RGBA pictures are laid on grey 127.

        Without a generator the latent is the VAE's mean instead of a sample. ``prompts`` is one for all or one each.

        Raises:
            InputError: there are neither one prompt nor as many as pictures.
        """
        rgb = [on_grey(image) for image in images]
        pixels = self._pixels(self.parts.feature_extractor_vae, rgb)
        latent = self._vae_latent(pixels, generator)
        embedding = self.parts.vision_encoder(self._pixels(self.parts.feature_extractor_clip, rgb)).image_embeds
        context = self.add_image_embedding(self.encode_prompts(_one_each(prompts, len(rgb))), embedding)
        return Condition(latent, context)

    def add_image_embedding(
        self, text: Float[Tensor, "batch text context_width"], embedding: Float[Tensor, "batch context_width"]
    ) -> Float[Tensor, "batch text context_width"]:
        """The image embedding added to each text row, weighted by the ramping coefficients."""
        ramp = text.new_tensor(self.parts.ramping_coefficients)
        return text + ramp[:, None] * embedding[:, None, :]

    def empty_condition(
        self, count: int, generator: torch.Generator | None = None, prompts: str | Sequence[str] = ""
    ) -> Condition:
        """The negative condition of classifier-free guidance: a zero picture and its prompt, no image embedding.

        Raises:
            InputError: there are neither one prompt nor ``count``.
        """
        size = self.parts.feature_extractor_vae.crop_size
        pixels = torch.zeros(count, 3, size["height"], size["width"], device=self.device, dtype=self.dtype)
        return Condition(self._vae_latent(pixels, generator), self.encode_prompts(_one_each(prompts, count)))

    def encode_images(
        self, images: Float[Tensor, "batch 3 height width"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch channel latent_height latent_width"]:
        """Grid pictures (0…1) as the latents that the UNet denoises."""
        pixels = (images.to(self.device, self.dtype) * 2 - 1) * (0.5 / 0.8)
        scaled: Tensor = self._vae_latent(pixels, generator) * self.parts.vae.config.scaling_factor
        return (scaled - 0.22) * 0.75

    def decode(
        self, latents: Float[Tensor, "batch channel latent_height latent_width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Grid pictures (0…1, float32) from latents; the inverse of :meth:`encode_images`."""
        latents = (latents / 0.75 + 0.22) / self.parts.vae.config.scaling_factor
        pixels: Tensor = self.parts.vae.decode(latents.to(self.dtype), return_dict=False)[0] / 0.5 * 0.8
        return (pixels.float() / 2 + 0.5).clamp(0, 1)

    def add_noise(self, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """The variance-preserving noising of training: sqrt(ᾱ) x + sqrt(1 - ᾱ) ε; ``timestep [batch]``."""
        schedule: Tensor = self.parts.scheduler.alphas_cumprod
        alpha = schedule.to(latents.device)[timestep.long()].to(latents.dtype)
        alpha = alpha.reshape(-1, 1, 1, 1)
        return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise

    def denoise(
        self,
        latents: Float[Tensor, "batch channel height width"],
        timestep: Tensor,
        context: Float[Tensor, "batch all context_width"],
        condition_latent: Float[Tensor, "batch channel condition_height condition_width"],
        condition_noise: Float[Tensor, "batch channel condition_height condition_width"],
    ) -> Float[Tensor, "batch channel height width"]:
        """Both UNet passes; returns the v-prediction for the grid.

        Args:
            latents: the noised grid at the scale the UNet expects (variance-preserving).
            timestep: ``[batch]`` or a scalar, 0…999.
            context: text rows, with learnable tokens behind them if attention is being captured.
            condition_latent: the clean latent of the input picture; noised here with ``condition_noise``.

        Raises:
            InputError: the latent's size does not divide into the layout's views.
        """
        rows, cols = self.layout.rows, self.layout.cols
        if latents.shape[-2] % rows or latents.shape[-1] % cols:
            raise InputError(
                f"a latent of {latents.shape[-2]}x{latents.shape[-1]} does not divide into {rows} rows x {cols} columns"
            )
        timestep = timestep.to(latents.device).expand(latents.shape[0])
        noised = self.add_noise(condition_latent, condition_noise, timestep)
        reference: dict[str, Tensor] = {}
        self.unet(noised, timestep, context, cross_attention_kwargs={"mode": "w", "reference": reference})
        prediction: Tensor = self.unet(
            latents, timestep, context, cross_attention_kwargs={"mode": "r", "reference": reference}
        ).sample
        return prediction

    @torch.no_grad()
    def generate(
        self,
        images: Image.Image | Sequence[Image.Image],
        generator: torch.Generator,
        steps: int = 28,
        guidance: float = 4.0,
        progress: Progress | None = None,
        tokens: Float[Tensor, "token context_width"] | None = None,
        *,
        num_images_per_prompt: int = 1,
        prompts: str | Sequence[str] = "",
        negative_prompts: str | Sequence[str] = "",
        height: int | None = None,
        width: int | None = None,
        decode: bool = True,
    ) -> Float[Tensor, "batch channel height width"]:
        """The grid of views of each input picture (0…1, float32); the published pipeline's call.

        The same generator seed gives the same pixels. On the CPU in float32 they are those of the published pipeline
        with the global seed set to that number: all noise is drawn in its order, and in float32 whatever the dtype.

        Args:
            images: one picture or several; the grids of one picture follow each other.
            generator: where every random number comes from.
            steps: Euler ancestral steps with trailing timesteps, 1…1000.
            guidance: classifier-free guidance; at 1 or less the UNet runs without the negative condition.
            progress: called as ``progress(done, steps)`` after each step.
            tokens: learnable tokens that follow the text rows of every context, the negative one too. Inside
                :func:`keyorbit.attention.capture_attention` its mode says whether they change the picture; outside
                they do.
            num_images_per_prompt: grids for each picture.
            prompts: one for all pictures, or one for each.
            negative_prompts: the same for the negative condition.
            height: of the grid in pixels, the layout's own by default; ``width`` likewise.
            decode: false gives the latents that :meth:`decode` takes.

        Raises:
            InputError: a number is out of range, the size does not divide into the layout's views, the prompts are
                not as many as the pictures, or the tokens have another width than the text.
        """
        pictures = [images] if isinstance(images, Image.Image) else list(images)
        if num_images_per_prompt < 1:
            raise InputError(f"num_images_per_prompt must be 1 or more, not {num_images_per_prompt}")
        scheduler = ancestral_scheduler(self.parts.scheduler.config, steps, self.device)
        size = self._latent_grid(height, width)
        condition = self.encode_condition(pictures, generator, prompts)
        guided = guidance > 1
        if guided:
            negative = self.empty_condition(len(pictures), generator, negative_prompts)
            condition = Condition(
                torch.cat([negative.latent, condition.latent]), torch.cat([negative.context, condition.context])
            )
        condition = condition.repeat(num_images_per_prompt)
        context = condition.context if tokens is None else Tokens(tokens).append_to(condition.context)
        shape = (len(pictures) * num_images_per_prompt, self.unet.config.in_channels, *size)
        # The state stays in float32; only the UNet sees the model's dtype.
        latents = self._noise(shape, generator) * scheduler.init_noise_sigma
        for done, timestep in enumerate(scheduler.timesteps):
            seen = scheduler.scale_model_input(latents, timestep).to(self.dtype)
            noise = self._noise(condition.latent.shape, generator).to(self.dtype)
            seen = torch.cat([seen, seen]) if guided else seen
            prediction = self.denoise(seen, timestep, context, condition.latent, noise).float()
            if guided:
                without, given = prediction.chunk(2)
                prediction = without + guidance * (given - without)
            latents = scheduler.step(prediction, timestep, latents, generator=generator).prev_sample
            if progress is not None:
                progress(done + 1, steps)
        return self.decode(latents) if decode else latents

    def _latent_grid(self, height: int | None, width: int | None) -> tuple[int, int]:
        """The latent's size for a grid of that many pixels."""
        own_height, own_width = self.grid_size
        height, width = height or own_height, width or own_width
        factor = 2 ** (len(self.parts.vae.config.block_out_channels) - 1)
        unit = self.layout.rows * factor, self.layout.cols * factor
        if height < 1 or width < 1 or height % unit[0] or width % unit[1]:
            raise InputError(
                f"a grid {height} pixels high and {width} wide does not divide into {self.layout.rows} rows x "
                f"{self.layout.cols} columns of views: give a height that is a multiple of {unit[0]} and a width "
                f"that is a multiple of {unit[1]}"
            )
        return self.latent_size(height, width)

    def _noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        # Drawn in float32 where the generator lives and then moved: a seed means the same on every device and dtype.
        return torch.randn(*shape, generator=generator, device=generator.device).to(self.device)

    def _vae_latent(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        distribution = self.parts.vae.encode(pixels).latent_dist
        mean: Tensor = distribution.mean
        if generator is None:
            return mean
        sample: Tensor = mean + distribution.std * self._noise(mean.shape, generator).to(mean.dtype)
        return sample

    def _pixels(self, extractor: Any, images: Sequence[Image.Image]) -> Tensor:
        pixels: Tensor = extractor(images=list(images), return_tensors="pt").pixel_values
        return pixels.to(self.device, self.dtype)


def on_grey(image: Image.Image) -> Image.Image:
    """An RGB picture; transparency becomes the grey 127 that Zero123++ was trained with."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        ground = Image.new("RGB", rgba.size, (127, 127, 127))
        ground.paste(rgba, mask=rgba.getchannel("A"))
        return ground
    return image.convert("RGB")


def ancestral_scheduler(config: Any, steps: int, device: torch.device) -> Any:
    """Euler ancestral on the model's noise schedule, with exactly ``steps`` trailing timesteps.

    Raises:
        InputError: ``steps`` is below 1 or above the schedule's length (1000).
    """
    if not 1 <= steps <= config.num_train_timesteps:
        raise InputError(f"steps must be 1 to {config.num_train_timesteps}, not {steps}")
    scheduler = EulerAncestralDiscreteScheduler.from_config(config, timestep_spacing="trailing")
    scheduler.set_timesteps(steps, device=device)
    # The library's rounding gives some counts (61, 103, …) one step too many, at timestep -1.
    scheduler.timesteps = scheduler.timesteps[:steps]
    scheduler.sigmas = torch.cat([scheduler.sigmas[:steps], scheduler.sigmas[-1:]])
    return scheduler


def _one_each(prompts: str | Sequence[str], count: int) -> list[str]:
    each = [prompts] * count if isinstance(prompts, str) else list(prompts)
    if len(each) != count:
        raise InputError(f"there are {len(each)} prompts for {count} pictures: give one for all, or one for each")
    return each
