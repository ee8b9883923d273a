"""A cache on disk gives the tokens that memory gives, without the model, and never passes for one that it is not."""

import hashlib
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from keyorbit.diffusion import recording
from keyorbit.diffusion.config import PrepareConfig, RecordConfig
from keyorbit.diffusion.prepare import object_generator
from keyorbit.diffusion.queries import merge_layers
from keyorbit.diffusion.recording import record
from keyorbit.discovery.cache import build as building
from keyorbit.discovery.cache.build import build_cache, check_room, missing_shards
from keyorbit.discovery.cache.disk import open_cache, shard_path
from keyorbit.discovery.cache.index import plan_cache, read_index, weights_fingerprint
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import discover, discover_cached
from keyorbit.errors import InputError
from keyorbit.storage.files import beside

CONFIG = DiscoverConfig(
    num_tokens=3,
    num_candidates=5,
    steps=4,
    batch=2,
    prepare=PrepareConfig(warps=1, timestep=(100, 300)),
    save_every=2,
    planting=3,
)


def built(backend, objects, folder, config=CONFIG, dtype="float32", per_shard=2):
    index = replace(plan_cache(backend, objects, config, dtype), objects_per_shard=per_shard)
    return build_cache(backend, objects, index, folder)


@pytest.fixture(scope="module")
def cache(backend, objects, tmp_path_factory):
    """Two shards, the second with one object."""
    return built(backend, objects, tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("kind", ["logits", "attention", "stablekeypoints"])
def test_tokens_from_disk_are_bit_identical_to_those_from_memory(backend, objects, cache, tmp_path, kind):
    config = replace(CONFIG, maps=kind, batch=3)
    opened = cache if kind == "logits" else built(backend, objects, tmp_path, config)
    memory, disk = discover(backend, objects, config), discover_cached(open_cache(opened.folder), config)
    assert torch.equal(memory.embedding, disk.embedding)
    assert memory.info == disk.info


def test_batches_go_across_shards(backend, objects, cache, tmp_path):
    """All three objects at once, in shards of two; numbers change by rounding alone."""
    sizes, done = [], []
    hook = backend.unet.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    index = replace(plan_cache(backend, objects, CONFIG), objects_per_shard=2)
    sizes.clear()
    together = build_cache(backend, objects, index, tmp_path / "cache", lambda *call: done.append(call), batch=3)
    hook.remove()
    # 4 versions each; at most 6 go together, so an object's stay in one forward.
    assert sizes == [4, 4] * 3
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert sorted(path.name for path in (tmp_path / "cache").glob("shard*")) == [
        path.name for path in sorted(cache.folder.glob("shard*"))
    ]
    for number in range(3):
        for ours, theirs in zip(together.queries(number).layers, cache.queries(number).layers, strict=True):
            torch.testing.assert_close(ours.query, theirs.query, atol=1e-5, rtol=1e-4)


def test_a_single_view_model_can_be_cached_too(stable_diffusion, objects, tmp_path):
    config = replace(CONFIG, prepare=PrepareConfig(warps=1))
    opened = built(stable_diffusion, objects, tmp_path, config)
    assert torch.equal(discover(stable_diffusion, objects, config).embedding, discover_cached(opened, config).embedding)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_take_half_the_room_and_say_so(backend, objects, cache, tmp_path, dtype):
    half = built(backend, objects, tmp_path, dtype=dtype)
    assert half.index.bytes < 0.6 * cache.index.bytes
    ours, exact = half.queries(2).layers, cache.queries(2).layers
    for a, b in zip(ours, exact, strict=True):
        assert a.query.dtype == torch.float32
        torch.testing.assert_close(a.query, b.query, atol=0.02, rtol=0.01)
    tokens = discover_cached(half, CONFIG)
    assert tokens.info.queries == dtype
    assert tokens.embedding.isfinite().all()


def test_merged_layers_have_the_same_mean_logits(backend, objects, generator):
    once = RecordConfig(("*",), "attention", CONFIG.settled(backend).prepare)
    layers = record(objects[0], backend, once, object_generator(0, 0)).queries["grid"].layers
    tokens = torch.randn(4, 16, generator=generator)
    merged = merge_layers(layers)
    assert len(merged) == len({layer.size for layer in layers})
    assert {layer.to_key is None for layer in merge_layers(layers)} == {True}  # 16 channels are few
    wide = [replace(x, query=x.query[..., :1], to_key=x.to_key[:: x.query.shape[-1]]) for x in layers[:3]]
    assert any(layer.to_key is not None for layer in merge_layers(wide))
    for given in (layers, wide):
        for one in merge_layers(given):
            same = [x.mean_logits(tokens) for x in given if x.size == one.size]
            sizes = len({x.size for x in given})
            expected = torch.stack(same).sum(0) * sizes / len(given)
            torch.testing.assert_close(one.mean_logits(tokens), expected, atol=1e-5, rtol=1e-4)


def test_the_predicted_size_is_the_size(cache):
    written = sum(path.stat().st_size for path in cache.folder.glob("shard_*"))
    headers = 2 * 4096
    assert cache.index.bytes <= written <= cache.index.bytes + headers


MAPS = Path("/proc/self/maps")


@pytest.mark.skipif(not MAPS.exists(), reason="needs Linux")
def test_queries_lie_in_the_mapped_file_and_not_in_memory(cache):
    for number in range(3):
        queries = cache.queries(number)
        ours = [
            line for line in MAPS.read_text().splitlines() if line.endswith(str(shard_path(cache.folder, number // 2)))
        ]
        ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in ours]
        for layer in queries.layers:
            place = layer.query.data_ptr()
            assert any(start <= place < end for start, end in ranges)
            assert place % 64 == 0


def test_it_needs_no_model(cache, tmp_path, monkeypatch):
    moved = shutil.copytree(cache.folder, tmp_path / "elsewhere")
    monkeypatch.setattr("keyorbit.discovery.memory.model_facts", None)
    assert len(discover_cached(open_cache(moved), CONFIG)) == 3


def test_a_stopped_build_goes_on_where_it_was(backend, objects, cache, tmp_path, monkeypatch):
    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    index = cache.index
    with pytest.raises(KeyboardInterrupt):
        build_cache(backend, objects, index, tmp_path, stop)
    assert missing_shards(index, tmp_path) == [1]
    with pytest.raises(InputError, match=r"not finished: 1 of its 2 shards"):
        open_cache(tmp_path)
    before = shard_path(tmp_path, 0).stat().st_mtime_ns
    beside(shard_path(tmp_path, 1)).write_bytes(b"half")
    run, original = [], recording.record_together

    def counted(things, *args):
        run.extend(thing.name for thing in things)
        return original(things, *args)

    monkeypatch.setattr(recording, "record_together", counted)
    build_cache(backend, objects, index, tmp_path)
    assert run == [objects[2].name]
    assert shard_path(tmp_path, 0).stat().st_mtime_ns == before
    for shard in (0, 1):
        assert shard_path(tmp_path, shard).read_bytes() == shard_path(cache.folder, shard).read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def cut(folder):
    path = shard_path(folder, 1)
    path.write_bytes(path.read_bytes()[:-1])


def swap(folder):
    shutil.copy(shard_path(folder, 0), shard_path(folder, 1))


def edit(folder):
    values = json.loads((folder / "index.json").read_text())
    values["prepare"]["seed"] = 5
    (folder / "index.json").write_text(json.dumps(values))


def retype(folder):
    values = json.loads((folder / "index.json").read_text())
    values["stored"][1]["heads"] = "two"
    (folder / "index.json").write_text(json.dumps(values))


def of_other_settings(folder):
    index = replace(read_index(folder), model="another")
    (folder / "index.json").write_text(index.to_json())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "shard_00001.*truncated"),
        (swap, "shard_00001.*does not hold"),
        (edit, "index.json.*changed by hand"),
        (retype, r"index.json: stored\[1\].heads cannot be 'two'; it must be a whole number .*; build the cache again"),
        (of_other_settings, "shard_00000.*another cache"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda folder: (folder / "index.json").write_text("{"), "index.json cannot be read as JSON"),
        (lambda folder: (folder / "index.json").unlink(), "no query cache"),
    ],
)
def test_a_damaged_or_foreign_cache_is_named(cache, tmp_path, damage, words):
    folder = shutil.copytree(cache.folder, tmp_path / "copy")
    open_cache(folder)
    damage(folder)
    with pytest.raises(InputError, match=words):
        open_cache(folder)


