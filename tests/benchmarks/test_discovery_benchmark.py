"""The benchmark of discovery runs at small sizes, and its loop form of the losses is the loss."""

import json
import sys

import pytest


@pytest.fixture(scope="module")
def discovery(benchmark_script):
    return benchmark_script("discovery")


def test_it_runs_and_writes_its_figures(discovery, model_folder, tmp_path, monkeypatch, capsys):
    words = [
        "--quick",
        "--model",
        str(model_folder),
        "--json",
        str(tmp_path / "d.json"),
        "--plot",
        str(tmp_path / "d.png"),
    ]
    monkeypatch.setattr(sys, "argv", ["discovery.py", *words])
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    discovery.main()
    found = json.loads((tmp_path / "d.json").read_text())
    assert {row["mode"] for row in found["quality"]} == {"isolated", "joint"}
    assert [row["of"] for row in found["totals"]] == ["one step", "500 steps", "10000 steps"] * 2
    assert [row["layers"] for row in found["forward"]] == ["whole UNet", "all layers", "first 4 up"]
    assert all(row["ratio"] > 0 for row in found["enlarging"])
    assert [row["to"] for row in found["enlarging"]] == [32, 32, 32, 80, 80]
    assert set(found["scaling"]) == {"objects", "tokens", "layers"}
    assert (tmp_path / "d.png").stat().st_size > 1000
    assert "cached_step" in capsys.readouterr().out


def test_totals_are_counted_by_hand(discovery):
    cached, forward = [{"layers": "all", "cached_step": 0.1}], [{"layers": "all", "seconds": 2.0}]
    found = discovery.totals(cached, forward, 40.0, objects=10, versions=4)
    assert found[0]["ratio"] == pytest.approx(400)
    assert found[1]["unet"] == 20_000
    assert found[1]["cached"] == pytest.approx(130)
    assert found[1]["ratio"] == pytest.approx(20_000 / 130)
