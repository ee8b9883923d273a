"""What the model computes of one object before any token is read: recorded once, read with any tokens.

In isolated mode the cross-attention queries do not depend on the tokens. From a recording, a step of discovery or a
detection is a few matrix products.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from keyorbit.budget import check_budget
from keyorbit.diffusion.attention import TEXT_TOKENS, capture_attention
from keyorbit.diffusion.backends.base import Backend, Watch
from keyorbit.diffusion.captured import PASSES, LayerRecord, Pass
from keyorbit.diffusion.choices import MapKind, Mode, TokensMode
from keyorbit.diffusion.config import RecordConfig
from keyorbit.diffusion.layer_capture import Heads
from keyorbit.diffusion.maps import LayerMaps
from keyorbit.diffusion.prepare import Prepared, Shown, prepare_together
from keyorbit.diffusion.queries import LayerQueries, QueryCache, join_items, merge_layers
from keyorbit.diffusion.turns import own_turn
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.objects.dataset import ObjectViews
from keyorbit.results import Result, number_of, told

T = TypeVar("T")

# Versions that go through the UNet together, or two for each object where that is more: as many as with the guidance
# that generates their views. More would only take more memory.
AT_ONCE = 4
# Objects that are recorded together, unless told otherwise. Of less than about 8 items at full size a GPU waits for its
# kernels to be launched; a CPU gains nothing.
BATCH, BATCH_ON_CPU = 8, 1
# Times that an object's grids are held at once while they are warped and encoded, at least.
_GRIDS = 4
# How tokens of each mode are captured; of those that are alone, no row of the context is text.
_CAPTURED: dict[TokensMode, Mode] = {"isolated": "isolated", "joint": "joint", "alone": "joint"}
# Versions of objects whose recordings are not worth an estimate.
_FEW = 16


@dataclass(frozen=True, eq=False, repr=False)
class Recording(Result):
    """One object as the model sees it. Any tokens can be read from it, without the UNet.

    Attributes:
        thing: the object.
        views: its own views at the model's size, or those that the model generated, 0…1.
        cameras: of the views; None for a model of a single view.
        shown: warps and silhouettes of all versions.
        queries: of each recorded pass, all versions.
        config: what was recorded.
        fingerprint: of the model's weights.
        context: what the UNet read in place of the text: tokens that are its whole context. Default None: the text.
    """

    thing: ObjectViews
    views: Float[Tensor, "view 3 height width"]
    cameras: Cameras | None
    shown: Shown
    queries: Mapping[Pass, QueryCache]
    config: RecordConfig
    fingerprint: str = ""
    context: Float[Tensor, "token channel"] | None = None

    def __repr__(self) -> str:
        layers = sum(len(cache.layers) for cache in self.queries.values())
        size = number_of(len(self.views), "view"), number_of(len(self), "version"), number_of(layers, "recorded layer")
        return told("Recording", (repr(self.thing.name), *size, f"maps of kind {self.config.maps}"))

    def __len__(self) -> int:
        """The number of versions that the object was shown in: warps and draws of noise."""
        return next((cache.versions for cache in self.queries.values()), 0)

    def without_pictures(self) -> "Recording":
        """The same without the object's pictures, which take most of the memory and are not read by discovery."""
        nothing = ObjectViews(self.thing.name, Image.new("RGB", (1, 1)))
        return replace(self, thing=nothing, views=self.views[:0].clone())

    def maps(self, tokens: Float[Tensor, "token width"], which: Pass = "grid") -> list[LayerMaps]:
        """The layers' maps of all versions, differentiable in the tokens; see :meth:`QueryCache.maps`."""
        return self.queries[which].maps(tokens, slice(None), self.config.maps)


def record(
    thing: ObjectViews,
    backend: Backend,
    config: RecordConfig,
    generator: torch.Generator,
    context: Float[Tensor, "token channel"] | None = None,
    watch: Watch | None = None,
) -> Recording:
    """Prepare an object and run the UNet on it, once; ``generator`` draws warps, noise and generated views.

    ``context`` is read by the UNet in place of the text: of tokens of mode ``alone``, whose maps follow from it.
    ``watch`` is called while views are generated, see :data:`keyorbit.diffusion.backends.base.Watch`.

    Raises:
        InputError: the object does not fit the model.
    """
    return record_together([thing], backend, config, [generator], context, watch)[0]


