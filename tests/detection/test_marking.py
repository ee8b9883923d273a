"""Tokens from marks: a small model with random weights learns marked points, and tells where each landed."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from keyorbit.detection.config import DetectConfig
from keyorbit.detection.detector import KeypointDetector
from keyorbit.detection.marking import fit_marks, mark
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.marks_config import MarkConfig
from keyorbit.errors import InputError
from keyorbit.objects.marks import Mark, write_marks

NAMES = ("foot front left", "seat centre", "back top right")
# The weights are random, and views have 16 pixels: enough steps to find marked points again, and a few where that is
# not looked at.
LONG = MarkConfig(helpers=4, planting=40, steps=2, noises=1)
CONFIG = replace(LONG, planting=4)


def marks_of(thing, names=NAMES):
    truth = thing.truth
    return [Mark(name, thing.name, xyz=tuple(truth.keypoints_3d[truth.names.index(name)].tolist())) for name in names]


@pytest.fixture(scope="module")
def detector(backend):
    return KeypointDetector(backend, Tokens.from_phrases(backend, ["a"]), DetectConfig(noises=1))


@pytest.fixture(scope="module")
def recordings(detector, objects):
    return [detector.record(thing) for thing in objects]


@pytest.fixture(scope="module")
def marked(backend, recordings, objects):
    return fit_marks(backend, recordings, marks_of(objects[0]), LONG)


def errors(tokens, backend, recording, thing, names=NAMES):
    found = KeypointDetector(backend, tokens, DetectConfig(noises=1)).read(recording).keypoints_3d.xyz[: len(names)]
    there = torch.stack([thing.truth.keypoints_3d[thing.truth.names.index(name)] for name in names])
    return (found - there).norm(dim=-1)


def test_marked_points_are_found_where_they_were_marked(marked, backend, recordings, objects):
    tokens = marked.tokens
    assert tokens.info.names == NAMES
    assert (len(tokens), len(tokens.helpers), len(tokens.info.places)) == (3, 4, 7)
    assert tokens.info.objects == 3
    assert tokens.info.statistics is None  # two objects without marks are too few
    assert [one.how for one in marked.placed] == ["given"] * 3
    assert errors(tokens, backend, recordings[0], objects[0]).max() < 0.15


def test_the_same_marks_give_the_same_tokens_and_another_seed_others(backend, recordings, objects):
    config = replace(CONFIG, planting=2, steps=1)
    first, again, other = (
        fit_marks(backend, recordings[:2], marks_of(objects[0]), replace(config, seed=seed)).tokens
        for seed in (0, 0, 1)
    )
    assert torch.equal(again.embedding, first.embedding)
    assert not torch.equal(other.embedding, first.embedding)


def test_objects_are_recorded_as_detection_does(backend, recordings, objects):
    seen, marks, config = [], marks_of(objects[0]), replace(CONFIG, planting=2, steps=1)
    found = mark(backend, objects[:2], marks, config, report=lambda stage, *rest: seen.append((stage, rest[0])))
    expected = fit_marks(backend, recordings[:2], marks, config).tokens.embedding
    torch.testing.assert_close(found.tokens.embedding, expected)
    assert seen[:2] == [("record", 1), ("record", 2)]
    assert seen[-1] == ("fit", config.planting + config.steps)


def test_marks_of_several_objects_are_brought_together(backend, recordings, objects):
    """The second object has one point less, and the places are the mean of both objects'."""
    marks = [*marks_of(objects[0]), *marks_of(objects[1], NAMES[:2])]
    tokens = fit_marks(backend, recordings[:2], marks, replace(LONG, planting=80, seed=1)).tokens
    marked = zip(objects, recordings, (NAMES, NAMES[:2]), strict=False)
    missed = torch.cat([errors(tokens, backend, recording, thing, names) for thing, recording, names in marked])
    assert missed.median() < 0.15  # a model of random weights does not tell all of them
    assert len(tokens.info.places) == 7


def test_a_runs_tokens_help_and_do_not_change(marked, backend, recordings, objects):
    name = "foot back right"
    tokens = fit_marks(backend, recordings, marks_of(objects[0], [name]), CONFIG, base=marked.tokens).tokens
    assert tokens.info.names == (name,)
    assert torch.equal(tokens.helpers, torch.cat([marked.tokens.embedding, marked.tokens.helpers]))
    assert tokens.info.places[1:] == marked.tokens.info.places


def test_a_corrected_keypoint_replaces_its_token_and_new_ones_follow(marked, backend, recordings, objects):
    corrected, new = NAMES[1], "foot back right"
    base, marks = marked.tokens, marks_of(objects[0], [new, corrected])
    tokens = fit_marks(backend, recordings[:1], marks, replace(CONFIG, steps=0), base, keep=True).tokens
    assert tokens.info.names == (*NAMES, new)
    same = (tokens.embedding[:3] == base.embedding).all(-1)
    assert same.tolist() == [True, False, True]
    assert torch.equal(tokens.helpers, base.helpers)
    assert len(tokens.info.places) == len(base.info.places) + 1
    assert tokens.info.places[4:] == base.info.places[3:]


