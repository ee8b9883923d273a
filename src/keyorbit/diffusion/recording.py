"""What the UNet knows about each object, computed once: the cross-attention queries.

In isolated mode the queries do not depend on the tokens, so after this a step of discovery is a few matrix products.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from keyorbit.diffusion.attention import PASSES, TEXT_TOKENS, Heads, LayerRecord, Mode, Pass, capture_attention
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.maps import LayerMaps, MapKind
from keyorbit.diffusion.prepare import Prepared
from keyorbit.diffusion.queries import LayerQueries, QueryCache, join_items, merge_layers


@torch.no_grad()
def record_queries(
    backend: Backend,
    prepared: Prepared,
    layers: str | Sequence[str],
    unet_pass: Pass = "grid",
    normalizer: bool = True,
) -> list[LayerQueries]:
    """One object's queries in every version; the items are its versions."""
    return record_passes(backend, prepared, layers, (unet_pass,), normalizer)[unet_pass]


@torch.no_grad()
def record_passes(
    backend: Backend,
    prepared: Prepared,
    layers: str | Sequence[str],
    passes: Sequence[Pass] | None = None,
    normalizer: bool = True,
) -> dict[Pass, list[LayerQueries]]:
    """The queries of the passes (all that the model has) from one run of the UNet, no further than to the last layer.

    Without ``normalizer`` they give logits only, and cost less.
    """
    if passes is None:
        passes = PASSES if backend.has_condition_pass else ("grid",)
    with capture_attention(backend.unet, layers, passes, normalizer=normalizer, queries=True, stop=True) as record:
        run_unet(backend, prepared, prepared.context)
    return {which: [_layer_queries(backend.unet, layer) for layer in record.layers(which)] for which in passes}


def object_queries(
    backend: Backend, prepared: Prepared, layers: str | Sequence[str], kind: MapKind, at_once: int
) -> QueryCache:
    """What maps of that kind need of one object, as small as it can be; for logits, the layers of one size become one.

    ``at_once`` versions go through the UNet together.
    """
    parts = []
    for some in prepared.split(at_once):
        recorded = record_queries(backend, some, layers, normalizer=kind == "attention")
        parts.append(merge_layers(recorded) if kind == "logits" else recorded)
    return QueryCache(tuple(join_items(same) for same in zip(*parts, strict=True)), len(prepared.latents))


@torch.no_grad()
def layer_outlines(backend: Backend, layers: str | Sequence[str], kind: MapKind) -> list[LayerQueries]:
    """What :func:`object_queries` gives for no item at all: sizes and key matrices.

    A UNet without memory is run on nothing, for the shapes.
    """
    unet, side = backend.unet, backend.latent_size(backend.view_size, backend.view_size)[0]
    hollow: Any
    with torch.device("meta"):
        hollow = type(unet).from_config(unet.config)
        latent = torch.empty(1, unet.config.in_channels, backend.layout.rows * side, backend.layout.cols * side)
        context = torch.empty(1, TEXT_TOKENS + 1, unet.config.cross_attention_dim)
        with capture_attention(hollow, layers, ("grid",), normalizer=False, queries=True, stop=True) as record:
            hollow(latent, torch.zeros(1), context)
    outlines = []
    for layer in record.layers():
        assert layer.query is not None
        empty = torch.empty(0, *layer.query.shape[1:], device=backend.device)
        outlines.append(LayerQueries(layer.name, layer.size, empty, None, _layer_key(unet, layer.name)))
    return merge_layers(outlines) if kind == "logits" else outlines


def _layer_queries(unet: nn.Module, layer: LayerRecord) -> LayerQueries:
    assert layer.query is not None
    to_key = _layer_key(unet, layer.name)
    return LayerQueries(layer.name, layer.size, layer.query, layer.text_normalizer, to_key)


def _layer_key(unet: nn.Module, name: str) -> Float[Tensor, "inner width"]:
    """The matrix that makes keys; where a layer is no plain one (LoRA), what it does to the unit vectors."""
    to_k = unet.get_submodule(f"{name}.to_k")
    weight: Tensor = to_k.weight.detach()  # type: ignore[operator]
    if not isinstance(to_k, nn.Linear):
        weight = to_k(torch.eye(weight.shape[1], device=weight.device, dtype=weight.dtype)).T
    return weight.float()


def run_unet(backend: Backend, prepared: Prepared, context: Tensor) -> Tensor:
    """All passes on a prepared object, with this context."""
    return backend.denoise(
        prepared.latents, prepared.timestep, context, prepared.condition_latent, prepared.condition_noise
    )


def build_query_cache(
    backend: Backend,
    prepared: Sequence[Prepared],
    layers: str | Sequence[str],
    progress: Callable[[int, int], None] | None = None,
    normalizer: bool = True,
) -> QueryCache:
    """Run every object once and keep the grid pass's queries in memory; see :func:`record_passes`."""
    recorded: list[list[LayerQueries]] = []
    for i, item in enumerate(prepared):
        recorded.append(record_queries(backend, item, layers, normalizer=normalizer))
        if progress is not None:
            progress(i + 1, len(prepared))
    return QueryCache(tuple(join_items(same) for same in zip(*recorded, strict=True)), len(prepared[0].latents))


def unet_maps(
    backend: Backend,
    prepared: Sequence[Prepared],
    tokens: Float[Tensor, "token width"],
    layers: str | Sequence[str],
    mode: Mode,
    kind: MapKind,
) -> list[LayerMaps]:
    """The tokens' maps through the UNet itself, differentiable: what joint mode needs at every step.

    The items are all versions of the first object, then of the next. For ``kind`` see :meth:`QueryCache.maps`.
    """
    together = Prepared.join(prepared)
    rows = tokens.to(together.context).expand(len(together.context), *tokens.shape)
    attention = kind == "attention"
    heads: Heads = "each" if kind == "stablekeypoints" else "mean"
    with capture_attention(
        backend.unet, layers, ("grid",), mode, heads=heads, normalizer=attention, stop=True
    ) as record:
        run_unet(backend, together, torch.cat([together.context, rows], dim=1))
    return record.token_maps() if kind == "attention" else record.token_logits()
