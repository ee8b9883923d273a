"""The judge of new weights: what it sees, and that nothing worse ships."""

from dataclasses import replace

import pytest
import torch
import trimesh

from keyorbit.geometry.hull import silhouettes
from keyorbit.synthetic.samples import SampleSpec, as_object, make_sample
from tiny_model import judge as judging
from tiny_model.judge import Case, JudgeConfig, Verdict, cases, judge, table, worse
from tiny_model.kinds import known_outlines, likeness, turned_by
from tiny_model.probe import ProbeConfig

# Sixteen pictures that are not alike; one of them shows the object turned.
GOOD = Verdict(
    psnr=tuple(19.25 + 0.1 * i for i in range(16)),
    kind=(1.0,) * 16,
    heading=(0.0,) + (1.0,) * 15,
    landmarks=tuple(4.25 + 0.1 * i for i in range(16)),
)


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
    assert found["chair"].kind == found["chair"].heading == found["car"].kind == (1, 1)
    assert found["chair"].psnr == pytest.approx((100, 100))
    assert found["chair"].landmarks == ()
    assert made is true
    exchanged = [true[2], true[1], true[0], true[3]]
    monkeypatch.setattr(judging, "generated", lambda *_: exchanged)
    against = judge(backend, shown, known, config)[0]
    assert against["chair"].kind == against["chair"].heading == (0, 1)
    assert against["car"].kind == (0, 1)
    assert against["chair"].psnr[0] < 60
    assert against["chair"].psnr[1] == pytest.approx(100)


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
    assert 0 < found["chair"].landmarks[0] < 100
    assert found["pictures"].landmarks == found["pictures"].psnr == found["pictures"].heading == ()


def changed(values, *by):
    """The first values with so much more."""
    return (*(value + more for value, more in zip(values, by, strict=False)), *values[len(by) :])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"psnr": changed(GOOD.psnr, *[0.1] * 16), "landmarks": changed(GOOD.landmarks, *[-0.1] * 16)}, []),
        # All pictures by the same: no chance.
        ({"psnr": changed(GOOD.psnr, *[-0.01] * 16)}, ["car: psnr 20 becomes 19.99 (-0.01 ± "]),
        ({"landmarks": changed(GOOD.landmarks, *[0.1] * 16)}, ["car: landmarks 5 becomes 5.1 (+0.1 ± "]),
        # Means of -0.1 and of -0.2 with a standard error of 0.0683: 1.5 and 2.9 of it.
        ({"psnr": changed(GOOD.psnr, *[-0.1 + 0.26455, -0.1 - 0.26455] * 8)}, []),
        ({"psnr": changed(GOOD.psnr, *[-0.2 + 0.26455, -0.2 - 0.26455] * 8)}, ["car: psnr 20 becomes 19.8 (-0.2 ± "]),
        # One picture of sixteen is chance, and so are three; four are not.
        ({"kind": changed(GOOD.kind, -1), "heading": changed(GOOD.heading, 0, -1)}, []),
        ({"kind": changed(GOOD.kind, *[-1] * 3)}, []),
        ({"kind": changed(GOOD.kind, *[-1] * 4)}, ["car: kind 1 becomes 0.75 (-0.25 ± "]),
        ({"heading": changed(GOOD.heading, 1, *[-1] * 3)}, []),
        ({"landmarks": changed(GOOD.landmarks, float("nan"))}, ["car: landmarks 5 becomes nan ("]),
    ],
)
def test_worse_on_one_kind_by_more_than_chance_is_worse(change, said):
    old = {"chair": GOOD, "car": GOOD}
    new = {"chair": replace(GOOD, psnr=changed(GOOD.psnr, *[10.0] * 16)), "car": replace(GOOD, **change)}
    found = worse(old, new)
    assert [line[: len(start)] for line, start in zip(found, said, strict=True)] == said


def test_the_error_of_a_mean_difference_is_the_spread_by_the_root_of_the_number():
    assert judging.difference([1.0, 2.0, 3.0], [2.0, 2.0, 5.0]) == pytest.approx((1.0, 1 / 3**0.5))
    assert judging.difference([1.0], [0.0]) == (-1.0, 0.0)  # nothing is known of chance: it counts


@pytest.mark.parametrize(
    ("found", "alike", "right"),
    [(44.0, 1, True), (46.0, 1, False), (180.0, 1, False), (170.0, 2, True), (90.0, 2, False), (316.0, 1, True)],
)
def test_a_heading_is_right_within_45_degrees_of_a_turn_that_looks_alike(found, alike, right):
    assert judging._faces(found, 0.0, alike) is right


@pytest.mark.parametrize(
    ("name", "alike", "headed"),
    [("kenney_stoolBar", 1, False), ("kenney_stoolBarSquare", 4, True), ("another", 1, True)],
)
def test_what_looks_alike_from_all_around_has_no_heading(name, alike, headed, tmp_path):
    (tmp_path / "chair").mkdir()
    trimesh.creation.box(extents=(1, 2, 0.5)).export(tmp_path / "chair" / f"{name}.obj")
    for case in judging.mesh_cases(tmp_path, JudgeConfig(("chair",)), 32):
        assert (case.alike, case.azimuth_deg is not None) == (alike, headed)


def test_the_table_has_both_models_in_each_cell():
    new = replace(GOOD, psnr=changed(GOOD.psnr, *[0.5, 1.5] * 8))
    lines = table({"old": {"chair": GOOD}, "new": {"chair": new}}).splitlines()
    cells = "20.00, 21.00 (+1.00 ± 0.13) | 16, 16 of 16 | 15, 15 of 16 | 5.0, 5.0 (+0.0 ± 0.0)"
    assert lines[-1] == f"| chair | 16 | {cells} |"
    assert table({"old": {"cars": Verdict(kind=(1.0,))}}).splitlines()[-1] == "| cars | 1 | – | 1 of 1 | – | – |"


def test_pictures_say_their_kind_by_their_names(tmp_path):
    sample = as_object(make_sample(SampleSpec("chair", 1, 32))).input_image
    for name in ("A_horse.png", "B_chair.png", "C_teapot.png", "D_armchair_2.jpg"):
        sample.convert("RGB").save(tmp_path / name)
    found = judging.picture_cases(tmp_path, JudgeConfig())
    assert [case.kind for case in found] == ["animal", "chair", "chair"]
