"""A run's log is in step with its checkpoints: nothing before the first, every step once after a resume."""

import json

import pytest

from keyorbit.errors import InputError
from keyorbit.storage.journal import Journal


def steps_in(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_nothing_is_written_before_the_first_checkpoint(tmp_path):
    log, begun, done = tmp_path / "log.jsonl", [], []
    journal = Journal(log, begin=lambda: begun.append(1))
    journal.add({"step": 1})
    journal.do(lambda: done.append(1))
    assert not log.exists()
    assert (begun, done) == ([], [])
    assert "no checkpoint was written yet" in journal.kept
    journal.begin()
    journal.begin()
    journal.add({"step": 2})
    assert (begun, done) == ([1], [1])
    assert steps_in(log) == [1, 2]


def test_a_resumed_run_has_every_step_once(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4, "to')
    journal = Journal(log, 2)
    assert "step 2 was kept" in journal.kept
    journal.add({"step": 3, "again": True})
    assert steps_in_whole(log) == [1, 2, 3]  # until there is a new checkpoint
    journal.begin()
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3, "again": true}\n'


def steps_in_whole(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()[:3]]


def test_lines_of_other_stages_stay(tmp_path):
    log = tmp_path / "log.jsonl"
    lines = [("config", None), ("vae", 9), ("unet", 1), ("probe", 1), ("unet", 2), ("probe", 2)]
    log.write_text("".join(json.dumps({"stage": stage, "step": step}) + "\n" for stage, step in lines))
    Journal(log, 1, stages=("unet", "probe")).begin()
    assert [json.loads(line)["stage"] for line in log.read_text().splitlines()] == ["config", "vae", "unet", "probe"]


@pytest.mark.parametrize("line", ["{", "[1]", '{"total": 1}', '{"step": "one"}', "\x00"])
def test_a_damaged_line_is_told_before_there_is_any_work(tmp_path, line):
    log = tmp_path / "log.jsonl"
    log.write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(InputError, match="line 2 is damaged"):
        Journal(log, 1)
    Journal(log, 0, active=False).begin()
    log.write_bytes(b"\xff\n")
    with pytest.raises(InputError, match="cannot be read"):
        Journal(log, 1)


def test_of_several_processes_one_writes(tmp_path):
    journal = Journal(tmp_path / "log.jsonl", active=False)
    journal.add({"step": 1})
    journal.begin()
    journal.add({"step": 2})
    assert list(tmp_path.iterdir()) == []
