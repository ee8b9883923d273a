"""The attention of one token at every layer and resolution, before the average over layers."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.config import PrepareConfig, RecordConfig
from keyorbit.diffusion.maps import to_map
from keyorbit.diffusion.queries import LayerQueries
from keyorbit.diffusion.recording import record
from keyorbit.diffusion.tokens import Tokens
from keyorbit.errors import InputError
from keyorbit.geometry.views import Layout, split_views
from keyorbit.objects.dataset import ObjectViews


@dataclass(frozen=True, eq=False)
class LayerAttention:
    """One layer's attention to one token, mean over its heads: probabilities of the softmax over text and token.

    Attributes:
        name: of the layer.
        heads: number of heads.
        views: in each view, at the layer's own size.
        given: in the input picture; None for models without a pass that reads it.
    """

    name: str
    heads: int
    views: Float[Tensor, "view height width"]
    given: Float[Tensor, "given_height given_width"] | None


@torch.no_grad()
def attention_by_layer(
    backend: Backend, tokens: Tokens, thing: ObjectViews, token: int
) -> tuple[Float[Tensor, "view 3 height width"], list[LayerAttention]]:
    """Return the object's views, and the attention of every cross-attention layer in the order of the UNet.

    Raises:
        InputError: there is no such token, or the object does not fit the model.
    """
    if not 0 <= token < len(tokens):
        raise InputError(f"there are keypoints 0 to {len(tokens) - 1}, and no {token}")
    generator = torch.Generator().manual_seed(0)
    every_layer = RecordConfig(("*",), "attention", PrepareConfig().settled(tokens.info.timestep), condition=True)
    recording = record(thing, backend, every_layer, generator)
    embedding = tokens.embedding.to(backend.device, torch.float32)
    given = recording.queries["condition"].layers if "condition" in recording.queries else ()
    found = []
    for i, layer in enumerate(recording.queries["grid"].layers):
        maps = _maps(layer, embedding, token, backend.layout)
        other = _maps(given[i], embedding, token, Layout(1, 1))[0] if given else None
        found.append(LayerAttention(layer.name, layer.query.shape[1], maps, other))
    return recording.views, found


def _maps(
    layer: LayerQueries, tokens: Float[Tensor, "token width"], token: int, layout: Layout
) -> Float[Tensor, "view map_height map_width"]:
    share = layer.probabilities(tokens, torch.zeros(1, dtype=torch.long))[0, ..., token].mean(0)
    return split_views(to_map(share[:, None], *layer.size)[0], layout)
