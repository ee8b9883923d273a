"""What many rows of a table have in common, done once: prepared objects, the UNet's queries, what detection records.

In isolated mode none of it depends on the tokens. Within `shared()` discovery and detection find it again: the
pictures' warps and noise are then those of seed 0 whatever the tokens' seed is, and all layers are recorded where some
are asked for.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import keyorbit.detect
import keyorbit.discover
from keyorbit.attention import cross_attention_layers
from keyorbit.backends.base import Backend
from keyorbit.prepare import Prepared
from keyorbit.query_cache import LayerQueries, QueryCache

_PREPARE_ALL = keyorbit.discover.prepare_all
_BUILD = keyorbit.discover.build_query_cache
_PREPARE = keyorbit.detect.prepare
_RECORD = keyorbit.detect.record_passes


class SharedWork:
    """A memory of preparations and recordings; `clear` empties it, between categories for instance."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._prepared, self._caches, self._things, self._passes = {}, {}, {}, {}

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Discovery and detection inside the block use the memory."""
        with ExitStack() as stack:
            for module, name, function in (
                (keyorbit.discover, "prepare_all", self.prepare_all),
                (keyorbit.discover, "build_query_cache", self.query_cache),
                (keyorbit.detect, "prepare", self._prepare),
                (keyorbit.detect, "record_passes", self._record),
            ):
                stack.enter_context(patch.object(module, name, function))
            yield

    def prepare_all(self, objects, backend: Backend, config, seed=0, progress=None):
        """`keyorbit.prepare.prepare_all`, once for the same objects, model and settings."""
        key = (backend.fingerprint, tuple(thing.name for thing in objects), config)
        if key not in self._prepared:
            self._prepared[key] = _PREPARE_ALL(objects, backend, config, 0, progress)
        return self._prepared[key]

    def query_cache(
        self, backend: Backend, prepared: Sequence[Prepared], layers, progress=None, normalizer: bool = True, **more
    ) -> QueryCache:
        """`keyorbit.query_cache.build_query_cache`, once for the same prepared objects."""
        if (id(prepared), True) in self._caches:
            normalizer = True
        key = (id(prepared), normalizer)
        if key not in self._caches:
            self._caches[key] = _BUILD(backend, prepared, "*", progress, normalizer=normalizer, **more)
        whole = self._caches[key]
        return QueryCache(tuple(_chosen(backend, whole.layers, layers)), whole.versions)

    def _prepare(self, thing, backend: Backend, settings, generator):
        key = (backend.fingerprint, thing.name, settings, generator.initial_seed())
        if key not in self._things:
            self._things[key] = _PREPARE(thing, backend, settings, generator)
        return self._things[key]

    def _record(self, backend: Backend, prepared: Prepared, layers, *args, **more):
        key = (id(prepared), repr(args), repr(more))
        if key not in self._passes:
            self._passes[key] = _RECORD(backend, prepared, "*", *args, **more)
        return {which: list(_chosen(backend, found, layers)) for which, found in self._passes[key].items()}


def _chosen(backend: Backend, recorded: Sequence[LayerQueries], layers) -> Iterator[LayerQueries]:
    names = set(cross_attention_layers(backend.unet, layers))
    return (layer for layer in recorded if layer.name in names)
