"""Names for keypoints: which phrase agrees with which token, each once."""

import json

import pytest
import torch

from keyorbit.detection.naming import agreements, choose_names
from keyorbit.detection.words import KINDS, kind_phrases
from keyorbit.diffusion.tokens import Tokens
from keyorbit.errors import InputError


def test_a_phrase_names_one_keypoint_and_what_is_not_near_has_no_name():
    agreement = torch.tensor([[0.9, 0.8, 0.1], [0.85, 0.2, 0.1], [0.1, 0.2, 0.49]])
    first, second, third = choose_names(agreement, ("a", "b", "c"))
    assert (first.phrase, round(first.agreement, 2), first.runner_up) == ("b", 0.8, "a")
    assert (second.phrase, round(second.agreement, 2), second.runner_up) == ("a", 0.85, "b")
    assert (third.phrase, round(third.agreement, 2), third.runner_up) == ("", 0.49, "b")
    assert choose_names(agreement, ("a", "b", "c"), near=0.49)[2].phrase == "c"
    assert choose_names(torch.tensor([[0.6]]), ("a",))[0].runner_up == ""


def test_a_token_that_is_a_phrase_agrees_wholly_with_it(backend, objects):
    phrases = ("seat", "back", "front left leg")
    tokens = Tokens.from_phrases(backend, phrases[1:])
    found = agreements(backend, tokens, phrases, objects[:1])
    assert found.shape == (2, 3)
    torch.testing.assert_close(found[[0, 1], [1, 2]], torch.ones(2), atol=1e-5, rtol=0)
    assert (found >= 0).all()
    assert (found <= 1 + 1e-5).all()


def test_agreement_is_the_bhattacharyya_coefficient(backend, objects):
    from keyorbit.detection.detector import KeypointDetector

    tokens = Tokens.from_phrases(backend, ["seat", "back"])
    maps = KeypointDetector(backend, tokens).detect_object(objects[0]).heatmaps
    slow = sum(float((view[0] * view[1]).sqrt().sum()) for view in maps) / len(maps)
    assert float(agreements(backend, tokens.select(torch.tensor([0])), ["back"], objects[:1])) == pytest.approx(slow)


def test_names_need_an_object(backend):
    with pytest.raises(InputError, match="at least one"):
        agreements(backend, Tokens.from_phrases(backend, ["seat"]), ["back"], [])


def test_words_of_a_kind_are_parts_at_places(backend):
    phrases = kind_phrases("chair")
    assert len(phrases) == 8 * 28 == len(set(phrases))
    assert {"seat", "middle seat", "front left seat", "rear right upper back"} <= set(phrases)
    for kind in KINDS:
        assert len(Tokens.from_phrases(backend, kind_phrases(kind))) > 100
    with pytest.raises(InputError, match="kind"):
        kind_phrases("boat")


def test_names_are_kept_and_shown(backend, chairs, model_folder, tmp_path, command):
    run = tmp_path / "run"
    run.mkdir()
    tokens = Tokens.from_phrases(backend, ["seat", "front left leg", "back"])
    Tokens(tokens.embedding, tokens.info).save(run / "tokens.safetensors")
    (tmp_path / "words.txt").write_text("# parts\nback\n\nseat\n")
    words = ["--objects", chairs, "--words", tmp_path / "words.txt", "--json", tmp_path / "n.json", "--near", 0.999]
    assert command("name", run, "--model", model_folder, *words, "--force") == 0
    assert Tokens.load(run / "tokens.safetensors").info.names == ("seat", "", "back")
    told = json.loads((tmp_path / "n.json").read_text())
    assert [row["name"] for row in told["names"]] == ["seat", "", "back"]
    assert [row["keypoint"] for row in told["names"]] == ["keypoint_00", "keypoint_01", "keypoint_02"]
    thing = sorted(chairs.iterdir())[0]
    formats = ["--format", "json,coco,csv"]
    assert command("detect", run, thing, "--model", model_folder, "--out", tmp_path / "o", "--force", *formats) == 0
    found = json.loads((tmp_path / "o" / "keypoints.json").read_text())
    assert [entry["name"] for entry in found["keypoints"]] == ["seat", "keypoint_01", "back"]
    coco = json.loads((tmp_path / "o" / "coco.json").read_text())
    assert coco["categories"][0]["keypoints"] == ["seat", "keypoint_01", "back"]
    lines = (tmp_path / "o" / "keypoints_3d.csv").read_text().splitlines()
    assert [line.split(",")[-1] for line in lines] == ["name", "seat", "keypoint_01", "back"]


def test_keypoints_in_words_need_no_run(chairs, model_folder, tmp_path, command, capsys):
    thing = sorted(chairs.iterdir())[0]
    words = ["--name", "seat", "--name", "front left leg", "--model", model_folder, "--format", "json"]
    assert command("detect", thing, *words, "--out", tmp_path / "o") == 0
    found = json.loads((tmp_path / "o" / "keypoints.json").read_text())
    assert [entry["name"] for entry in found["keypoints"]] == ["seat", "front left leg"]
    (tmp_path / "run.json").write_text("{}")
    capsys.readouterr()
    assert command("detect", tmp_path, *words, "--out", tmp_path / "p") == 2
    assert "is a run, and --name gives keypoints in words" in capsys.readouterr().err
    assert command("detect", thing, *words, "--min-confidence", 0.5, "--out", tmp_path / "p") == 2
    assert not (tmp_path / "p").exists()
