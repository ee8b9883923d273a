"""Losses are on disk while a run goes on, survive a kill, and a resumed run has every step once."""

import json

import pytest

from keyorbit.errors import InputError
from keyorbit.output.loss_log import LossLog, read_losses


def test_a_resumed_run_has_every_step_once(tmp_path):
    first = LossLog(tmp_path)
    for step in (1, 2, 3, 4):
        first.add(step, {"total": 1 / step})
    with (tmp_path / "losses.jsonl").open("a") as file:
        file.write('{"step": 5, "to')
    assert [entry["step"] for entry in read_losses(tmp_path)] == [1, 2, 3, 4]
    second = LossLog(tmp_path)
    second.add(3, {"total": 9.0})
    second.add(4, {"total": 8.0})
    assert [(entry["step"], entry["total"]) for entry in read_losses(tmp_path)] == [(1, 1), (2, 0.5), (3, 9), (4, 8)]


def test_earlier_runs_are_read_and_damage_is_named(tmp_path):
    assert read_losses(tmp_path) == []
    (tmp_path / "losses.json").write_text(json.dumps([{"step": 1, "total": 2.0}]))
    assert read_losses(tmp_path) == [{"step": 1, "total": 2}]
    for bad in ("{", "[3]", '[{"step": "one"}]'):
        (tmp_path / "losses.json").write_text(bad)
        with pytest.raises(InputError, match="losses"):
            read_losses(tmp_path)
