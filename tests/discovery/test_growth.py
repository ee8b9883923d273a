"""What a discovery reads does not grow with the cache that it is read from."""

import json
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch

from growth import repeat
from keyorbit.diffusion.config import PrepareConfig
from keyorbit.discovery import run as running
from keyorbit.discovery.cache import disk
from keyorbit.discovery.cache import index as indices
from keyorbit.discovery.cache.build import build_cache
from keyorbit.discovery.cache.disk import open_cache, shard_path
from keyorbit.discovery.cache.index import plan_cache
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import start_run
from keyorbit.discovery.draws import first_shuffled
from keyorbit.errors import InputError
from keyorbit.ranks import Ranks

MANY = 120
CONFIG = DiscoverConfig(
    num_tokens=2, num_candidates=3, steps=4, batch=3, planting=2, exemplars=2, prepare=PrepareConfig(warps=0, noises=1)
)


@pytest.fixture(scope="module")
def folder(backend, objects, tmp_path_factory):
    """A cache of many objects, each in a file of its own."""
    place = tmp_path_factory.mktemp("growth")
    few = build_cache(backend, objects, plan_cache(backend, objects, CONFIG), place / "few")
    repeat(few, place / "many", MANY, per_shard=1)
    return place / "many"


@pytest.fixture
def opened(monkeypatch):
    """How often each file of a cache is opened from here on, by its name."""
    count, original = Counter(), disk.safe_open

    def counted(path, **settings):
        count[path.name] += 1
        return original(path, **settings)

    monkeypatch.setattr(disk, "safe_open", counted)
    return count


def files(numbers):
    return {f"shard_{number:05d}.safetensors" for number in numbers}


def started(cache, **settings):
    config = replace(CONFIG, **settings).settled_as(cache.index.pattern, cache.index.maps, cache.index.prepare)
    return start_run(cache, config, Ranks())


def test_opening_a_cache_opens_three_files_and_hashes_its_index_once(folder, opened, monkeypatch):
    hashed, original = [], json.dumps
    monkeypatch.setattr(indices.json, "dumps", lambda *args, **how: (hashed.append(1), original(*args, **how))[1])
    open_cache(folder)
    assert len(opened) == 3
    assert len(hashed) == 1


@pytest.mark.parametrize("method", ["constellation", "consistency"])
def test_a_step_opens_its_own_objects_alone(folder, opened, method, monkeypatch):
    run = started(open_cache(folder), method=method)
    opened.clear()
    run.begin(lambda done, total: None)
    assert len(opened) <= 2 + 17  # what is planted on, and the objects that choose among these
    for number in range(3):
        opened.clear()
        run.step(number)
        assert set(opened) == files(run.picked(number))
        assert max(opened.values()) <= 2  # its queries, and what is known besides
    monkeypatch.setattr(running, "JUDGES", 10)
    opened.clear()
    run.select()
    assert set(opened) == files(run.judges())
    assert len(run.judges()) == len({*run.judges()}) == 10


def test_few_objects_all_choose(folder):
    run = started(open_cache(folder))
    assert [*run.judges()] == [*range(MANY)]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1000])
def test_a_few_of_a_shuffle_are_its_first(count):
    for most in (1, 2, 8, count):
        ours, theirs = (torch.Generator().manual_seed(most) for _ in range(2))
        assert first_shuffled(count, most, ours) == torch.randperm(count, generator=theirs)[:most].tolist()


def test_a_shard_amid_the_others_is_checked_too(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    path = shard_path(copy, 50)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"shard_00050.*truncated.*bytes for"):
        open_cache(copy)
    # Of another cache, and as long: seen when it is read.
    path.write_bytes(whole.replace(open_cache(folder).index.identity.encode(), b"0" * 16))
    cache = open_cache(copy)
    cache.queries(49)
    with pytest.raises(InputError, match=r"shard_00050.*another cache"):
        cache.queries(50)
