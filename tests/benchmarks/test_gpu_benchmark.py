"""The benchmark for GPUs runs without one, and says what failed."""

import json
import sys

import pytest


@pytest.fixture(scope="module")
def gpu(benchmark_script):
    return benchmark_script("gpu")


def run(gpu, monkeypatch, tmp_path, *sections):
    words = ["--device", "cpu", "--quick", "--json", str(tmp_path / "g.json"), "--markdown", str(tmp_path / "g.md")]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words, "--sections", *sections])
    gpu.main()


def test_it_runs_and_writes_its_figures(gpu, monkeypatch, tmp_path):
    run(gpu, monkeypatch, tmp_path, "capture", "discovery")
    found = json.loads((tmp_path / "g.json").read_text())["sections"]
    assert all(row["seconds"] > 0 for rows in found.values() for row in rows if "graph" not in row["what"])
    assert {row["ratio"] for row in found["capture"] if row["what"].endswith("bare")} == {1.0}
    kept = [row["what"] for row in found["discovery"] if "kept on the card" in row["what"]]
    assert kept == ["step from a float32 cache, kept on the card", "step from a float16 cache, kept on the card"]
    assert (tmp_path / "g.md").read_text().count("\n|") == 2 + sum(map(len, found.values()))


def test_a_section_that_fails_is_named_and_the_others_go_on(gpu, monkeypatch, tmp_path):
    def broken(*args):
        raise RuntimeError("out of order")

    monkeypatch.setattr(gpu, "capture", broken)
    with pytest.raises(SystemExit):
        run(gpu, monkeypatch, tmp_path, "capture", "determinism")
    found = json.loads((tmp_path / "g.json").read_text())["sections"]
    assert (found["capture"][0]["what"], found["capture"][0]["note"]) == ("capture failed", "out of order")
    assert [row["note"] for row in found["determinism"]] == ["bit-identical"] * 2
