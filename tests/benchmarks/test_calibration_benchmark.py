"""The script that fits and measures confidence, on planted cases: no model runs."""

import json
import sys

import pytest
import torch

from keyorbit.detection.confidence import KEYPOINT, OBJECT


@pytest.fixture
def calibration(benchmark_script):
    return benchmark_script("calibration")


def a_case(script, tokens="chair", kind="chair", group="true", seed=0, away=0.0, clue=0.0, **more):
    """Keypoints that are ``away`` from three landmarks of their own."""
    rng = torch.Generator().manual_seed(seed)
    marks = torch.rand(3, 3, generator=rng) - 0.5
    xyz = marks + torch.tensor([away, 0.0, 0.0])
    truth = (marks, torch.ones(3, dtype=torch.bool)) if kind == tokens else None
    clues, each = torch.tensor([clue, 0.8 - clue, 0.05]), torch.tensor([[clue, 0.8]] * 3)
    return script.Case(tokens, kind, group, f"{kind} {seed}", clues, each, xyz, truth, **more)


@pytest.mark.parametrize("box", [None, (torch.zeros(3), torch.ones(3), 0.5)])
def test_a_case_is_kept_whole(calibration, tmp_path, box):
    case = a_case(calibration, box=box)
    case.save(tmp_path / "case.safetensors")
    again = calibration.Case.load(tmp_path / "case.safetensors")
    assert (again.tokens, again.kind, again.group, again.thing) == ("chair", "chair", "true", "chair 0")
    for name in ("clues", "each", "xyz"):
        torch.testing.assert_close(getattr(again, name), getattr(case, name), rtol=0, atol=0)
    torch.testing.assert_close(again.truth, case.truth, rtol=0, atol=0)
    assert (again.box is None) == (box is None)
    if box is not None:
        torch.testing.assert_close(again.box[:2], box[:2])
        assert again.box[2] == 0.5


@pytest.mark.parametrize(("away", "right"), [(0.0, 1.0), (0.09, 1.0), (0.11, 0.0)])
def test_a_keypoint_is_right_within_a_tenth_of_the_size_of_its_part(calibration, away, right):
    fit = [a_case(calibration, group="fit", seed=seed) for seed in range(4)]
    judged, other = a_case(calibration, seed=9, away=away), a_case(calibration, kind="car", seed=9)
    found = calibration.rights([*fit, judged, other])
    assert found[4].tolist() == [right] * 3
    assert found[5].tolist() == [0.0] * 3  # no keypoint has a part on an object of another kind


def test_the_calibration_error_is_that_of_ten_bins(calibration):
    # Two bins: 0.2 is said where a half is right, 0.9 where all are; a quarter of 0.3 and three quarters of 0.1.
    error, bins = calibration.reliability([0.2, 0.2, *[0.9] * 6], [0, 1, *[1] * 6])
    assert error == pytest.approx(0.25 * 0.3 + 0.75 * 0.1)
    assert [(round(said, 3), right, count) for said, right, count in bins] == [(0.2, 0.5, 2), (0.9, 1.0, 6)]
    assert calibration.reliability([0.2, 0.9], [0, 1], [3, 1])[0] == pytest.approx(0.75 * 0.2 + 0.25 * 0.1)


def test_auroc_counts_ties_half(calibration):
    assert calibration.auroc([3, 2], [1, 2]) == (1 + 1 + 1 + 0.5) / 4


def test_no_clue_counts_against_its_meaning(calibration):
    rng = torch.Generator().manual_seed(0)
    clues = torch.randn(400, 2, generator=rng)
    right = (clues @ torch.tensor([2.0, 1.0]) + 0.3 > torch.randn(400, generator=rng)).float()
    one, other, _ = calibration.logistic(clues, right, (1, -1), torch.ones(400))
    assert one > 1
    assert other == 0


def test_the_command_tells_what_is_kept(calibration, monkeypatch, tmp_path, capsys):
    fit = [a_case(calibration, group="fit", seed=seed) for seed in range(4)]
    cases = [a_case(calibration, kind=k, group=g, seed=9) for k in ("chair", "car") for g in ("true", "cut-out")]
    cases += [a_case(calibration, kind="noise", group="noise", seed=10, clue=0.4)]
    for number, case in enumerate([*fit, *cases]):
        case.save(tmp_path / "cases" / f"{number}.safetensors")
    out = tmp_path / "told.json"
    monkeypatch.setattr(sys, "argv", ["calibration.py", "--work", str(tmp_path), "--kept", "--json", str(out)])
    calibration.main()
    told = json.loads(out.read_text())
    assert "these are not the weights" in capsys.readouterr().out
    assert len(told["object"]) == len(OBJECT)
    assert len(told["keypoint"]) == len(KEYPOINT)
    unseen = told["what the fit has not seen"]["groups"]
    assert {name: row["n"] for name, row in unseen.items()} == {"own kind, cut-out": 1, "others, cut-out": 1}
    assert unseen["own kind, cut-out"]["right"] == 100
    assert unseen["others, cut-out"]["right"] == 0
