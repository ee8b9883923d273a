"""The training loop: what it logs and reports, and that nothing is written of a state that is no number."""

import json
import math

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from keyorbit.errors import InputError
from keyorbit.storage.checkpoint import load_checkpoint
from keyorbit.training.optimise import Stage, optimise
from keyorbit.training.schedule import OptimiseConfig


def run(tmp_path, loss_of, config, until=math.inf, report=None):
    module = nn.Linear(2, 1, bias=False)
    nn.init.ones_(module.weight)
    stage, accelerator = Stage("line", tmp_path, until=until), Accelerator(cpu=True)
    done = optimise(stage, {"line": module}, lambda draw: loss_of(module, draw), config, accelerator, report=report)
    return module, done


def squares(module, draw):
    terms = {"loss": module(torch.ones(2)).square().sum()}
    return terms | ({"even": torch.tensor(float(draw.step))} if draw.step % 2 == 0 else {})


def test_what_is_reported_is_the_last_line_of_the_log(tmp_path):
    """The losses of a step are read when they are logged, and not before."""
    found = []
    config = OptimiseConfig(5, 1e-3, log_every=2, save_every=100)
    run(tmp_path, squares, config, report=lambda *report: found.append(report))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 5]
    assert [line["even"] for line in lines] == [0, 2, 4]  # the mean over the steps that have it
    logged = [{key: value for key, value in line.items() if key not in ("stage", "step")} for line in lines]
    expected = [{}, logged[0], logged[0], logged[1], logged[2]]
    assert found == [(step + 1, 5, terms) for step, terms in enumerate(expected)]


def spoils(at):
    """A finite loss, whose gradient is none at that step: infinity times 0, in the root of 0."""

    def loss_of(module, draw):
        loss = module(torch.ones(2)).sum()
        return {"loss": loss + (0 * module.weight).sqrt().sum() if draw.step == at else loss}

    return loss_of


def is_none(module, draw):
    """No number from the fourth step on, but with a finite gradient."""
    return {"loss": module(torch.ones(2)).sum() + (math.nan if draw.step >= 3 else 0)}


@pytest.mark.parametrize(("loss_of", "words"), [(spoils(3), "weights"), (is_none, "the loss")])
def test_a_state_that_is_no_number_is_not_written_when_it_is_due(tmp_path, loss_of, words):
    with pytest.raises(InputError, match=rf"{words} .*no numbers? any more by step 4"):
        run(tmp_path, loss_of, OptimiseConfig(100, 1e-3, log_every=50, save_every=2))
    assert load_checkpoint(tmp_path / "line.safetensors")[1]["step"] == 2


@pytest.mark.parametrize(("loss_of", "words"), [(spoils(4), "weights"), (is_none, "the loss"), (squares, "")])
def test_nor_where_a_slice_ends_between_two_lines_of_the_log(tmp_path, monkeypatch, loss_of, words):
    steps = []

    def timed(module, draw):
        steps.append(draw.step)
        return loss_of(module, draw)

    monkeypatch.setattr("time.monotonic", lambda: float(len(steps)))  # a step takes a second
    config = OptimiseConfig(100, 1e-3, log_every=50, save_every=50)
    if words:
        with pytest.raises(InputError, match=rf"{words} .*no numbers? any more by step 5"):
            run(tmp_path, timed, config, until=5.0)
    else:
        assert not run(tmp_path, timed, config, until=5.0)[1]
    assert (tmp_path / "line.safetensors").exists() == (not words)
