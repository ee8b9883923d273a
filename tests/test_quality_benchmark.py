"""The benchmark of keypoints against the truth runs, and its baselines are what they say."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from keyorbit.synthetic.probe import as_object
from keyorbit.synthetic.samples import SampleSpec, make_sample

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "quality.py"


@pytest.fixture(scope="module")
def quality():
    spec = importlib.util.spec_from_file_location("quality", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_judges_tokens_and_writes_its_figures(quality, model_folder, tmp_path, monkeypatch, capsys):
    words = f"--model {model_folder} --categories mug --seeds 0 --train 3 --test 2 --steps 2 --fit 3 --no-baselines"
    monkeypatch.setattr(
        sys, "argv", ["quality.py", *words.split(), "--workers", "1", "--json", str(tmp_path / "q.json")]
    )
    quality.main()
    rows = json.loads((tmp_path / "q.json").read_text())["mug"]
    assert set(rows) == {"discovered", "mean shape", "mean shape, heading known"}
    assert all(torch.tensor(rows["discovered"][field]).isfinite().all() for field in quality.FIELDS)
    assert "mean shape" in capsys.readouterr().out


def test_the_splits_share_no_object_with_each_other(quality):
    seeds = {name: {int(o.name.split("_")[1]) for o in quality.split("mug", name, 3, 16, 1)} for name in quality.SPLITS}
    assert len(set.union(*seeds.values())) == 9


def test_the_mean_shape_of_one_object_turned_is_that_object(quality):
    """The same chair seen from another azimuth: exact once its heading is known (5° steps), far off otherwise."""
    thing = make_sample(SampleSpec("chair", 5, 16))
    angle = torch.tensor(35.0).deg2rad()
    turn = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0], [0, 0, 1]])
    first, second = as_object(thing), as_object(thing)
    moved = second.truth.keypoints_3d @ turn.T
    second.truth.keypoints_3d.copy_(moved)
    assert quality.mean_shape([first], [second], turned=True) < 1e-5
    assert quality.mean_shape([first], [second], turned=False) > 0.1