def test_an_index_is_written_again_as_it_was_read(cache, tmp_path):
    """Also where a float was given as a whole number, which the identity tells apart."""
    values = {name: value for name, value in json.loads(cache.index.to_json()).items() if name != "identity"}
    values["prepare"]["rotation_deg"] = 10
    text = json.dumps(values, sort_keys=True)
    identity = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = tmp_path / "index.json"
    path.write_text(json.dumps({"identity": identity, **values}, indent=1) + "\n")
    index = read_index(tmp_path)
    assert (index.identity, index.to_json()) == (identity, path.read_text())
    assert index == replace(cache.index, prepare=replace(cache.index.prepare, rotation_deg=10.0))


def test_a_truncated_shard_is_built_again(backend, objects, cache, tmp_path):
    folder = shutil.copytree(cache.folder, tmp_path / "copy")
    cut(folder)
    build_cache(backend, objects, cache.index, folder)
    assert shard_path(folder, 1).read_bytes() == shard_path(cache.folder, 1).read_bytes()


def test_a_build_with_other_settings_or_data_is_refused(backend, objects, cache, tmp_path):
    other = plan_cache(backend, objects, replace(CONFIG, seed=1))
    with pytest.raises(InputError, match=r"another cache.*prepare"):
        build_cache(backend, objects, replace(other, objects_per_shard=2), cache.folder)
    with pytest.raises(InputError, match=r"another cache.*objects"):
        build_cache(backend, objects[:2], plan_cache(backend, objects[:2], CONFIG), cache.folder)
    with pytest.raises(InputError, match="has changed since"):
        build_cache(backend, [objects[1], objects[0], objects[2]], cache.index, tmp_path)


