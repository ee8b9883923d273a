"""Checkpoints, wrong in one place: one sentence, or the run goes on."""

import shutil

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from helpers.spoiling import FEWER, as_json, damaged, hostile_tensor, outcome, rewritten, spoiled
from keyorbit.discovery.choices import CHECKPOINT
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import discover
from keyorbit.storage.checkpoint import load_checkpoint
from keyorbit.training.optimise import OptimiseConfig, Stage, optimise

CONFIG = DiscoverConfig(num_tokens=2, num_candidates=3, steps=2, batch=2, planting=1, exemplars=1, save_every=1)


@pytest.fixture(scope="module")
def discovery(backend, objects, tmp_path_factory):
    """A discovery that was stopped after its first step, and what goes on with it."""
    folder = tmp_path_factory.mktemp("discovery")
    discover(backend, objects, CONFIG, folder, watch=lambda done, tokens: False)
    whole, held = (folder / CHECKPOINT).read_bytes(), load_checkpoint(folder / CHECKPOINT)

    def resume(change):
        (folder / CHECKPOINT).write_bytes(whole)
        change(folder / CHECKPOINT)
        return outcome(lambda: discover(backend, objects, CONFIG, folder, resume=True))

    return whole, held, resume


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """The same of a training, of a single weight matrix."""
    folder = tmp_path_factory.mktemp("training")
    stage = Stage("line", folder, settings={"rate": 1e-3})

    def train(steps):
        torch.manual_seed(0)
        module = nn.Linear(2, 3)
        config = OptimiseConfig(steps, 1e-3, log_every=1, save_every=1)
        loss = lambda draw: {"loss": module(torch.ones(2)).square().sum()}  # noqa: E731
        optimise(stage, {"line": module}, loss, config, Accelerator(cpu=True))

    train(2)
    whole, held = stage.checkpoint.read_bytes(), load_checkpoint(stage.checkpoint)

    def resume(change):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        stage.checkpoint.write_bytes(whole)
        change(stage.checkpoint)
        return outcome(lambda: train(3))

    return whole, held, resume


RUNS = st.sampled_from(["discovery", "training"])


@FEWER
@given(data=st.data(), kind=RUNS)
def test_every_field_of_the_metadata(data, kind, discovery, training, tally):
    _, (_, metadata), resume = {"discovery": discovery, "training": training}[kind]
    text = as_json(data.draw(spoiled(metadata))[1])
    tally["caches", f"a checkpoint's metadata ({kind})", resume(lambda file: rewritten(file, keyorbit=text))] += 1


@FEWER
@given(data=st.data(), kind=RUNS)
def test_every_tensor(data, kind, discovery, training, tally):
    _, (there, _), resume = {"discovery": discovery, "training": training}[kind]
    tensors = dict(there)
    name = data.draw(st.sampled_from([*sorted(tensors), "optimizer.0.other", "optimizer.9.step", "optimizer.x"]))
    if name in tensors and data.draw(st.booleans()) and data.draw(st.booleans()):
        del tensors[name]
    else:
        tensors[name] = data.draw(hostile_tensor(tensors.get(name, torch.ones(2, 2))))
    come = resume(lambda file: rewritten(file, tensors))
    tally["caches", f"a checkpoint's tensor ({kind})", come] += 1
    if name.startswith("optimizer") and name not in there:
        assert come == "one sentence"


@FEWER
@given(data=st.data(), kind=RUNS)
def test_every_byte(data, kind, discovery, training, tally):
    whole, _, resume = {"discovery": discovery, "training": training}[kind]
    made = data.draw(damaged(whole))
    tally["caches", f"a checkpoint's bytes ({kind})", resume(lambda file: file.write_bytes(made))] += 1
