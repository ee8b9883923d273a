"""The query cache is exact, the objective means what it says, and a stopped run ends as if it had not stopped."""

from dataclasses import replace

import pytest
import torch

from keyorbit.diffusion import recording
from keyorbit.diffusion.config import PrepareConfig
from keyorbit.discovery import run as discover_run
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import discover
from keyorbit.discovery.initial import untrained
from keyorbit.discovery.memory import open_source
from keyorbit.errors import InputError
from keyorbit.ranks import Ranks

SMALL = DiscoverConfig(
    num_tokens=3, num_candidates=5, steps=6, batch=2, prepare=PrepareConfig(warps=1), save_every=2, planting=5
)


def test_an_objects_silhouettes_are_resized_once(backend, objects, monkeypatch):
    resized, real = [], discover_run.grown_masks
    monkeypatch.setattr(discover_run, "grown_masks", lambda *args: resized.append(1) or real(*args))
    discover(backend, objects, SMALL)
    assert len(resized) == len(objects)


@pytest.mark.parametrize("mode", ["isolated", "joint"])
def test_objects_that_are_recorded_together_give_the_maps_of_one_by_one(backend, objects, mode, monkeypatch):
    """As on other devices than the CPU, which by default goes one by one."""
    config, ranks = replace(SMALL, mode=mode).settled(backend), Ranks(0, 1)
    tokens, sources, done = torch.randn(2, 16, generator=torch.Generator().manual_seed(0)), [], []
    for batch in (1, 2):
        monkeypatch.setattr(recording, "BATCH_ON_CPU", batch)
        sources.append(open_source(backend, objects, config, ranks, lambda *call: done.append(call)))
    assert done == [(1, 3), (2, 3), (3, 3), (2, 3), (3, 3)]
    with torch.no_grad():
        for number in range(3):
            for ours, theirs in zip(*(source.maps(number, tokens) for source in sources), strict=True):
                torch.testing.assert_close(ours.maps, theirs.maps, atol=1e-5, rtol=1e-4)
    assert sources[0].facts.cameras is not None


def test_each_of_two_processes_records_batches_of_its_own(backend, objects, monkeypatch):
    monkeypatch.setattr(recording, "BATCH_ON_CPU", 2)
    config = SMALL.settled(backend)
    for index, own in ((0, {0, 2}), (1, {1})):
        source = open_source(backend, objects, config, Ranks(index, 2), lambda *_: None)
        assert source.recordings.keys() == own
        assert {source.recordings[i].thing.name for i in own} == {objects[i].name for i in own}


def test_discovery_lowers_its_objective(backend, objects):
    totals = []
    config = replace(SMALL, method="consistency", steps=30, start_temperature=0.05, temperature=0.05)
    discover(backend, objects, config, report=lambda s, i, n, v: totals.append(v.get("total")))
    totals = [total for total in totals if total is not None]
    assert sum(totals[-5:]) < 0.95 * sum(totals[:5])


@pytest.mark.parametrize("method", ["constellation", "consistency"])
def test_a_stopped_run_resumes_bit_identical(backend, objects, tmp_path, method):
    config = replace(SMALL, method=method)
    whole = discover(backend, objects, config)

    def stop(stage, done, total, values):
        if stage == "step" and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        discover(backend, objects, config, tmp_path, report=stop)
    resumed = discover(backend, objects, config, tmp_path, resume=True)
    assert torch.equal(resumed.embedding, whole.embedding)
    assert resumed.info == whole.info
    with pytest.raises(InputError, match="seed"):
        discover(backend, objects, replace(config, seed=1), tmp_path, resume=True)


def test_the_seed_decides_and_the_global_generator_is_left_alone(backend, objects):
    state = torch.get_rng_state()
    config = replace(SMALL, steps=2)
    first, again, other = (discover(backend, objects, replace(config, seed=s)).embedding for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_joint_mode_moves_the_tokens_through_the_unet(backend, objects):
    config = replace(SMALL, mode="joint", steps=1, num_candidates=3)
    moved, start = discover(backend, objects, config), untrained(backend, config)
    assert not torch.equal(moved.embedding.sort(0).values, start.embedding.sort(0).values)
    assert moved.info.mode == "joint"


def test_an_earlier_run_and_somebody_elses_files_are_kept_before_the_model_runs(backend, objects, tmp_path):
    def never(*_):
        raise AssertionError("the model was run")

    first = discover(backend, objects, SMALL, tmp_path / "run")
    checkpoint = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "checkpoint.txt").write_text("mine")
    for folder, words in (("run", "holds a discovery run already"), ("mine", "did not mark as its own")):
        with pytest.raises(InputError, match=words):
            discover(backend, objects, SMALL, tmp_path / folder, report=never)
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == checkpoint
    other = discover(backend, objects, replace(SMALL, seed=1), tmp_path / "run", overwrite=True)
    assert not torch.equal(other.embedding, first.embedding)
    again = discover(backend, objects, SMALL, tmp_path / "run", overwrite=True)
    assert torch.equal(again.embedding, first.embedding)
