"""The benchmark of StableKeypoints' choices runs, and each row is another discovery than ours."""

import json
import sys
from typing import get_args

import pytest

import keyorbit as ko
from keyorbit.discovery import single_view_run
from keyorbit.discovery.choices import Published


@pytest.fixture(scope="module")
def published(benchmark_script):
    return benchmark_script("published")


def test_every_published_choice_has_a_row(published):
    rows, every = published.rows(), {*get_args(Published)}
    assert {*rows} - {"ours", "alone", "all of them", "all of them, at our rate"} == every
    assert every <= {*published.WHAT}
    assert all(set(rows[name]["published"]) == {name} for name in every)
    assert {*rows["all of them"]["published"]} == every
    assert every - {*rows["all of them, at our rate"]["published"]} == {"rate"}


def test_rows_are_written_beside_ours(published, backend, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(single_view_run, "VOTERS", 2)
    monkeypatch.setattr(ko, "load_backend", lambda name: backend)
    rows, path = ["ours", "draws", "alone", "reading", "all of them"], tmp_path / "p.json"
    words = [
        "--train",
        "2",
        "--test",
        "1",
        "--keypoints",
        "2",
        "--tokens",
        "4",
        "--batch",
        "1",
        "--warps",
        "1",
        "--steps",
        "1",
        "--seeds",
        "0",
        "1",
        "--rows",
    ]
    words += [*rows, "--json", str(path), "--markdown", str(tmp_path / "p.md")]
    monkeypatch.setattr(sys, "argv", ["published.py", *words])
    published.main()
    told = json.loads(path.read_text())
    assert list(told["error_percent"]) == rows
    assert all(0 < error < 200 for errors in told["error_percent"].values() for error in errors)
    assert len({tuple(errors) for errors in told["error_percent"].values()}) == len(rows)
    assert told["settings"]["steps"] == 1
    lines = (tmp_path / "p.md").read_text().splitlines()
    assert len(lines) == 2 + len(rows)
    assert "| draws | warps and noise drawn at every step" in lines[3]
    assert "of 2 |" in lines[3]
    assert "draws: " in capsys.readouterr().out
