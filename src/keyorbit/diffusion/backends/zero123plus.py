"""Zero123++ on current diffusers: one picture of an object becomes a grid of six consistent views.

Follows the published pipeline (github.com/SUDO-AI-3D/zero123plus, diffusers-support/pipeline.py) in every number,
with all randomness drawn from one generator. Each denoising step runs the UNet twice: the *condition pass* writes the
self-attention input of every layer for the noised input picture, the *grid pass* attends to it as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from keyorbit.diffusion.backends.base import Condition, Precision, Watch, first_parameter
from keyorbit.diffusion.backends.controlnet import Control, check_controlnet, residuals
from keyorbit.diffusion.backends.passes import Passes, compiled_passes, two_passes
from keyorbit.diffusion.backends.reference_attention import ReferenceAttention
from keyorbit.diffusion.backends.sampling import (
    Generators,
    Progress,
    ancestral_sample,
    ancestral_scheduler,
    guide,
    moved_together,
    unit_normal,
)
from keyorbit.diffusion.backends.text import check_phrase, encode_phrases, encode_prompts, random_rows
from keyorbit.diffusion.choices import GUIDANCE, STEPS
from keyorbit.diffusion.context import split_context
from keyorbit.diffusion.layer_capture import is_captured
from keyorbit.diffusion.layers import layers_with_context
from keyorbit.diffusion.tokens import Tokens
from keyorbit.diffusion.turns import in_turn
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.views import Layout
from keyorbit.objects.pictures import on_grey


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
    two sets of weights apart. ``cameras_of`` names the cameras where they are not those that the folder tells of.
    """

    has_condition_pass = True
    default_timestep = 100  # measured: docs/research-log.md
    default_layers = ("*",)

    def __init__(
        self,
        parts: Components,
        layout: Layout,
        cameras: Cameras,
        view_size: int,
        name: str,
        fingerprint: str = "",
        cameras_of: str = "",
    ) -> None:
        self.parts, self.layout, self.cameras = parts, layout, cameras
        self.view_size, self.name, self.fingerprint, self.cameras_of = view_size, name, fingerprint, cameras_of
        self.older_fingerprint: Callable[[], str] = str
        self.unet = parts.unet
        self.controlnet: Any = None
        self.precision = Precision(str(parts.unet.dtype).removeprefix("torch."))
        self._compiled: Passes | None = None
        for module in (parts.vae, parts.unet, parts.text_encoder, parts.vision_encoder):
            module.requires_grad_(False).eval()
        processors = {key: ReferenceAttention(key, value) for key, value in self.unet.attn_processors.items()}
        self.unet.set_attn_processor(processors)
        alphas: Tensor = parts.scheduler.alphas_cumprod
        # The shares of picture and noise at each timestep.
        self._shares = torch.stack([alphas.sqrt(), (1 - alphas).sqrt()]).to(self.device)

    def add_controlnet(self, controlnet: Any) -> None:
        """Let ``depth_images`` of :meth:`generate` steer the grid through a diffusers ``ControlNetModel``.

        Raises:
            InputError: it was made for another UNet, or has another dtype.
        """
        check_controlnet(controlnet, self.unet, self.latent_factor)
        self.controlnet = controlnet.requires_grad_(False).eval().to(self.device)

    def compile_unet(self) -> None:
        """Let :meth:`generate` run the UNet compiled, but not while its attention is captured.

        The first step of the first call compiles: minutes at full size, which later runs find on disk
        (``TORCHINDUCTOR_CACHE_DIR``). The pictures are the same but for rounding. :meth:`denoise` stays as it is, since
        recording changes what runs inside the UNet.
        """
        self._compiled = compiled_passes()

    # Not the UNet's own properties, each of which walks through all of its modules: 2 ms at full size.
    @property
    def device(self) -> torch.device:
        return first_parameter(self.unet).device

    @property
    def dtype(self) -> torch.dtype:
        return first_parameter(self.unet).dtype

    @property
    def grid_size(self) -> tuple[int, int]:
        """Height and width of the picture of all views, in pixels."""
        return self.layout.rows * self.view_size, self.layout.cols * self.view_size

    @property
    def latent_factor(self) -> int:
        """Pixels per latent position, along each side (8 for the published weights)."""
        return int(2 ** (len(self.parts.vae.config.block_out_channels) - 1))

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the latent of a picture of that size."""
        return height // self.latent_factor, width // self.latent_factor

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

    def encode_condition(
        self,
        images: Sequence[Image.Image],
        generator: Generators | None = None,
        prompts: str | Sequence[str] = "",
    ) -> Condition:
        """The condition of each input picture; RGBA pictures are laid on grey 127.

        Without a generator (one for all, or one for each) the latent is the VAE's mean instead of a sample. ``prompts``
        is one for all or one each.

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
        self, count: int, generator: Generators | None = None, prompts: str | Sequence[str] = ""
    ) -> Condition:
        """The negative condition of classifier-free guidance: a zero picture and its prompt, no image embedding.

        Raises:
            InputError: there are neither one prompt nor ``count``.
        """
        size = self.parts.feature_extractor_vae.crop_size
        pixels = torch.zeros(count, 3, size["height"], size["width"], device=self.device, dtype=self.dtype)
        return Condition(self._vae_latent(pixels, generator), self.encode_prompts(_one_each(prompts, count)))

    def encode_images(
        self, images: Float[Tensor, "batch 3 height width"], generator: Generators | None = None
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
        shares = self._shares.to(latents.device)[:, timestep.long()].to(latents)
        of_latents, of_noise = shares[..., None, None, None]
        noised: Tensor = of_latents * latents + of_noise * noise
        return noised

    @in_turn
    def denoise(
        self,
        latents: Float[Tensor, "batch channel height width"],
        timestep: Tensor,
        context: Float[Tensor, "batch all context_width"],
        condition_latent: Float[Tensor, "batch channel condition_height condition_width"],
        condition_noise: Float[Tensor, "batch channel condition_height condition_width"],
        control: Control | None = None,
    ) -> Float[Tensor, "batch channel height width"]:
        """Both UNet passes; returns the v-prediction for the grid.

        Args:
            latents: the noised grid at the scale the UNet expects (variance-preserving).
            timestep: ``[batch]`` or a scalar, 0…999.
            context: text rows, with learnable tokens behind them if attention is being captured.
            condition_latent: the clean latent of the input picture; noised here with ``condition_noise``.
            control: what the ControlNet sees with the grid pass. It gets the text rows only, in both modes.

        Raises:
            InputError: the latent's size does not divide into the layout's views.
        """
        return self._denoise(two_passes, latents, timestep, context, condition_latent, condition_noise, control)

    def _denoise(
        self,
        passes: Passes,
        latents: Tensor,
        timestep: Tensor,
        context: Tensor,
        condition_latent: Tensor,
        condition_noise: Tensor,
        control: Control | None,
    ) -> Tensor:
        rows, cols = self.layout.rows, self.layout.cols
        if latents.shape[-2] % rows or latents.shape[-1] % cols:
            raise InputError(
                f"a latent of {latents.shape[-2]}x{latents.shape[-1]} does not divide into {rows} rows x {cols} columns"
            )
        timestep = timestep.to(latents.device).expand(latents.shape[0])
        noised = self.add_noise(condition_latent, condition_noise, timestep)
        added: dict[str, Any] = {}
        if control is not None:
            text, _ = split_context(context, self.parts.tokenizer.model_max_length)
            added = residuals(self.controlnet, control, latents, timestep, text)
        return passes(self.unet, noised, latents, timestep, context, added)

    @in_turn
    @torch.no_grad()
    def generate(
        self,
        images: Image.Image | Sequence[Image.Image],
        generator: Generators,
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        progress: Progress | None = None,
        tokens: Float[Tensor, "token context_width"] | None = None,
        *,
        num_images_per_prompt: int = 1,
        prompts: str | Sequence[str] = "",
        negative_prompts: str | Sequence[str] = "",
        height: int | None = None,
        width: int | None = None,
        depth_images: Image.Image | Sequence[Image.Image] | None = None,
        conditioning_scale: float = 1.0,
        decode: bool = True,
        watch: Watch | None = None,
    ) -> Float[Tensor, "batch channel height width"]:
        """The grid of views of each input picture (0…1, float32); the published pipeline's call.

        The same generator seed gives the same pixels. On the CPU in float32 they are those of the published pipeline
        after ``torch.manual_seed`` of the same number: all noise is drawn in its order, and in float32 whatever the
        dtype.

        Args:
            images: one picture or several; the grids of one picture follow each other.
            generator: where every random number comes from; or one for each picture, whose grids are then those that it
                has alone, but for rounding.
            steps: Euler ancestral steps with trailing timesteps, 1…1000. Default 28.
            guidance: classifier-free guidance, default 4; at 1 or less the UNet runs without the negative condition.
            progress: called as ``progress(done, steps)`` after each step.
            tokens: learnable tokens that follow the text rows of every context, the negative one too. Inside
                :func:`keyorbit.diffusion.attention.capture_attention` its mode says whether they change the picture;
                outside they do.
            num_images_per_prompt: grids for each picture.
            prompts: one for all pictures, or one for each.
            negative_prompts: the same for the negative condition.
            height: of the grid in pixels, the layout's own by default.
            width: of the grid in pixels, the layout's own by default.
            depth_images: what the ControlNet sees, one for all pictures or one for each: all views tiled as in the
                grid, at its size. Depth maps, or the generated grid itself for a ControlNet that makes normal maps.
            conditioning_scale: how much the ControlNet's residuals weigh.
            decode: false gives the latents that :meth:`decode` takes.
            watch: called as ``watch(done, steps, look)`` after each step; ``look()`` decodes the grids as the model
                predicts them by now, which takes about as long as a step.

        Raises:
            InputError: there is no picture, a number is out of range, the size does not divide into the layout's
                views, generators, prompts or depth images are not as many as pictures, a depth image has another size
                or more than 8 bits or there is no ControlNet for it, or the tokens have another width than the text.
        """
        pictures = [images] if isinstance(images, Image.Image) else list(images)
        if not pictures or num_images_per_prompt < 1:
            raise InputError("give at least one picture, and num_images_per_prompt of 1 or more")
        generators = _each(generator)
        if len(generators) not in (1, len(pictures)):
            raise InputError(
                f"there are {len(generators)} generators for {len(pictures)} pictures: give one for all, or one each"
            )
        scheduler = ancestral_scheduler(self.parts.scheduler.config, steps, self.device)
        size = self._pixel_size(height, width)
        guided = guidance > 1
        control = self._control(depth_images, len(pictures), size, conditioning_scale)
        condition = self.encode_condition(pictures, generator, prompts)
        if guided:
            condition = self.empty_condition(len(pictures), generator, negative_prompts).join(condition)
        condition, halves = condition.repeat(num_images_per_prompt), 2 if guided else 1
        if control is not None:
            control = control.repeat(num_images_per_prompt, halves)
        context = condition.context if tokens is None else Tokens(tokens).append_to(condition.context)

        shape = (len(pictures) * num_images_per_prompt, self.unet.config.in_channels, *self.latent_size(*size))
        passes = two_passes if self._compiled is None or self._captured() else self._compiled

        def predict(latents: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
            seen = (torch.cat([latents, latents]) if guided else latents).to(dtype)
            noise = noise.to(dtype)
            prediction = self._denoise(passes, seen, timestep, context, condition.latent, noise, control).float()
            return guide(prediction, guidance) if guided else prediction

        def draw() -> tuple[Tensor, Tensor]:
            return unit_normal(condition.latent.shape, generators, halves), unit_normal(shape, generators)

        def after(done: int, steps: int, clean: Tensor) -> None:
            if progress is not None:
                progress(done, steps)
            if watch is not None:
                watch(done, steps, lambda: self.decode(clean))

        # The state of the sampler stays in float32; only the UNet sees the model's dtype.
        start, dtype = unit_normal(shape, generators).to(self.device), self.dtype
        noises = moved_together(draw, steps, self.device)
        latents = ancestral_sample(scheduler, start, predict, noises, after)
        if not decode:
            return latents
        # A picture with its own generator is decoded alone. A whole grid keeps the VAE busy: many together would only
        # take more memory, the most of the whole call.
        return torch.cat([self.decode(own) for own in torch.split(latents, len(latents) // len(generators))])

    def _captured(self) -> bool:
        """Whether attention is captured, or somebody has put other processors in."""
        others = not all(isinstance(one, ReferenceAttention) for one in self.unet.attn_processors.values())
        return others or is_captured(layers_with_context(self.unet).values())

    def _pixel_size(self, height: int | None, width: int | None) -> tuple[int, int]:
        """The grid's height and width, checked."""
        rows, cols = self.layout.rows, self.layout.cols
        high, wide = rows * self.latent_factor, cols * self.latent_factor
        height = self.grid_size[0] if height is None else height
        width = self.grid_size[1] if width is None else width
        if min(height, width) < 1 or height % high or width % wide:
            raise InputError(
                f"a grid {height} pixels high and {width} wide does not divide into {rows} rows x {cols} columns of "
                f"views: give a height that is a multiple of {high} and a width that is a multiple of {wide}"
            )
        return height, width

    def _control(
        self,
        depth_images: Image.Image | Sequence[Image.Image] | None,
        count: int,
        size: tuple[int, int],
        scale: float,
    ) -> Control | None:
        if depth_images is None:
            return None
        if self.controlnet is None:
            raise InputError("depth images need a ControlNet: give its folder to load_backend(..., controlnet=...)")
        given = [depth_images] if isinstance(depth_images, Image.Image) else list(depth_images)
        if len(given) not in (1, count):
            raise InputError(f"there are {len(given)} depth images for {count} pictures: give one for all, or one each")
        for image in given:
            if image.mode[0] in "IF":
                # Depth has no white: a map in millimetres, scaled as grey is, would be black.
                raise InputError(
                    f"a depth image of mode {image.mode} does not have 8 bits a channel: scale its depths to 0…255"
                )
        return Control.from_pictures([on_grey(image) for image in given], size, scale)

    def _vae_latent(self, pixels: Tensor, generator: Generators | None) -> Tensor:
        distribution = self.parts.vae.encode(pixels).latent_dist
        mean: Tensor = distribution.mean
        if generator is None:
            return mean
        sample: Tensor = mean + distribution.std * unit_normal(mean.shape, _each(generator)).to(mean)
        return sample

    def _pixels(self, extractor: Any, images: Sequence[Image.Image]) -> Tensor:
        pixels: Tensor = extractor(images=list(images), return_tensors="pt").pixel_values
        return pixels.to(self.device, self.dtype)


def _one_each(prompts: str | Sequence[str], count: int) -> list[str]:
    each = [prompts] * count if isinstance(prompts, str) else list(prompts)
    if len(each) != count:
        raise InputError(f"there are {len(each)} prompts for {count} pictures: give one for all, or one for each")
    return each


def _each(generator: Generators) -> list[torch.Generator]:
    return [generator] if isinstance(generator, torch.Generator) else list(generator)