def test_other_weights_in_memory_are_another_model(backend, objects, cache):
    weight = next(backend.unet.parameters())
    before = weights_fingerprint(backend.unet)
    weight.data.mul_(1.001)
    try:
        assert weights_fingerprint(backend.unet) != before
        assert cache.index.differing(plan_cache(backend, objects, CONFIG)) == ["unet_fingerprint", "objects_per_shard"]
    finally:
        weight.data.div_(1.001)


def test_a_full_disk_is_refused_before_it_starts(backend, objects, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(building.shutil, "disk_usage", lambda path: SimpleNamespace(free=cache.index.bytes - 1))
    with pytest.raises(InputError, match=r"needs .* GB more.*float16"):
        build_cache(backend, objects, cache.index, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    check_room(cache.index, cache.folder)  # nothing is missing there


def test_a_cache_refuses_what_it_was_not_built_for(cache):
    for config, words in (
        (replace(CONFIG, mode="joint"), "isolated"),
        (replace(CONFIG, maps="attention"), "maps logits, not attention"),
        (replace(CONFIG, layers="up_blocks.*"), "another cache"),
    ):
        with pytest.raises(InputError, match=words):
            discover_cached(cache, config)


def test_values_too_large_for_half_precision_are_refused(backend, objects, tmp_path, monkeypatch):
    original = recording.record_together

    def huge(*args):
        (found,) = original(*args)
        layers = tuple(replace(x, query=x.query * 1e6) for x in found.queries["grid"].layers)
        return [replace(found, queries={"grid": replace(found.queries["grid"], layers=layers)})]

    monkeypatch.setattr(recording, "record_together", huge)
    with pytest.raises(InputError, match="do not fit float16"):
        built(backend, objects, tmp_path, dtype="float16")


def test_a_cache_without_a_choice_is_what_it_was_before_there_was_one(backend, objects):
    index = plan_cache(backend, objects[:1])
    before = {name: value for name, value in asdict(index).items() if name not in ("cameras_of", "cameras_mark")}
    assert index.identity == hashlib.sha256(json.dumps(before, sort_keys=True).encode()).hexdigest()[:16]
    assert "cameras_of" not in json.loads(index.to_json())
