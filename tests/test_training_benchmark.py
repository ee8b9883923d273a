"""The benchmark of joint training runs, has a row for every weight, and goes on where it was stopped."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

import keyorbit as ko

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def training():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        # "training" alone could be any package of that name.
        spec = importlib.util.spec_from_file_location("training_benchmark", FOLDER / "training.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def test_every_weight_is_a_row_and_a_second_run_goes_on(training, model_folder, tmp_path, monkeypatch, capsys):
    words = (
        f"--out {tmp_path} --model {model_folder} --category mug --train 2 --test 2 --views 1 --discover 1 --steps 1"
    )
    for weights in (["0"], ["0", "1"]):
        monkeypatch.setattr(sys, "argv", ["training.py", *words.split(), "--sample-steps", "1", "--keypoint", *weights])
        training.main()
    rows = json.loads((tmp_path / "results.json").read_text())
    assert list(rows) == ["before", "λ = 0", "λ = 1"]
    for row in rows.values():
        assert set(training.SHOWN) <= set(row)
    assert capsys.readouterr().out.count("'landmark_3d'") == 3  # each is judged once
    assert isinstance(ko.Tokens.load(tmp_path / "keypoint_1" / "tokens.safetensors"), ko.Tokens)
