"""What discovery, detection, preparation and the query cache need from a diffusion model, and nothing more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from einops import repeat
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn

from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.views import Layout
from keyorbit.values import short

# What is called after each step that makes views: ``watch(done, steps, look)``, where ``look()`` decodes the views of
# all pictures as the model predicts them by now, 0…1. What it raises ends the work.
Watch = Callable[[int, int, Callable[[], Float[Tensor, "batch 3 height width"]]], None]


@dataclass(frozen=True)
class Condition:
    """What the model is told about an object: the input picture's latent, and the text rows of the context."""

    latent: Float[Tensor, "batch channel height width"]
    context: Float[Tensor, "batch text context_width"]

    def join(self, other: "Condition") -> "Condition":
        """This batch, then the other."""
        return Condition(torch.cat([self.latent, other.latent]), torch.cat([self.context, other.context]))

    def where(self, chosen: Bool[Tensor, " batch"], other: "Condition") -> "Condition":
        """This batch, with the other's one item wherever ``chosen`` is True."""
        latent = torch.where(chosen[:, None, None, None], other.latent, self.latent)
        return Condition(latent, torch.where(chosen[:, None, None], other.context, self.context))

    def select(self, item: int) -> "Condition":
        """One item as a batch of its own."""
        return Condition(self.latent[item : item + 1], self.context[item : item + 1])

    def repeat(self, count: int) -> "Condition":
        """Each item ``count`` times in a row."""
        return Condition(
            repeat(self.latent, "b c h w -> (b n) c h w", n=count),
            repeat(self.context, "b t w -> (b n) t w", n=count),
        )


@dataclass(frozen=True)
class Precision:
    """The type of numbers that a model computes in, and how far its heatmaps are from those of float32.

    Attributes:
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        mean: share of what the heatmaps say that is in another place than in float32, on average, see
            :mod:`keyorbit.diffusion.precision`. None where it was not measured, as where the type was asked for.
        worst: the same of the heatmap that differs most.
        reason: why it was not measured, or why no half-precision type was chosen; empty where there is nothing to tell.
    """

    dtype: str
    mean: float | None = None
    worst: float | None = None
    reason: str = ""

    @property
    def words(self) -> str:
        """As a line of text tells it."""
        if self.mean is not None and self.worst is not None:
            told = f"maps within {100 * self.mean:.1f} % of float32, the worst within {100 * self.worst:.1f} %"
            return f"{self.dtype}: {told}"
        return f"{self.dtype}: {self.reason}" if self.reason else self.dtype


def first_parameter(module: nn.Module) -> Tensor:
    """What tells a model's device and type; diffusers' own properties walk through all of its modules."""
    first: Tensor = next(module.parameters())
    return first


@runtime_checkable
class Weighed(Protocol):
    """What has weights: a backend, or a model's facts."""

    @property
    def name(self) -> str:
        """What :func:`keyorbit.load_backend` was called with."""

    @property
    def fingerprint(self) -> str:
        """Tells two sets of weights apart; as :func:`keyorbit.diffusion.backends.fingerprint.fingerprint` gives it."""

    @property
    def older_fingerprint(self) -> Callable[[], str]:
        """Gives the fingerprint as earlier versions did; an empty text where there are no files."""


@runtime_checkable
class Backend(Weighed, Protocol):
    """A frozen diffusion model whose cross-attention is read."""

    @property
    def unet(self) -> Any:
        """The diffusers UNet, for :func:`keyorbit.capture_attention`."""

    @property
    def device(self) -> torch.device:
        """Where the model runs."""

    @property
    def precision(self) -> Precision:
        """What type it computes in, and how that was chosen."""

    @property
    def layout(self) -> Layout:
        """How the views are tiled."""

    @property
    def cameras(self) -> Cameras | None:
        """The cameras of the views; None where there are none, and so no 3D."""

    @property
    def cameras_of(self) -> str:
        """Whose cameras these are, where somebody chose them; empty where the model's own folder tells."""

    @property
    def view_size(self) -> int:
        """Side of one view in pixels."""

    @property
    def has_condition_pass(self) -> bool:
        """Whether :meth:`denoise` runs the UNet on the input picture first."""

    @property
    def default_timestep(self) -> int:
        """How much noise its attention is read at, unless told otherwise: 0…999."""

    @property
    def default_layers(self) -> tuple[str, ...]:
        """Names or patterns of the cross-attention layers that are read, unless told otherwise."""

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the latent of a picture of that size."""

    def text_statistics(self, generator: torch.Generator) -> Float[Tensor, "row context_width"]:
        """Context rows of random words: what the model's text embeddings look like."""

    def encode_phrases(self, phrases: Sequence[str]) -> Float[Tensor, "phrase context_width"]:
        """One context row for each phrase; see :func:`keyorbit.diffusion.backends.text.encode_phrases`.

        Raises:
            InputError: a phrase is empty, longer than the model reads, or has no word that the model knows.
        """

    def generate(
        self,
        images: Sequence[Image.Image],
        generator: torch.Generator | Sequence[torch.Generator],
        *,
        watch: Watch | None = None,
    ) -> Float[Tensor, "batch 3 _ _"]:
        """The grid of views of each picture, 0…1; a model of one view gives the picture itself, cropped to fit.

        Args:
            images: the pictures.
            generator: one for all pictures, or one for each, whose grid then does not depend on its neighbours.
            watch: called after each step; a model of one view takes none. Default None.
        """

    def encode_condition(self, images: Sequence[Image.Image]) -> Condition:
        """What the model is told about each picture; the latent has no channels where there is no condition pass."""

    def empty_condition(self, count: int) -> Condition:
        """What the model is told where it is shown no input picture."""

    def encode_images(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch channel latent_height latent_width"]:
        """Grid pictures (0…1) as the latents that the UNet denoises."""

    def add_noise(self, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """Latents as the UNet expects them at ``timestep [batch]``."""

    def denoise(
        self,
        latents: Float[Tensor, "batch channel height width"],
        timestep: Tensor,
        context: Float[Tensor, "batch all context_width"],
        condition_latent: Float[Tensor, "batch condition_channel condition_height condition_width"],
        condition_noise: Float[Tensor, "batch condition_channel condition_height condition_width"],
    ) -> Float[Tensor, "batch channel height width"]:
        """All passes of the UNet; its prediction for the grid."""


def check_backend(backend: object) -> None:
    """Check that it is a model.

    Raises:
        InputError: it is something else; the message says how to load one.
    """
    if not hasattr(backend, "unet"):  # what else a model of one's own lacks, Python names better
        raise InputError(
            f"backend cannot be {short(backend)}, of type {type(backend).__name__}; give what keyorbit.load_backend "
            "returns"
        )
