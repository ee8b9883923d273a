"""A run that goes on in another type of numbers, on another device or to more steps is the same run, and says so."""

import json
from copy import copy
from dataclasses import replace

import pytest
import torch
from PIL import Image

from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.discovery.cache.build import build_cache
from keyorbit.discovery.cache.disk import open_cache
from keyorbit.discovery.cache.index import plan_cache
from keyorbit.discovery.choices import CHECKPOINT, LOSSES, SETTINGS
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import discover, discover_cached, start_run
from keyorbit.discovery.memory import open_source
from keyorbit.errors import InputError
from keyorbit.ranks import Ranks
from keyorbit.storage.checkpoint import load_checkpoint
from keyorbit.storage.settings import read_toml

CONFIG = DiscoverConfig(num_tokens=2, num_candidates=2, steps=4, save_every=2, batch=2, method="consistency")


@pytest.mark.parametrize("dtypes", [("float32", "bfloat16"), ("bfloat16", "float32"), ("bfloat16", "bfloat16")])
def test_another_type_goes_on_with_a_warning(dtypes, model_folder, objects, tmp_path, caplog):
    first, then = (load_backend(model_folder, "cpu", dtype) for dtype in dtypes)
    discover(first, objects, CONFIG, tmp_path, watch=lambda step, tokens: step < 2)
    metadata = load_checkpoint(tmp_path / CHECKPOINT)[1]
    assert metadata["step"] == 2
    # The bytes of a run on the CPU in float32 are what they were before runs told of it.
    assert metadata.get("place") == (None if dtypes[0] == "float32" else "bfloat16 on cpu")
    discover(then, objects, CONFIG, tmp_path, resume=True)
    assert load_checkpoint(tmp_path / CHECKPOINT)[1]["step"] == 4
    told = [record.message for record in caplog.records if "not bit for bit" in record.message]
    if dtypes[0] == dtypes[1]:
        assert told == []
    else:
        (line,) = told
        assert f"written in {dtypes[0]} on cpu, and the run goes on in {dtypes[1]} on cpu" in line


def test_a_run_of_an_earlier_version_goes_on(backend, objects, tmp_path):
    before, other = copy(backend), copy(backend)
    before.fingerprint, other.fingerprint = backend.older_fingerprint(), "other"
    discover(before, objects, CONFIG, tmp_path, watch=lambda step, tokens: step < 2)
    assert load_checkpoint(tmp_path / CHECKPOINT)[1]["settings"]["model"] == before.fingerprint
    discover(backend, objects, CONFIG, tmp_path, resume=True)
    assert load_checkpoint(tmp_path / CHECKPOINT)[1]["settings"]["model"] == backend.fingerprint
    other.older_fingerprint = str
    with pytest.raises(InputError, match=r"other settings \(model\)"):
        discover(other, objects, CONFIG, tmp_path, resume=True)


@pytest.mark.parametrize("kind", ["constellation", "consistency", "joint", "single view", "cache"])
def test_a_finished_run_goes_on_to_more_steps(kind, backend, stable_diffusion, objects, tmp_path, caplog):
    method = "constellation" if kind == "constellation" else "consistency"
    short = replace(CONFIG, method=method, steps=3, planting=2, mode="joint" if kind == "joint" else "isolated")
    model, longer, run = stable_diffusion if kind == "single view" else backend, replace(short, steps=7), tmp_path / "r"
    if kind == "cache":
        build_cache(model, objects, plan_cache(model, objects, short), tmp_path / "cache")

    def found(config, **more):
        if kind == "cache":
            return discover_cached(open_cache(tmp_path / "cache", "cpu"), config, run, **more)
        return discover(model, objects, config, run, **more)

    found(short)
    with pytest.raises(InputError, match=r"3 steps are done, so the run cannot have 2: give 3 or more"):
        found(replace(short, steps=2), resume=True)
    with pytest.raises(InputError, match=r"other settings \(batch, constellation\.angles\): give the same"):
        found(replace(longer, batch=1, constellation=replace(short.constellation, angles=9)), resume=True)

    def stop(stage, done, total, values):
        if stage == "step" and done == 4:
            raise KeyboardInterrupt

    # Killed before it has written a checkpoint: how long it has become is known all the same.
    with pytest.raises(KeyboardInterrupt):
        found(longer, resume=True, report=stop)
    (told,) = [record.message for record in caplog.records if "goes on to" in record.message]
    how = "learning rate and temperature are from here on those of a run of 7 steps"
    assert told.endswith(f"goes on to 7 steps instead of 3: {how}")
    assert load_checkpoint(run / CHECKPOINT)[1]["step"] == 3
    tokens = found(read_toml(run / SETTINGS, DiscoverConfig), resume=True)
    # The steps that were done are those of the short run, and the others those of the long one.
    first, then = short.settled(model), longer.settled(model)
    by_hand = start_run(open_source(model, objects, first, Ranks(), lambda *_: None), first, Ranks())
    by_hand.begin(lambda *_: None)
    for step in range(7):
        by_hand.config = first if step < 3 else then
        by_hand.step(step)
    kept = by_hand.select().tokens
    assert torch.equal(tokens.embedding, by_hand.tokens.embedding.detach()[kept])
    assert tokens.info.settings["steps"] == 7
    assert [json.loads(line)["step"] for line in (run / LOSSES).read_text().splitlines()] == [1, 2, 3, 4, 5, 6, 7]
    assert load_checkpoint(run / CHECKPOINT)[1]["settings"]["steps"] == 7


@pytest.mark.parametrize("kind", ["memory", "joint", "cache"])
def test_a_run_goes_on_with_its_own_objects_and_masks_alone(kind, backend, objects, tmp_path):
    config = replace(CONFIG, mode="joint" if kind == "joint" else "isolated")
    other_mask = Image.new("L", objects[0].input_image.size, 255)
    masked = [replace(objects[0], mask=other_mask), *objects[1:]]
    discover(backend, objects, config, tmp_path / "run", watch=lambda step, tokens: step < 2)

    def go_on(things, name):
        if kind != "cache":
            return discover(backend, things, config, tmp_path / "run", resume=True)
        cache = build_cache(backend, things, plan_cache(backend, things, config), tmp_path / name)
        return discover_cached(cache, config, tmp_path / "run", resume=True)

    for name, wrong in (("other", [*objects[1:], objects[0]]), ("masked", masked)):
        with pytest.raises(InputError, match="was made of other objects, or of these with other masks"):
            go_on(wrong, name)
    assert len(go_on([replace(thing, name=f"{thing.name}_moved") for thing in objects], "own")) == 2
