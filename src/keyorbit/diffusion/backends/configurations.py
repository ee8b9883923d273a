"""What the configurations of a model folder may say, of all that is read by us or would let a part fail only when used.

Classes and fields are as diffusers and transformers have them, with their defaults; what else there is, theirs is to
read. Numbers have limits above all published models, so that no size and no depth keeps a library busy for ever.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta

from keyorbit.diffusion.choices import layout_numbers
from keyorbit.errors import InputError
from keyorbit.geometry.matrices import CameraMatrices
from keyorbit.storage.content import json_of
from keyorbit.values import Amount, Share, from_values

T = TypeVar("T")

Width = Annotated[int, Meta(ge=1, le=2**20)]  # channels, rows, heads
Depth = Annotated[int, Meta(ge=1, le=128)]
Depths = Annotated[tuple[Depth, ...], Meta(min_length=1, max_length=8)]
Pixels = Annotated[int, Meta(ge=1, le=4096)]
# Not ``tuple[Pixels, Pixels]``, with which msgspec crashes where it is one of several types.
Pair = Annotated[tuple[Pixels, ...], Meta(min_length=2, max_length=2)]
# A factor, or what is divided by: so far from 0 and infinity that float32 keeps what it is applied to.
Factor = Annotated[float, Meta(ge=1e-6, le=1e6)]
Value = Annotated[float, Meta(ge=-1e6, le=1e6)]
Epsilon = Annotated[float, Meta(ge=1e-12, le=1)]
Widths = Annotated[tuple[Width, ...], Meta(min_length=1, max_length=8)]
Blocks = Annotated[tuple[str, ...], Meta(min_length=1, max_length=8)]
# The shortest schedule in which every timestep that may be asked for, 0…999, has a place.
_STEPS = 1000


@dataclass(frozen=True)
class Zero123PlusIndex:
    """``model_index.json`` of a Zero123++; see :mod:`keyorbit.diffusion.backends.known_cameras` for the rest.

    ``layout`` is "3x2" or [3, 2], rows and columns of the views.
    """

    ramping_coefficients: tuple[Value, ...]
    view_size: Pixels = 320
    version: str | None = None
    layout: str | tuple[int, ...] | None = None
    cameras: CameraMatrices | None = None

    def __post_init__(self) -> None:
        self.rows_and_columns  # noqa: B018 (it checks them)

    @property
    def rows_and_columns(self) -> tuple[int, int] | None:
        """Of the views; None where the file does not tell."""
        if self.layout is None:
            return None
        return layout_numbers(self.layout if isinstance(self.layout, str) else "x".join(map(str, self.layout)))


@dataclass(frozen=True)
class UNetConfig:
    """Of a UNet, or of a ControlNet."""

    sample_size: Pixels | Pair | None = None
    in_channels: Width = 4
    out_channels: Width = 4
    freq_shift: Share = 0
    down_block_types: Blocks = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: Blocks = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    block_out_channels: Widths = (320, 640, 1280, 1280)
    layers_per_block: Depth | Depths = 2
    transformer_layers_per_block: Depth | Annotated[tuple[Depth | Depths, ...], Meta(min_length=1, max_length=8)] = 1
    # 0: the same size by another way, as the VAEs have it.
    downsample_padding: Annotated[int, Meta(ge=0, le=1)] = 1
    mid_block_scale_factor: Factor = 1.0
    resnet_out_scale_factor: Factor = 1.0
    dropout: Share = 0.0
    norm_num_groups: Width | None = 32
    norm_eps: Epsilon = 1e-5
    cross_attention_dim: Width = 1280
    attention_head_dim: Width | Widths = 8
    conv_in_kernel: Depth = 3
    conv_out_kernel: Depth = 3
    time_embedding_dim: Width | None = None
    # What the UNet would want to be told besides the timestep and the context, which is all that we have.
    class_embed_type: Literal[None] = None
    num_class_embeds: Literal[None] = None
    addition_embed_type: Literal[None] = None
    encoder_hid_dim: Literal[None] = None
    encoder_hid_dim_type: Literal[None] = None
    # Of a latent consistency model, which is told the guidance that it imitates.
    time_cond_proj_dim: Width | None = None
    conditioning_embedding_out_channels: Widths = (16, 32, 96, 256)

    @property
    def least(self) -> int:
        """A number of weights that every network of these sizes has more of: convolutions and the attention's keys."""
        widths, depths = self.block_out_channels, tuple(_numbers(self.layers_per_block))
        depths = depths * len(widths) if isinstance(self.layers_per_block, int) else depths
        blocks = sum(9 * depth * width**2 for depth, width in zip(depths, widths, strict=False))
        attention = max(_numbers(self.transformer_layers_per_block)) * self.cross_attention_dim * min(widths)
        return blocks + attention + self.in_channels * widths[0] * self.conv_in_kernel**2


