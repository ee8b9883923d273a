"""What a discovery reads: maps of each object from tokens, and what is known of the object and its model.

Queries in memory, the UNet itself (joint mode) and a cache on disk (:mod:`keyorbit.discovery.cache.disk`) give the
same.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.diffusion.attention import Mode, cross_attention_layers
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.maps import LayerMaps, MapKind
from keyorbit.diffusion.prepare import PrepareConfig, Prepared, Shown, on_one_rig, prepare_numbered
from keyorbit.diffusion.queries import QueryCache
from keyorbit.diffusion.recording import object_queries, unet_maps
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.views import Layout
from keyorbit.objects.dataset import Objects
from keyorbit.ranks import Ranks

log = logging.getLogger(__name__)

# Versions of an object that go through the UNet together: more would only take more memory.
AT_ONCE = 4


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """What a discovery needs to know of a model whose weights it may not have.

    layers: names of those that are read; latent_side: of one view; text_rows: what its text embeddings look like.
    """

    name: str
    fingerprint: str
    layers: tuple[str, ...]
    layout: Layout
    cameras: Cameras | None
    latent_side: int
    text_rows: Float[Tensor, "row width"]
    cameras_of: str = ""


def model_facts(backend: Backend, layers: str | Sequence[str], cameras: Cameras | None) -> ModelFacts:
    """The facts of a loaded model; ``cameras`` are those of the objects' views.

    The words behind the text rows are drawn from a generator of their own: they belong to the model, not to a run.
    """
    return ModelFacts(
        backend.name,
        backend.fingerprint,
        tuple(cross_attention_layers(backend.unet, layers)),
        backend.layout,
        cameras,
        backend.latent_size(backend.view_size, backend.view_size)[0],
        backend.text_statistics(torch.Generator().manual_seed(0)).float().cpu(),
        backend.cameras_of,
    )


@runtime_checkable
class Source(Protocol):
    """Objects as a discovery sees them. Only those that this process owns can be asked for."""

    @property
    def facts(self) -> ModelFacts:
        """Of the model."""

    @property
    def versions(self) -> int:
        """How many there are of each object."""

    @property
    def device(self) -> torch.device:
        """Where maps are computed."""

    def __len__(self) -> int:
        """How many objects there are, here and in other processes."""

    def shown(self, number: int) -> Shown:
        """What there is to know of an object besides its queries."""

    def maps(self, number: int, tokens: Float[Tensor, "token width"]) -> list[LayerMaps]:
        """The layers' maps of all versions of an object, differentiable in the tokens; see :meth:`QueryCache.maps`."""


@dataclass(frozen=True, eq=False)
class MemorySource:
    """Queries of this process's objects in memory."""

    facts: ModelFacts
    versions: int
    device: torch.device
    count: int
    kind: MapKind
    known: dict[int, Shown]
    queries: dict[int, QueryCache]

    def __len__(self) -> int:
        return self.count

    def shown(self, number: int) -> Shown:
        return self.known[number]

    def maps(self, number: int, tokens: Float[Tensor, "token width"]) -> list[LayerMaps]:
        return self.queries[number].maps(tokens, slice(None), self.kind)


@dataclass(frozen=True, eq=False)
class UnetSource:
    """The UNet run with the tokens at every step: the objects are kept as it is shown them."""

    facts: ModelFacts
    versions: int
    count: int
    kind: MapKind
    mode: Mode
    known: dict[int, Shown]
    backend: Backend
    prepared: dict[int, Prepared]

    @property
    def device(self) -> torch.device:
        return self.backend.device

    def __len__(self) -> int:
        return self.count

    def shown(self, number: int) -> Shown:
        return self.known[number]

    def maps(self, number: int, tokens: Float[Tensor, "token width"]) -> list[LayerMaps]:
        return unet_maps(self.backend, [self.prepared[number]], tokens, self.facts.layers, self.mode, self.kind)


def check_shares(count: int, ranks: Ranks) -> None:
    """Raise InputError unless there is an object for every process."""
    if not count:
        raise InputError("there are no objects to work on")
    if count < ranks.count:
        raise InputError(f"{count} objects cannot be shared by {ranks.count} processes; start fewer")


def open_source(
    backend: Backend,
    objects: Objects,
    layers: str | Sequence[str],
    kind: MapKind,
    mode: Mode,
    prepare: PrepareConfig,
    ranks: Ranks,
    progress: Callable[[int, int], None],
) -> MemorySource | UnetSource:
    """Prepare this process's objects and, in isolated mode, run each once for its queries; ``prepare`` has a seed.

    Raises:
        InputError: there is no object, or the objects do not fit the model or share no set of cameras.
    """
    assert prepare.seed is not None
    known: dict[int, Shown] = {}
    prepared: dict[int, Prepared] = {}
    queries: dict[int, QueryCache] = {}
    cameras: Cameras | None = None
    check_shares(len(objects), ranks)
    began = time.monotonic()
    for number, (thing, cameras) in enumerate(on_one_rig(objects, backend)):  # noqa: B007 (the cameras are read after it)
        if ranks.owns(number):
            item = prepare_numbered(thing, number, backend, prepare)
            known[number] = item.shown()
            if mode == "isolated":
                queries[number] = object_queries(backend, item, layers, kind, AT_ONCE)
            else:
                prepared[number] = item
        progress(number + 1, len(objects))
    facts = model_facts(backend, layers, cameras)
    versions, count = prepare.versions(backend.default_timestep), len(objects)
    held = sum(layer.query.nbytes for cache in queries.values() for layer in cache.layers) / 1e6
    what = f"queries, {held:.1f} MB" if mode == "isolated" else "latents"
    log.info("%s of %d objects in %d versions each, in %.1f s", what, len(known), versions, time.monotonic() - began)
    if mode == "isolated":
        return MemorySource(facts, versions, backend.device, count, kind, known, queries)
    return UnetSource(facts, versions, count, kind, mode, known, backend, prepared)
