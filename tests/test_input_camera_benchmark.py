"""The benchmark of the input picture's camera runs, and knows an elevation."""

import importlib
import sys
from pathlib import Path

import pytest

import keyorbit as ko
from keyorbit.cameras import orbit_cameras
from keyorbit.discover import untrained

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("input_camera")


def test_elevations(benchmark):
    for elevation in (-20.0, 0.0, 35.0):
        assert benchmark.elevation_of(orbit_cameras([70.0], [elevation])) == pytest.approx(elevation, abs=1e-3)


def test_a_line_for_each_band_and_one_for_all(benchmark, backend, model_folder, tmp_path, monkeypatch, capsys):
    untrained(backend, ko.DiscoverConfig(num_tokens=3)).save(tmp_path / "tokens.safetensors")
    words = f"--model {model_folder} --tokens {tmp_path / 'tokens.safetensors'} --category mug --objects 4 --fit 2"
    monkeypatch.setattr(sys, "argv", ["input_camera.py", *words.split()])
    benchmark.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if "°" in line and "to" in line]
    counts = [int(line.split("│")[2]) for line in lines]
    assert counts[-1] == 4 == sum(counts[:-1])