def test_keypoints_without_names_are_called_as_everywhere(marked, backend, recordings, objects):
    nameless = Tokens(marked.tokens.embedding, replace(marked.tokens.info, names=()), marked.tokens.helpers)
    there = replace(marks_of(objects[0])[1], name="keypoint_01")
    tokens = fit_marks(backend, recordings[:1], [there], replace(CONFIG, steps=0), nameless, keep=True).tokens
    assert (len(tokens), tokens.info.names) == (3, ())


def test_a_run_without_a_constellation_keeps_none(backend, recordings, objects):
    base = Tokens.from_phrases(backend, ["a", "b"])
    tokens = fit_marks(backend, recordings[:1], marks_of(objects[0]), replace(CONFIG, steps=0), base, keep=True).tokens
    assert tokens.info.names == ("a", "b", *NAMES)
    assert (tokens.info.places, len(tokens.helpers)) == ((), 0)
    alone = fit_marks(backend, recordings[:1], marks_of(objects[0]), replace(CONFIG, steps=0), base).tokens
    assert (len(alone), len(alone.helpers), len(alone.info.places)) == (3, 4, 7)


def test_a_mark_on_the_input_picture_is_lifted_by_its_camera(backend, recordings, objects):
    """The camera is found by points of the hull, on which tokens are planted for that alone."""
    thing, truth = objects[0], objects[0].truth
    there = Mark("seat", thing.name, xy=tuple(truth.keypoints_2d[0, truth.names.index("seat centre")].tolist()))
    (found,) = fit_marks(backend, recordings[:1], [there], replace(CONFIG, planting=5, steps=0)).placed
    assert found.how == "lifted"
    assert found.picture_xy == there.xy


def test_a_single_view_marks_places_in_its_picture(stable_diffusion, objects):
    picture = replace(objects[0], views=None, masks=None, truth=None)
    marks = [Mark("left", view=0, xy=(0.4, 0.5)), Mark("right", xy=(0.6, 0.5))]
    config = replace(CONFIG, planting=20)
    found = mark(stable_diffusion, [picture], marks, config)
    assert [one.how for one in found.placed] == ["flat", "flat"]
    assert (len(found.tokens), len(found.tokens.helpers), found.tokens.info.places) == (2, 0, ())
    detector = KeypointDetector(stable_diffusion, found.tokens, DetectConfig(noises=1))
    xy = detector.detect(picture).xy[0]
    assert float(xy[0, 0]) < float(xy[1, 0])


def test_recordings_of_other_settings_are_told(backend, recordings, objects, stable_diffusion):
    marks = marks_of(objects[0])
    with pytest.raises(InputError, match="recorded with other layers, maps or timesteps"):
        fit_marks(backend, recordings, marks, replace(CONFIG, timestep=3))
    with pytest.raises(InputError, match="recorded with another model"):
        fit_marks(stable_diffusion, recordings, marks, CONFIG)
    joint = Tokens.from_phrases(backend, ["a"])
    joint = Tokens(joint.embedding, replace(joint.info, mode="joint"))
    with pytest.raises(InputError, match="not to tokens of mode joint"):
        fit_marks(backend, recordings, marks, CONFIG, joint)


def test_the_command_makes_a_run_that_detects(chairs, objects, model_folder, tmp_path, command, capsys, monkeypatch):
    monkeypatch.setattr("keyorbit.cli.mark.MarkConfig", partial(MarkConfig, planting=2, noises=1))
    write_marks(tmp_path / "points.json", marks_of(objects[0]))
    words = ["mark", chairs, "--points", tmp_path / "points.json", "--out", tmp_path / "run", "--model", model_folder]
    assert command(*words, "--steps", 2) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "3 keypoints from 1 marked of 3 objects" in said
    placed = json.loads((tmp_path / "run" / "placed.json").read_text())["marks"]
    assert [(one["object"], one["name"], one["how"]) for one in placed] == [
        (objects[0].name, name, "given") for name in NAMES
    ]
    assert (tmp_path / "run" / "points.json").read_text() == (tmp_path / "points.json").read_text()
    other = chairs / objects[1].name
    assert (
        command("detect", tmp_path / "run", other, "--out", tmp_path / "found", "--noises", 1, "--format", "json") == 0
    )
    keypoints = json.loads((tmp_path / "found" / "keypoints.json").read_text())["keypoints"]
    assert [point["name"] for point in keypoints] == list(NAMES)
    assert command(*words) == 2
    assert "holds a run already: replace it (--overwrite)" in capsys.readouterr().err