@dataclass(frozen=True)
class VaeConfig:
    """Of a VAE (``AutoencoderKL``)."""

    in_channels: Literal[3] = 3
    out_channels: Literal[3] = 3
    latent_channels: Width = 4
    down_block_types: Blocks = ("DownEncoderBlock2D",)
    up_block_types: Blocks = ("UpDecoderBlock2D",)
    block_out_channels: Widths = (64,)
    layers_per_block: Depth = 1
    norm_num_groups: Width = 32
    scaling_factor: Factor = 0.18215

    @property
    def least(self) -> int:
        """As of :class:`UNetConfig`."""
        return self.latent_channels + sum(9 * self.layers_per_block * width**2 for width in self.block_out_channels)


@dataclass(frozen=True)
class TextConfig:
    """Of a text encoder (``CLIPTextModel``)."""

    vocab_size: Width = 49408
    hidden_size: Width = 512
    intermediate_size: Width = 2048
    num_hidden_layers: Depth = 12
    num_attention_heads: Width = 8
    max_position_embeddings: Width = 77
    layer_norm_eps: Epsilon = 1e-5
    eos_token_id: Amount = 49407
    # The libraries have also None for 0; while nothing is trained, neither is used.
    attention_dropout: Share | None = 0.0

    def __post_init__(self) -> None:
        _check_heads(self.hidden_size, self.num_attention_heads)

    @property
    def least(self) -> int:
        """As of :class:`UNetConfig`."""
        width, layers = self.hidden_size, self.num_hidden_layers
        return width * (self.vocab_size + self.max_position_embeddings + layers * (width + self.intermediate_size))


@dataclass(frozen=True)
class VisionConfig:
    """Of a vision encoder (``CLIPVisionModelWithProjection``)."""

    hidden_size: Width = 768
    intermediate_size: Width = 3072
    projection_dim: Width = 512
    num_hidden_layers: Depth = 12
    num_attention_heads: Width = 12
    num_channels: Literal[3] = 3
    image_size: Pixels = 224
    patch_size: Pixels = 32
    layer_norm_eps: Epsilon = 1e-5
    attention_dropout: Share | None = 0.0

    def __post_init__(self) -> None:
        _check_heads(self.hidden_size, self.num_attention_heads)

    @property
    def least(self) -> int:
        """As of :class:`UNetConfig`."""
        width, layers, patches = self.hidden_size, self.num_hidden_layers, (self.image_size // self.patch_size) ** 2
        return width * (
            self.projection_dim + patches + 3 * self.patch_size**2 + layers * (width + self.intermediate_size)
        )


@dataclass(frozen=True)
class SchedulerConfig:
    """Of a scheduler: its noise schedule, and what the model predicts."""

    num_train_timesteps: Annotated[int, Meta(ge=_STEPS, le=10**6)] = _STEPS
    beta_start: Annotated[float, Meta(gt=0, lt=1)] = 0.0001
    beta_end: Annotated[float, Meta(gt=0, lt=1)] = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    trained_betas: Annotated[tuple[Share, ...], Meta(min_length=_STEPS, max_length=10**6)] | None = None
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    timestep_spacing: Literal["linspace", "leading", "trailing"] = "linspace"
    steps_offset: Annotated[int, Meta(ge=0, lt=_STEPS)] = 0
    rescale_betas_zero_snr: bool = False
    use_flow_sigmas: bool | None = False


@dataclass(frozen=True)
class Sides:
    """A picture's size, in one of the ways of transformers."""

    height: Pixels | None = None
    width: Pixels | None = None
    shortest_edge: Pixels | None = None
    longest_edge: Pixels | None = None


Size = Pixels | Sides | Pair | None


@dataclass(frozen=True)
class PreprocessorConfig:
    """Of what makes a picture into a network's input: old files have plain numbers for sizes."""

    size: Size = None
    crop_size: Size = None
    do_resize: bool | None = None
    do_center_crop: bool | None = None
    do_rescale: bool | None = None
    do_normalize: bool | None = None
    do_convert_rgb: bool | None = None
    resample: Annotated[int, Meta(ge=0, le=5)] | None = None
    rescale_factor: Factor | None = None
    image_mean: tuple[Value, Value, Value] | None = None
    image_std: tuple[Factor, Factor, Factor] | None = None

    @property
    def crop_side(self) -> int | None:
        """Height of what is made, pixels; None is the library's default."""
        size = self.crop_size
        if isinstance(size, Sides):
            return size.height or size.shortest_edge
        return size[0] if isinstance(size, tuple) else size


def read_config(path: Path, kind: type[T]) -> T:
    """Read one of these classes from a file.

    Raises:
        InputError: the file cannot be read, or a field holds what it may not.
    """
    return from_values(kind, json_of(path, infinite=True), str(path), others=True)


def _numbers(values: Any) -> Iterator[int]:
    """A number, or all those in lists and lists of lists."""
    if isinstance(values, int):
        yield values
    else:
        for value in values:
            yield from _numbers(value)


def _check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise InputError(f"hidden_size {width} is no multiple of num_attention_heads {heads}")
