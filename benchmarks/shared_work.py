"""What many rows of a table have in common, done once: prepared objects, the UNet's queries, what detection records.

In isolated mode none of it depends on the tokens. Within `shared()` discovery and detection find it again: the
pictures' warps and noise are then those of seed 0 whatever the tokens' seed is, and detection records all layers where
some are asked for.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any
from unittest.mock import patch

from keyorbit.diffusion.attention import cross_attention_layers
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.prepare import Prepared, prepare_all
from keyorbit.diffusion.queries import LayerQueries, QueryCache
from keyorbit.diffusion.recording import build_query_cache

# The modules: `keyorbit.discover` is the function of that name.
_DISCOVER, _DETECT = import_module("keyorbit.discover"), import_module("keyorbit.detection.detector")
_OPEN_SOURCE = _DISCOVER.open_source
_PREPARE, _RECORD = _DETECT.prepare, _DETECT.record_passes


# The largest things kept: caches of all training objects, and recordings of single objects. A row's seeds follow one
# another, so that what the first of them made is there for the others.
MOST_CACHES, MOST_PASSES = 4, 400


class SharedWork:
    """A memory of preparations and recordings; `clear` empties it, between categories for instance."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._prepared, self._things = {}, {}
        self._caches, self._passes = _Latest(MOST_CACHES), _Latest(MOST_PASSES)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Discovery and detection inside the block use the memory."""
        with ExitStack() as stack:
            for module, name, function in (
                (_DISCOVER, "open_source", self._source),
                (_DETECT, "prepare", self._prepare),
                (_DETECT, "record_passes", self._record),
            ):
                stack.enter_context(patch.object(module, name, function))
            yield

    def prepare_all(self, objects, backend: Backend, config, seed=0, progress=None):
        """`keyorbit.diffusion.prepare.prepare_all`, once for the same objects, model and settings."""
        key = (backend.fingerprint, tuple(thing.name for thing in objects), config)
        if key not in self._prepared:
            self._prepared[key] = prepare_all(objects, backend, config, 0, progress)
        return self._prepared[key]

    def query_cache(
        self, backend: Backend, prepared: Sequence[Prepared], layers, progress=None, normalizer: bool = True, **more
    ) -> QueryCache:
        """`keyorbit.diffusion.recording.build_query_cache`, once for the same prepared objects."""
        normalizer = normalizer or (id(prepared), True) in self._caches
        whole = self._caches.get_or_make(
            (id(prepared), normalizer),
            lambda: build_query_cache(backend, prepared, "*", progress, normalizer=normalizer, **more),
        )
        return QueryCache(tuple(_chosen(backend, whole.layers, layers)), whole.versions)

    def _source(self, backend: Backend, objects, layers, kind, mode, prepare, ranks, progress):
        """`keyorbit.discovery.sources.open_source`, once for the same objects, model, layers and settings."""
        if mode != "isolated":
            return _OPEN_SOURCE(backend, objects, layers, kind, mode, prepare, ranks, progress)
        prepare = replace(prepare, seed=0)
        names = tuple(thing.name for thing in objects)
        key = (backend.fingerprint, names, tuple(cross_attention_layers(backend.unet, layers)), kind, prepare)
        return self._caches.get_or_make(
            key, lambda: _OPEN_SOURCE(backend, objects, layers, kind, mode, prepare, ranks, progress)
        )

    def _prepare(self, thing, backend: Backend, settings, generator):
        key = (backend.fingerprint, thing.name, settings, generator.initial_seed())
        if key not in self._things:
            self._things[key] = _PREPARE(thing, backend, settings, generator)
        return self._things[key]

    def _record(self, backend: Backend, prepared: Prepared, layers, *args, **more):
        key = (id(prepared), repr(args), repr(more))
        whole = self._passes.get_or_make(key, lambda: _RECORD(backend, prepared, "*", *args, **more))
        return {which: list(_chosen(backend, found, layers)) for which, found in whole.items()}


def _chosen(backend: Backend, recorded: Sequence[LayerQueries], layers) -> Iterator[LayerQueries]:
    names = set(cross_attention_layers(backend.unet, layers))
    return (layer for layer in recorded if layer.name in names)


class _Latest(OrderedDict):
    """Keeps the last used ``most`` things."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def get_or_make(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self:
            self[key] = make()
        self.move_to_end(key)
        while len(self) > self.most:
            self.popitem(last=False)
        return self[key]
