"""The benchmark of the input picture's camera runs, and knows an elevation."""

import math
import sys

import pytest

import keyorbit as ko
from keyorbit.discovery.initial import untrained
from keyorbit.synthetic.samples import SampleSpec, as_object, make_sample


@pytest.fixture(scope="module")
def input_camera(benchmark_script):
    return benchmark_script("input_camera")


def test_an_object_knows_the_elevation_of_its_input_camera():
    for seed in range(3):
        sample = make_sample(SampleSpec("mug", seed, 16))
        x, y, z = sample.input_camera.centers[0].tolist()
        above = math.degrees(math.atan2(z, math.hypot(x, y)))
        assert as_object(sample).input_elevation_deg == pytest.approx(above, abs=1e-3)


def test_a_line_for_each_band_and_one_for_all(input_camera, backend, model_folder, tmp_path, monkeypatch, capsys):
    untrained(backend, ko.DiscoverConfig(num_tokens=3)).save(tmp_path / "tokens.safetensors")
    words = f"--model {model_folder} --tokens {tmp_path / 'tokens.safetensors'} --category mug --objects 4 --fit 2"
    monkeypatch.setattr(sys, "argv", ["input_camera.py", *words.split()])
    input_camera.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if "°" in line and "to" in line]
    counts = [int(line.split("│")[2]) for line in lines]
    assert counts[-1] == 4 == sum(counts[:-1])
