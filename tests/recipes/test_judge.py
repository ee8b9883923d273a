"""The judge of new weights: what it sees, and that nothing worse ships."""

from dataclasses import replace

import pytest
import torch

from keyorbit.geometry.hull import silhouettes
from keyorbit.synthetic.samples import SampleSpec, as_object, make_sample
from tiny_model import judge as judging
from tiny_model.judge import Case, JudgeConfig, Verdict, cases, judge, table, worse
from tiny_model.kinds import known_outlines, likeness, turned_by
from tiny_model.probe import ProbeConfig

GOOD = Verdict(16, 20.0, 16, 15, 5.0)


@pytest.fixture(scope="module")
def known():
    return known_outlines(("chair", "car"), objects=3, headings=12)


@pytest.mark.parametrize("kind", ["chair", "car"])
def test_true_outlines_say_the_kind_and_the_heading(kind, known):
    for seed in range(3):
        sample = make_sample(SampleSpec(kind, 50 + seed, 32))
        found = likeness(silhouettes(as_object(sample).views), known)
        assert found.kind == kind
        assert turned_by(found.azimuth_deg, sample.input_azimuth_deg) < 45
        assert 0.4 < found.overlap <= 1


def test_angles_between_headings():
    assert [turned_by(350.0, 10.0), turned_by(0.0, 180.0), turned_by(90.0, 60.0)] == [20, 180, 30]


def test_figures_of_a_model_that_draws_the_truth_and_of_one_that_exchanges_it(backend, known, monkeypatch):
    config = JudgeConfig(("chair", "car"), objects=2)
    shown = cases(config, 32)
    assert [case.kind for case in shown] == ["chair", "chair", "car", "car"]
    true = [case.thing.views for case in shown]
    monkeypatch.setattr(judging, "generated", lambda *_: true)
    found, made = judge(backend, shown, known, config)
    assert found["chair"].kind == found["chair"].heading == found["car"].kind == 2
    assert found["chair"].psnr == pytest.approx(100)
    assert found["chair"].landmarks is None
    assert made is true
    exchanged = [true[2], true[1], true[0], true[3]]
    monkeypatch.setattr(judging, "generated", lambda *_: exchanged)
    against = judge(backend, shown, known, config)[0]
    assert against["chair"].kind == against["car"].kind == 1
    assert against["chair"].psnr < 60
    assert [line.split(" ")[:2] for line in worse(found, against)][:2] == [["chair:", "psnr"], ["chair:", "kind"]]


def test_a_pictures_views_do_not_depend_on_the_others(backend):
    config = JudgeConfig(("chair",), objects=3, steps=2, batch=2)
    shown = cases(config, backend.view_size)
    both, alone = judging.generated(backend, shown, config), judging.generated(backend, shown, replace(config, batch=1))
    for one, other in zip(both, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_landmarks_are_those_of_the_generated_views(backend, known, monkeypatch):
    """With tokens that know nothing, a figure all the same; of pictures, none."""
    config = JudgeConfig(("chair",), objects=1, probe=ProbeConfig(train_objects=2, steps=2), steps=1)
    shown = cases(config, backend.view_size)
    shown.append(Case("pictures", "chair", shown[0].picture))
    found, _ = judge(backend, shown, known, config)
    assert 0 < found["chair"].landmarks < 100
    assert found["pictures"].landmarks is found["pictures"].psnr is found["pictures"].heading is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"psnr": 20.5, "landmarks": 4.0}, []),
        ({"psnr": 19.9}, ["car: psnr 20 becomes 19.9"]),
        ({"kind": 15, "heading": 14}, ["car: kind 16 becomes 15", "car: heading 15 becomes 14"]),
        ({"landmarks": 5.1}, ["car: landmarks 5 becomes 5.1"]),
        ({"landmarks": float("nan")}, ["car: landmarks 5 becomes nan"]),
    ],
)
def test_worse_on_one_kind_is_worse(change, said):
    old = {"chair": GOOD, "car": GOOD}
    assert worse(old, {"chair": replace(GOOD, psnr=30.0), "car": replace(GOOD, **change)}) == said


def test_the_table_has_both_models_in_each_cell():
    lines = table({"old": {"chair": GOOD}, "new": {"chair": replace(GOOD, psnr=21.0, landmarks=None)}}).splitlines()
    assert lines[-1] == "| chair | 16 | 20.00, 21.00 | 16, 16 | 15, 15 | 5.0, – |"


def test_pictures_say_their_kind_by_their_names(tmp_path):
    sample = as_object(make_sample(SampleSpec("chair", 1, 32))).input_image
    for name in ("A_horse.png", "B_chair.png", "C_teapot.png", "D_armchair_2.jpg"):
        sample.convert("RGB").save(tmp_path / name)
    found = judging.picture_cases(tmp_path, JudgeConfig())
    assert [case.kind for case in found] == ["animal", "chair", "chair"]
