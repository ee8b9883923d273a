"""From what the layers say of the tokens to one map per view and token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from keyorbit.diffusion.choices import MapKind
from keyorbit.errors import InputError
from keyorbit.geometry.heatmaps import at_least_float32, normalize, resize, spatial_softmax
from keyorbit.geometry.views import Layout, split_views


@dataclass(frozen=True, eq=False)
class LayerMaps:
    """What one cross-attention layer says about the tokens: logits or attention.

    maps: [batch head position token], positions row by row; size: (height, width) of the layer's grid.
    Raises ValueError when the positions do not fill that size.
    """

    name: str
    maps: Float[Tensor, "batch head position token"]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if self.maps.shape[2] != self.size[0] * self.size[1]:
            raise ValueError(
                f"layer {self.name!r} has {self.maps.shape[2]} positions, not {self.size[0]} × {self.size[1]}"
                f": take its size from views.grid_size"
            )


def join_objects(each: Sequence[Sequence[LayerMaps]]) -> list[LayerMaps]:
    """The layers of several objects as one batch, objects first."""
    return [
        LayerMaps(same[0].name, same[0].maps if len(same) == 1 else torch.cat([x.maps for x in same]), same[0].size)
        for same in zip(*each, strict=True)
    ]


def to_map(
    x: Float[Tensor, "*batch position token"], height: int, width: int
) -> Float[Tensor, "*batch token {height} {width}"]:
    """Positions, row by row, back to a picture per token. ValueError when they do not fill height × width."""
    if x.shape[-2] != height * width:
        raise ValueError(f"{x.shape[-2]} positions do not fill {height} × {width}: see views.grid_size")
    return rearrange(x, "... (h w) t -> ... t h w", h=height, w=width)


def view_maps(
    layers: Sequence[LayerMaps], layout: Layout, size: tuple[int, int]
) -> Float[Tensor, "batch view token height width"]:
    """One map per token and view: the mean over the heads and layers, each view brought to `size`.

    Heads are averaged before the change of size, which is linear, so the result is the same and cheaper.
    Each view is resized after the split: nothing bleeds between neighbours. Layers count equally.
    Raises ValueError when there is no layer or one does not match, InputError naming the layer that does not divide.
    """
    return _mean_of_layers(layers, lambda layer: _layer_views(layer, layout, size))


def upsampled_attention(
    layers: Sequence[LayerMaps], layout: Layout, size: tuple[int, int], text_tokens: int = 0
) -> Float[Tensor, "batch view token height width"]:
    """StableKeypoints' attention map per token and view, 0…1: enlarge, softmax over the tokens, then average.

    The layers hold logits of all tokens of the softmax, per head; the first ``text_tokens`` of them are left out of the
    result. In StableKeypoints (Hedlin et al. 2024, `register_attention_control`) the context is the learnable tokens
    alone, and the features are enlarged before `to_q`. That is linear and without bias, so enlarging its logits is the
    same for fewer channels. Bicubic, as there. `view_maps` averages what was put through the softmax at the layer's
    own size: broader, and cheaper.
    Raises ValueError when there is no layer or one does not match, InputError naming the layer that does not divide.
    """

    def enlarged(layer: LayerMaps) -> Tensor:
        views = _split_layer(layer, at_least_float32(layer.maps), layout)
        maps = resize(views, size, "bicubic").softmax(dim=2)[:, :, text_tokens:]
        return rearrange(maps.mean(dim=1), "b t v h w -> b v t h w")

    return _mean_of_layers(layers, enlarged)


def _mean_of_layers(layers: Sequence[LayerMaps], read: Callable[[LayerMaps], Tensor]) -> Tensor:
    if not layers:
        raise ValueError("there is no layer to average: record at least one cross-attention layer")
    total = read(layers[0])
    for layer in layers[1:]:
        maps = read(layer)
        if maps.shape != total.shape:
            raise ValueError(
                f"layer {layer.name!r} gives maps of shape {list(maps.shape)}, others {list(total.shape)}: "
                f"all layers must come from the same batch and tokens"
            )
        total = total + maps
    return total / len(layers)


def _layer_views(
    layer: LayerMaps, layout: Layout, size: tuple[int, int]
) -> Float[Tensor, "batch view token height width"]:
    views = _split_layer(layer, at_least_float32(layer.maps).mean(dim=1), layout)
    return resize(rearrange(views, "b t v h w -> b v t h w"), size)


def _split_layer(
    layer: LayerMaps, maps: Float[Tensor, "*lead position token"], layout: Layout
) -> Float[Tensor, "*lead token view height width"]:
    try:
        layout.check(*layer.size)
    except ValueError as error:
        raise InputError(f"layer {layer.name!r}: {error}; leave that layer out") from error
    return split_views(to_map(maps, *layer.size), layout)


def token_maps(
    layers: Sequence[LayerMaps], layout: Layout, kind: MapKind, side: int, temperature: float
) -> Float[Tensor, "item view token side side"]:
    """Maps of all layers as one map per view and token; ``temperature`` is for logits only.

    logits: averaged over heads and layers, then a softmax over the pixels, so each map sums to 1 over its view.
    attention: probabilities of the softmax over text and tokens, at each layer's size, then averaged.
    stablekeypoints: probabilities of the softmax over the learnable tokens alone, at ``side``, then averaged.
    """
    size = (side, side)
    if kind == "stablekeypoints":
        return upsampled_attention(layers, layout, size)
    together = view_maps(layers, layout, size)
    return spatial_softmax(together, temperature) if kind == "logits" else together


def token_heatmaps(
    layers: Sequence[LayerMaps], layout: Layout, kind: MapKind, side: int, temperature: float
) -> Float[Tensor, "item view token side side"]:
    """The same as heatmaps: each sums to 1 over its view."""
    maps = token_maps(layers, layout, kind, side, temperature)
    return maps if kind == "logits" else normalize(maps)
