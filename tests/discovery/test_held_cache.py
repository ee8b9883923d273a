"""What was read of a cache stays where there is room, and what is read ahead is the same."""

from dataclasses import replace

import pytest
import torch

from keyorbit.budget import free_host_bytes
from keyorbit.discovery.cache.build import build_cache
from keyorbit.discovery.cache.held import HeldCache
from keyorbit.discovery.cache.index import plan_cache
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import discover_cached, discover_from
from keyorbit.errors import InputError

CONFIG = DiscoverConfig(num_tokens=3, num_candidates=4, steps=3, batch=2, planting=2, exemplars=2)


@pytest.fixture(scope="module", params=["float32", "float16"])
def cache(request, backend, objects, tmp_path_factory):
    index = plan_cache(backend, objects, CONFIG, request.param)
    return build_cache(backend, objects, index, tmp_path_factory.mktemp("cache"))


def size(cache):
    return sum(x.nbytes for x in cache.stored(0))


@pytest.mark.parametrize(("on_device", "in_memory"), [(9, 9), (1, 1), (0, 2), (0, 0)])
def test_tokens_are_the_same_wherever_objects_are_held(cache, on_device, in_memory):
    held = HeldCache(cache, on_device * size(cache), in_memory * size(cache))
    config = CONFIG.settled_as(cache.index.pattern, cache.index.maps, cache.index.prepare)
    found = discover_from(held, config, queries=cache.index.dtype)
    assert torch.equal(found.embedding, discover_cached(cache, CONFIG).embedding)
    assert len(held.on_device) == min(len(cache), on_device)
    assert len(held.in_memory) == min(len(cache) - len(held.on_device), in_memory)


def test_every_object_is_read_once_where_there_is_room(cache, monkeypatch):
    read, stored = [], type(cache).stored
    monkeypatch.setattr(type(cache), "stored", lambda self, number: (read.append(number), stored(self, number))[1])
    held = HeldCache(cache, 10**12, 0)
    held.ahead([1, 0])
    held.ahead([1])
    kept = [held.queries(number) for number in (0, 1, 2, 1)]
    assert sorted(read) == [0, 1, 2]
    assert kept[1] is kept[3]
    # In the type they are stored in: half the room.
    assert {layer.query.dtype for layer in kept[0].layers} == {getattr(torch, cache.index.dtype)}


def test_what_cannot_be_read_ahead_is_told_when_it_is_needed(cache):
    gone = HeldCache(replace(cache, folder=cache.folder / "gone"), 0, 0)
    gone.ahead([0])
    with pytest.raises(InputError, match="can no longer be read"):
        gone.queries(0)


def test_free_memory_is_known_here():
    assert free_host_bytes() > 10**6
