"""The losses of a run are read, whichever version wrote them."""

import json

import pytest

from keyorbit.errors import InputError
from keyorbit.output.loss_log import read_losses


def test_half_a_line_of_a_run_that_was_killed_is_left_out(tmp_path):
    (tmp_path / "losses.jsonl").write_text('{"step": 1, "total": 2.0}\n{"step": 2, "to')
    assert read_losses(tmp_path) == [{"step": 1, "total": 2}]


def test_earlier_runs_are_read_and_damage_is_named(tmp_path):
    assert read_losses(tmp_path) == []
    (tmp_path / "losses.json").write_text(json.dumps([{"step": 1, "total": 2.0}]))
    assert read_losses(tmp_path) == [{"step": 1, "total": 2}]
    for bad in ("{", "[3]", '[{"step": "one"}]'):
        (tmp_path / "losses.json").write_text(bad)
        with pytest.raises(InputError, match="losses"):
            read_losses(tmp_path)
