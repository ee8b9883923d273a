"""Losses are read from the device several steps at a time, and none that is not finite passes."""

import pytest
import torch

from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery import discover as running
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import discover
from keyorbit.discovery.run import told
from keyorbit.errors import InputError

CONFIG = DiscoverConfig(num_tokens=2, num_candidates=3, steps=5, batch=2, planting=2, exemplars=1, save_every=4)


def step(total):
    return {"misplaced": torch.tensor(1.0), "total": torch.tensor(total)}


def test_steps_are_told_in_order():
    assert told([step(2.0), step(3.0)], 4, 10) == [{"misplaced": 1.0, "total": 2.0}, {"misplaced": 1.0, "total": 3.0}]
    assert told([], 0, 10) == []


def test_the_first_loss_that_is_not_finite_is_named():
    with pytest.raises(InputError, match="the loss is nan at 60% of the steps"):
        told([step(2.0), step(float("nan")), step(float("inf"))], 5, 10)


def test_what_is_reported_does_not_depend_on_how_often_the_device_is_read(backend, objects, monkeypatch):
    def reported():
        lines = []
        discover(backend, objects, CONFIG, report=lambda *line: lines.append(line))
        steps = [line for line in lines if line[0] == "step"]
        return [(done, {k: v for k, v in values.items() if k != "seconds"}) for _, done, _, values in steps]

    each = reported()
    assert [done for done, _ in each] == [1, 2, 3, 4, 5]
    # Read before the checkpoint of step 4, and at the end.
    monkeypatch.setattr(running, "read_together", lambda device: 3)
    assert reported() == each


def test_nothing_is_saved_of_a_run_whose_loss_is_not_finite(backend, objects, tmp_path, monkeypatch):
    config = DiscoverConfig(num_tokens=2, num_candidates=3, steps=4, batch=2, planting=0, exemplars=1)
    broken = torch.full((3, backend.unet.config.cross_attention_dim), torch.nan)
    monkeypatch.setattr(Tokens, "initialise", lambda *_: Tokens(broken))
    with pytest.raises(InputError, match="the loss is nan"):
        discover(backend, objects, config, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
