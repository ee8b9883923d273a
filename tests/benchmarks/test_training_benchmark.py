"""The benchmark of joint training runs, has a row for every weight, and goes on where it was stopped."""

import json
import sys

import pytest

import keyorbit as ko
from keyorbit.discovery.initial import untrained


@pytest.fixture(scope="module")
def training(benchmark_script):
    return benchmark_script("training")


def test_every_weight_is_a_row_and_a_second_run_goes_on(training, backend, model_folder, tmp_path, monkeypatch, capsys):
    # Tokens that are there are not discovered again.
    untrained(backend, ko.DiscoverConfig(num_tokens=3)).save(tmp_path / "tokens.safetensors")
    words = f"--out {tmp_path} --model {model_folder} --category mug --train 2 --test 2 --views 1 --steps 1"
    for weights in (["0"], ["0", "1"]):
        monkeypatch.setattr(sys, "argv", ["training.py", *words.split(), "--sample-steps", "1", "--keypoint", *weights])
        training.main()
    rows = json.loads((tmp_path / "results.json").read_text())
    assert list(rows) == ["before", "λ = 0", "λ = 1"]
    for row in rows.values():
        assert set(training.SHOWN) <= set(row)
    assert capsys.readouterr().out.count("'landmark_3d'") == 3  # each is judged once
    assert isinstance(ko.Tokens.load(tmp_path / "keypoint_1" / "tokens.safetensors"), ko.Tokens)
