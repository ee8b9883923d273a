"""Query caches, wrong in one place: one sentence, or a discovery from them."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.hostile import answer
from helpers.spoiling import FEWER, damaged, outcome, rewritten, spoiled
from keyorbit.diffusion.config import PrepareConfig
from keyorbit.discovery.cache.build import build_cache
from keyorbit.discovery.cache.disk import open_cache
from keyorbit.discovery.cache.index import plan_cache, read_index
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import discover_cached

CONFIG = DiscoverConfig(num_tokens=2, num_candidates=3, steps=1, batch=2, planting=1, exemplars=1)


@pytest.fixture(scope="module")
def whole(backend, objects, tmp_path_factory):
    """Two shards, the second with one object."""
    folder = tmp_path_factory.mktemp("cache")
    config = replace(CONFIG, prepare=PrepareConfig(noises=1, timestep=(100, 300)))
    build_cache(backend, objects, replace(plan_cache(backend, objects, config), objects_per_shard=2), folder)
    return folder


@pytest.fixture(scope="module")
def copy(whole, tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")

    def anew():
        shutil.copytree(whole, folder, dirs_exist_ok=True)
        return folder

    return anew


@FEWER
@given(data=st.data())
def test_every_field_of_the_index(data, copy, tally):
    """As it is found; with the identity that belongs to it; and with files that say that they belong to it."""
    folder = copy()
    path = folder / "index.json"
    values = json.loads(path.read_text())
    place, values = data.draw(spoiled(values))
    how = data.draw(st.sampled_from(["by hand", "identity", "identity everywhere"]))
    path.write_text(json.dumps(values))
    if how != "by hand" and outcome(lambda: relabelled(folder, values, how.endswith("everywhere"))) == "one sentence":
        tally["caches", f"a field of the index ({how})", "one sentence"] += 1
        return
    come = outcome(lambda: discover_cached(open_cache(folder, "cpu"), CONFIG))
    tally["caches", f"a field of the index ({how})", come] += 1
    if how == "by hand" and place:
        assert come == "one sentence"


def relabelled(folder, values, everywhere):
    """Give the index the identity that it would have, and all files, too."""
    import hashlib

    rest = {k: v for k, v in values.items() if k != "identity"} if isinstance(values, dict) else values
    identity = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]
    if isinstance(values, dict):
        (folder / "index.json").write_text(json.dumps({"identity": identity, **rest}))
    read_index(folder)
    for file in folder.glob("*.safetensors") if everywhere else ():
        rewritten(file, keyorbit=identity)


@FEWER
@given(data=st.data())
def test_every_byte_of_every_file(data, copy, tally):
    folder = copy()
    path = data.draw(st.sampled_from(sorted(x for x in folder.iterdir() if not x.name.startswith("."))))
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    tally["caches", "damaged bytes", outcome(lambda: discover_cached(open_cache(folder, "cpu"), CONFIG))] += 1


@FEWER
@given(data=st.data())
def test_every_tensor(data, copy, tally):
    """Of the right type and shape, with numbers that no recording has."""
    from safetensors.torch import load_file

    folder = copy()
    path = data.draw(st.sampled_from(sorted(folder.glob("*.safetensors"))))
    tensors = load_file(path)
    name = data.draw(st.sampled_from(sorted(tensors)))
    if tensors[name].is_floating_point():
        value = data.draw(st.sampled_from([float("nan"), float("inf"), float("-inf"), 3e38, 0.0]))
    else:
        value = data.draw(st.sampled_from([0, 255]))
    rewritten(path, tensors | {name: torch.full_like(tensors[name], value)})
    come = outcome(lambda: discover_cached(open_cache(folder, "cpu"), CONFIG))
    tally["caches", "a tensor", come] += 1


def missing(folder):
    (folder / "shard_00001.safetensors").unlink()


def swapped(folder):
    first, second = folder / "shard_00000.safetensors", folder / "shard_00001.safetensors"
    first.rename(folder / "aside")
    second.rename(first)
    (folder / "aside").rename(second)


def a_folder(folder):
    (folder / "index.json").unlink()
    (folder / "index.json").mkdir()


def deep(folder):
    (folder / "index.json").write_text('{"a":' * 100_000)


def long_number(folder):
    (folder / "index.json").write_text('{"versions": ' + "9" * 5000 + "}")


@pytest.mark.parametrize("spoil", [missing, swapped, a_folder, deep, long_number])
def test_the_command_line_says_it_in_one_sentence(spoil, copy, tmp_path, tally):
    folder = shutil.copytree(copy(), tmp_path / "cache")
    spoil(folder)
    came = answer("discover", "--cache", folder, "--out", tmp_path / "run", "--steps", 1)
    assert came.sentence, came
    assert not (tmp_path / "run").exists()
    tally["caches", "discover --cache", "one sentence"] += 1