def record_each(
    items: Iterable[tuple[ObjectViews, torch.Generator]],
    backend: Backend,
    config: RecordConfig,
    batch: int | None = None,
    context: Float[Tensor, "token channel"] | None = None,
) -> Iterator[Recording]:
    """The same of many objects with a generator for each, in order; they are taken and held ``batch`` at a time.

    Whatever is drawn for an object comes from its own generator. So its recording does not depend on its neighbours or
    on ``batch``, but for rounding. ``batch`` is 1 or more, by default that of :func:`settled_batch`.

    Raises:
        InputError: ``batch`` is below 1, or an object does not fit the model.
    """
    for some in in_batches(items, settled_batch(batch, backend.device)):
        things, generators = zip(*some, strict=True)
        yield from record_together(things, backend, config, generators, context)


def settled_batch(batch: int | None, device: torch.device) -> int:
    """How many objects are recorded together: ``batch``, or by default 1 on the CPU and 8 on other devices.

    Raises:
        InputError: ``batch`` is below 1.
    """
    if batch is None:
        return BATCH_ON_CPU if device.type == "cpu" else BATCH
    if batch < 1:
        raise InputError(f"batch must be 1 or more, not {batch}")
    return batch


def in_batches(items: Iterable[T], count: int) -> Iterator[list[T]]:
    """At most ``count`` items at a time, in order."""
    rest = iter(items)
    while some := list(islice(rest, count)):
        yield some


@torch.no_grad()
def record_together(
    things: Sequence[ObjectViews],
    backend: Backend,
    config: RecordConfig,
    generators: Sequence[torch.Generator],
    context: Float[Tensor, "token channel"] | None = None,
    watch: Watch | None = None,
) -> list[Recording]:
    """One batch of :func:`record_each`. Threads that share a model do this one after the other.

    Raises:
        InputError: an object does not fit the model.
    """
    with own_turn(backend.unet):
        found = prepare_together(things, backend, config.prepare, generators, config.blind, watch)
        if context is not None:
            found = [(prepared.reading(context), seen) for prepared, seen in found]
        at_once = max(AT_ONCE, 2 * len(found))
        queries: list[dict[Pass, QueryCache]] = []
        for some in in_batches((prepared for prepared, _ in found), max(1, at_once // config.prepare.versions)):
            queries += _apart(record_prepared(backend, Prepared.join(some), config, at_once), len(some))
    return [
        Recording(thing, seen.views, seen.cameras, prepared.shown(), own, config, backend.fingerprint, context)
        for thing, (prepared, seen), own in zip(things, found, queries, strict=True)
    ]


@torch.no_grad()
def record_prepared(
    backend: Backend, prepared: Prepared, config: RecordConfig, at_once: int = AT_ONCE
) -> dict[Pass, QueryCache]:
    """The queries of what is prepared, ``at_once`` versions at a time, in the form that its maps need."""
    passes: Sequence[Pass] = PASSES if config.condition and backend.has_condition_pass else ("grid",)
    parts: dict[Pass, list[list[LayerQueries]]] = {which: [] for which in passes}
    for some in prepared.split(at_once):
        recorded = record_passes(backend, some, config.layers, passes, normalizer=config.maps == "attention")
        for which, layers in recorded.items():
            parts[which].append(merge_layers(layers) if config.maps == "logits" else layers)
    return {
        which: QueryCache(tuple(join_items(same) for same in zip(*some, strict=True)), len(prepared.latents))
        for which, some in parts.items()
    }


def _apart(queries: Mapping[Pass, QueryCache], count: int) -> list[dict[Pass, QueryCache]]:
    """The queries of ``count`` objects that were recorded as one, without a copy."""
    found = []
    for number in range(count):
        own: dict[Pass, QueryCache] = {}
        for which, cache in queries.items():
            versions = cache.versions // count
            items = slice(number * versions, (number + 1) * versions)
            own[which] = QueryCache(tuple(_items(layer, items) for layer in cache.layers), versions)
        found.append(own)
    return found


def _items(layer: LayerQueries, items: slice) -> LayerQueries:
    normalizer = None if layer.text_normalizer is None else layer.text_normalizer[items]
    return replace(layer, query=layer.query[items], text_normalizer=normalizer)


@torch.no_grad()
def record_passes(
    backend: Backend,
    prepared: Prepared,
    layers: str | Sequence[str],
    passes: Sequence[Pass] = ("grid",),
    normalizer: bool = True,
) -> dict[Pass, list[LayerQueries]]:
    """Every layer's queries of these passes from one run of the UNet, no further than to the last layer.

    Without ``normalizer`` they give logits only, and cost less.
    """
    text = prepared.context.shape[1]
    with capture_attention(
        backend.unet, layers, passes, text_tokens=text, normalizer=normalizer, queries=True, stop=True
    ) as record:
        run_unet(backend, prepared, prepared.context)
    return {which: [_layer_queries(backend.unet, layer) for layer in record.layers(which)] for which in passes}


def joined(recordings: Sequence[Recording], which: Pass = "grid") -> QueryCache:
    """The queries of several objects as one cache: all versions of the first object, then of the next."""
    each = [recording.queries[which] for recording in recordings]
    layers = tuple(join_items(same) for same in zip(*(cache.layers for cache in each), strict=True))
    return QueryCache(layers, each[0].versions)


@torch.no_grad()
def layer_outlines(backend: Backend, layers: str | Sequence[str], kind: MapKind) -> list[LayerQueries]:
    """What :func:`record` keeps of the grid pass for no item at all: sizes and key matrices.

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
        empty = torch.empty(0, *_query(layer).shape[1:], device=backend.device)
        outlines.append(LayerQueries(layer.name, layer.size, empty, None, _layer_key(unet, layer.name)))
    return merge_layers(outlines) if kind == "logits" else outlines


def check_recordings(backend: Backend, config: RecordConfig, objects: int, kept: int = 0) -> None:
    """Raise an error where what is recorded does not fit into the memory that is free; nothing is computed.

    Args:
        backend: the model.
        config: what is recorded.
        objects: number of objects that are recorded together.
        kept: number of all objects whose recordings are kept, those among them. Default 0: none is kept.

    Raises:
        InputError: it does not fit; the message gives the numbers and the remedy.
    """
    if config.prepare.versions * max(objects, kept) <= _FEW:
        return  # the model itself takes more
    shown, pixels = config.prepare, backend.layout.num_views * backend.view_size**2
    queries = sum(
        math.prod(outline.query.shape[1:]) + outline.query.shape[1] * outline.query.shape[2]
        for outline in layer_outlines(backend, config.layers, config.maps)
    )
    each = shown.versions * (4 * queries + pixels)
    check_budget(
        {
            f"{shown.warps} warps of {objects} objects": (
                _GRIDS * (1 + shown.warps) * 12 * pixels * objects,
                "ask for fewer warps, or for fewer objects together",
            ),
            f"the queries of {max(objects, kept)} objects in {shown.versions} versions": (
                each * max(objects, kept),
                "ask for fewer warps, noises, timesteps, layers or objects, or build a cache on disk",
            ),
        },
        backend.device,
    )


def _layer_queries(unet: nn.Module, layer: LayerRecord) -> LayerQueries:
    return LayerQueries(layer.name, layer.size, _query(layer), layer.text_normalizer, _layer_key(unet, layer.name))


def _query(layer: LayerRecord) -> Tensor:
    if layer.query is None:
        raise ValueError(f"layer {layer.name} was captured without its queries: pass queries=True")
    return layer.query


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


def unet_maps(
    backend: Backend,
    prepared: Sequence[Prepared],
    tokens: Float[Tensor, "token width"],
    layers: str | Sequence[str],
    mode: TokensMode,
    kind: MapKind,
) -> list[LayerMaps]:
    """The tokens' maps through the UNet itself, differentiable: what all modes but isolated need at every step.

    The items are all versions of the first object, then of the next. For ``kind`` see :meth:`QueryCache.maps`.
    """
    together = Prepared.join(prepared)
    rows = tokens.to(together.context).expand(len(together.context), *tokens.shape)
    attention = kind == "attention"
    heads: Heads = "each" if kind == "stablekeypoints" else "mean"
    text = together.context[:, :0] if mode == "alone" else together.context
    place, own = text.shape[1], _CAPTURED[mode]
    with capture_attention(
        backend.unet, layers, ("grid",), own, place, heads=heads, normalizer=attention, stop=True
    ) as record:
        run_unet(backend, together, torch.cat([text, rows], dim=1))
    return record.token_maps() if kind == "attention" else record.token_logits()
