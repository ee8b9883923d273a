"""The command line: the main job writes what it promises, and bad input gets one sentence and status 2."""

import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from safetensors.torch import load_file, save_file

from helpers.command_line import call
from keyorbit.detection.confidence import NOISE
from keyorbit.detection.words import kind_phrases
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.tokens import Tokens
from keyorbit.output.loss_log import read_losses
from keyorbit.storage.checkpoint import load_checkpoint
from keyorbit.storage.outputs import MARKER

pytestmark = pytest.mark.usefixtures("few_denoising_steps")


@pytest.fixture(scope="module")
def world(tmp_path_factory, model_folder, few_planted):
    """A small dataset and a finished run on it."""
    root = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, "dataset", "make", root / "data", "--objects", 3, "--size", 16) == 0
        options = ["--tokens", 4, "--candidates", 6, "--steps", 3, "--batch", 2, "--warps", 1, "--config", few_planted]
        assert call(patch, "discover", root / "data", "--model", model_folder, "--out", root / "run", *options) == 0
    return root


def test_a_run_holds_what_it_promises(world):
    names = {path.name for path in (world / "run").iterdir()} - {MARKER}
    assert names == {"tokens.safetensors", "run.json", "losses.jsonl", "checkpoint.safetensors", "discover.toml"}
    assert [entry["step"] for entry in read_losses(world / "run")] == [1, 2, 3]


def test_a_run_is_made_again_from_its_settings(world, model_folder, tmp_path, monkeypatch, capsys):
    settings, model = world / "run" / "discover.toml", ["--model", model_folder]
    command = ["discover", world / "data", *model, "--config", settings]
    assert call(monkeypatch, *command, "--out", tmp_path / "again") == 0
    first, again = (load_checkpoint(run / "tokens.safetensors")[0] for run in (world / "run", tmp_path / "again"))
    assert torch.equal(first["embedding"], again["embedding"])
    assert call(monkeypatch, *command, "--steps", 2, "--tokens", 3, "--out", tmp_path / "other") == 0
    assert len(read_losses(tmp_path / "other")) == 2
    assert "num_tokens = 3\n" in (tmp_path / "other" / "discover.toml").read_text()
    (tmp_path / "bad.toml").write_text("stepz = 3")
    assert call(monkeypatch, *command[:-1], tmp_path / "bad.toml", "--out", tmp_path / "none") == 2
    assert "stepz" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_detect_writes_keypoints_pictures_and_points(world, tmp_path, monkeypatch, capsys):
    thing = sorted((world / "data").iterdir())[0]
    for picture in (thing, thing / "cond.png"):
        out = tmp_path / picture.name
        assert call(monkeypatch, "detect", world / "run", picture, "--out", out) == 0
        views = {f"view_{i}.png" for i in range(6)}
        expected = {"keypoints.json", "coco.json", "points.glb", "overlay.png", "input.png"} | views
        assert {path.name for path in out.iterdir()} == expected | {MARKER}
        found = json.loads((out / "keypoints.json").read_text())
        assert len(found["keypoints"]) == 4
        assert len(found["keypoints"][0]["xyz"]) == 3
        assert len(found["views"]) == 6
        assert len(found["cameras"]["world_to_camera"]) == 6
        assert len(found["input_camera"]["residual"]) == 4
        said = capsys.readouterr().out
        assert "the input picture's elevation" in said
        # What is said of a model without training does not matter here, but that it is, and the same everywhere.
        assert f"{found['object']}: {found['confidence']['words']}" in said
        assert all(0 <= keypoint["confidence"] <= 1 for keypoint in found["keypoints"])
        assert found["withheld"] == []
        coco = json.loads((out / "coco.json").read_text())
        assert len(coco["images"]) == 7
        # Of these tokens some pictures show none.
        assert {mark["image_id"] for mark in coco["annotations"]} <= set(range(1, 8))
        assert all(mark["num_keypoints"] and mark["area"] >= 1 for mark in coco["annotations"])
        assert Image.open(out / "overlay.png").width > 1000
        assert trimesh.load(out / "points.glb") is not None


def test_keypoints_of_too_little_confidence_are_withheld(world, tmp_path, monkeypatch, capsys):
    thing, out = sorted((world / "data").iterdir())[0], tmp_path / "out"
    words = ["detect", world / "run", thing, "--out", out, "--format", "json,coco", "--noises", "1"]
    assert call(monkeypatch, *words, "--min-confidence", "1") == 0
    found = json.loads((out / "keypoints.json").read_text())
    assert found["withheld"] == [0, 1, 2, 3]
    assert [keypoint["score"] for keypoint in found["keypoints"]] == [0, 0, 0, 0]
    assert json.loads((out / "coco.json").read_text())["annotations"] == []
    assert f"{thing.name}: withheld, below 1: 0, 1, 2, 3" in capsys.readouterr().out
    tokens = Tokens.load(world / "run" / "tokens.safetensors")
    tokens.info = replace(tokens.info, statistics=None)
    tokens.save(tmp_path / "old.safetensors")
    words[1], words[4] = tmp_path / "old.safetensors", tmp_path / "other"
    assert call(monkeypatch, *words, "--min-confidence", "0.5") == 2
    assert "--min-confidence has nothing to go by" in capsys.readouterr().err
    assert call(monkeypatch, *words) == 0
    assert "Confidence: it is not known how far to trust them" in capsys.readouterr().out
    assert json.loads((tmp_path / "other" / "keypoints.json").read_text())["confidence"] is None


def test_a_picture_of_noise_is_never_known(world, tmp_path, command, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    assert command("detect", world / "run", tmp_path / "noise.png", "--out", tmp_path / "out", "--noises", "1") == 0
    assert NOISE in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert found["confidence"]["known"] == 0
    assert {keypoint["confidence"] for keypoint in found["keypoints"]} == {0}


def test_several_objects_get_a_folder_each(world, tmp_path, monkeypatch):
    places, few = [], ["--noises", 2, "--format", "json"]
    for batch in (1, 2):
        out = tmp_path / str(batch)
        assert call(monkeypatch, "detect", world / "run", world / "data", "--out", out, *few, "--batch", batch) == 0
        found = [json.loads(path.read_text())["keypoints"] for path in sorted(out.glob("*/keypoints.json"))]
        assert len(found) == 3
        places.append(torch.tensor([[point["xyz"] for point in points] for points in found]))
    torch.testing.assert_close(places[1], places[0], atol=1e-4, rtol=0)


def test_the_unet_is_compiled_where_that_is_asked_for(world, tmp_path, monkeypatch, model_folder):
    compiled = []
    monkeypatch.setattr(Zero123PlusBackend, "compile_unet", lambda model: compiled.append(model))
    thing = sorted((world / "data").iterdir())[0]
    detect = ["detect", world / "run", thing, "--noises", 1, "--out"]
    for done, words in enumerate(
        (
            [*detect, tmp_path / "compiled"],
            ["evaluate", world / "run", world / "data", "--limit", 2, "--no-baseline"],
            ["cache", world / "data", "--model", model_folder, "--out", tmp_path / "cache", "--noises", 1],
        )
    ):
        assert call(monkeypatch, *words, "--compile") == 0
        assert len(compiled) == done + 1
    assert call(monkeypatch, *detect, tmp_path / "plain") == 0
    assert len(compiled) == 3


def test_detect_writes_the_formats_asked_for(world, tmp_path, monkeypatch):
    words = ["detect", world / "run", world / "data", "--out", tmp_path / "out", "--format", "json,csv,colmap,ply"]
    assert call(monkeypatch, *words, "--skeleton", "0-1,1-2") == 0
    for folder in (tmp_path / "out").glob("chair_*"):
        written = {path.name for path in folder.iterdir() if path.suffix != ".png"}
        assert written == {"keypoints.json", "keypoints_2d.csv", "keypoints_3d.csv", "colmap", "points.ply"}
        assert json.loads((folder / "keypoints.json").read_text())["skeleton"] == [[0, 1], [1, 2]]


def test_evaluate_measures_against_untrained_tokens(world, tmp_path, monkeypatch, capsys):
    file = tmp_path / "scores.json"
    assert call(monkeypatch, "evaluate", world / "run", world / "data", "--json", file) == 0
    scores = json.loads(file.read_text())
    assert set(scores) == {"discovered", "untrained"}
    assert len(scores["discovered"]["objects"]) == 3
    assert scores["discovered"]["landmark_3d"] > 0
    assert scores["discovered"]["input"]["elevations"] == 3
    measures = scores["discovered"]["measures"]
    # Everything but repeatability, which needs the objects in motion, and what only a single view or a mesh has.
    missing = {f"{kind}_repeatability_0.1" for kind in ("usip", "same_index", "distinct")} | {"thewlis_regression_2d"}
    missing |= {f"keypointnet_mesh_{kind}_0.1" for kind in ("iou", "pck", "map")}
    assert {name for name, value in measures.items() if value is None} == missing
    said = capsys.readouterr().out
    for words in ("3D landmark error (mean", "3D landmark error (median", "objects turned wrong"):
        assert words in said


def test_evaluate_tells_of_an_object_that_was_its_own_fit(world, command, capsys):
    words = ["evaluate", world / "run", world / "data", "--no-baseline", "--limit"]
    for count in (1, 2):
        assert command(*words, count) == 0
        assert ("One object was its own fit" in " ".join(capsys.readouterr().out.split())) == (count == 1)


def test_evaluate_sees_objects_in_motion(world, tmp_path, monkeypatch, capsys):
    words = ["dataset", "make", tmp_path / "moved", "--objects", 3, "--size", 16, "--turn", 40]
    assert call(monkeypatch, *words) == 0
    words = ["evaluate", world / "run", world / "data", "--moved", tmp_path / "moved", "--no-baseline", "--limit", 2]
    assert call(monkeypatch, *words, "--json", tmp_path / "scores.json") == 0
    scores = json.loads((tmp_path / "scores.json").read_text())["discovered"]
    assert len(scores["objects"]) == 2
    assert 0 <= scores["measures"]["usip_repeatability_0.1"] <= 1
    said = capsys.readouterr().out
    for words in ("any keypoint within 0.1 (USIP)", "same keypoint within 0.1,", "none nearer"):
        assert words in " ".join(said.split())


def test_evaluate_can_look_at_generated_views(world, tmp_path, monkeypatch):
    """The oracle: the input picture detected by itself."""
    file, scores = tmp_path / "scores.json", {}
    for how in ("given", "generate"):
        words = ["evaluate", world / "run", world / "data", "--no-baseline", "--json", file]
        assert call(monkeypatch, *words, *(["--generate"] if how == "generate" else [])) == 0
        scores[how] = json.loads(file.read_text())["discovered"]
    assert scores["generate"]["landmark_3d"] != scores["given"]["landmark_3d"]
    first = scores["generate"]["objects"][0]
    picture = world / "data" / first["name"] / "cond.png"
    assert call(monkeypatch, "detect", world / "run", picture, "--out", tmp_path / "alone") == 0
    points = json.loads(next((tmp_path / "alone").rglob("keypoints.json")).read_text())["keypoints"]
    errors = sorted(point["reprojection_error"] for point in points)
    assert first["reprojection"] == pytest.approx(errors[(len(errors) - 1) // 2], rel=1e-3)


def test_a_mesh_file_becomes_an_object_that_can_be_detected(world, tmp_path, monkeypatch):
    trimesh.creation.box((1, 2, 3)).export(tmp_path / "box.obj")
    assert call(monkeypatch, "dataset", "render", tmp_path / "box.obj", "--out", tmp_path / "box", "--size", 32) == 0
    assert call(monkeypatch, "detect", world / "run", tmp_path / "box", "--out", tmp_path / "found") == 0


def test_resume_goes_on_from_the_checkpoint(world, tmp_path, monkeypatch, model_folder):
    run = shutil.copytree(world / "run", tmp_path / "run")
    base = ["discover", world / "data", "--model", model_folder, "--out", run]
    same = ["--tokens", 4, "--candidates", 6, "--batch", 2, "--warps", 1, "--steps", 3]
    before = (run / "tokens.safetensors").read_bytes()
    assert call(monkeypatch, *base, *same, "--resume") == 0
    assert (run / "tokens.safetensors").read_bytes() == before
    assert call(monkeypatch, *base, *same) == 2
    assert call(monkeypatch, *base, *same[:-1], 2, "--resume") == 2
    # Longer, and then the same again without saying so.
    assert call(monkeypatch, *base, *same[:-1], 5, "--resume") == 0
    longer = (run / "tokens.safetensors").read_bytes()
    assert longer != before
    assert json.loads((run / "run.json").read_text())["config"]["steps"] == 5
    assert call(monkeypatch, *base, "--resume") == 0
    assert (run / "tokens.safetensors").read_bytes() == longer


def bad_picture(kind, folder):
    path = folder / f"{kind}.png"
    if kind == "text":
        path.write_text("I am not a picture")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "one_colour":
        Image.new("RGB", (64, 64), (90, 120, 30)).save(path)
    elif kind == "one_pixel":
        Image.new("RGB", (1, 1)).save(path)
    elif kind == "cut":
        Image.effect_noise((64, 64), 50).save(path)
        path.write_bytes(path.read_bytes()[:900])
    elif kind == "no_pictures":
        path = folder / "nothing"
        path.mkdir()
    return path


@pytest.mark.parametrize("kind", ["text", "empty", "one_colour", "one_pixel", "cut", "no_pictures", "missing"])
@pytest.mark.parametrize("command", ["detect", "discover"])
def test_bad_pictures_get_one_sentence(kind, command, world, tmp_path, monkeypatch, capsys, model_folder):
    picture, out = bad_picture(kind, tmp_path), tmp_path / "out"
    if command == "detect":
        status = call(monkeypatch, "detect", world / "run", picture, "--out", out)
    else:
        status = call(monkeypatch, "discover", picture, "--model", model_folder, "--out", out)
    said = capsys.readouterr().err.strip().splitlines()
    assert status == 2
    assert len(said) == 1
    assert said[0].startswith("keyorbit: ")
    assert picture.name in said[0]
    assert not out.exists()


def test_other_bad_input_gets_one_sentence(world, tmp_path, monkeypatch, capsys, model_folder):
    data, out = world / "data", tmp_path / "out"
    broken = shutil.copytree(model_folder, tmp_path / "broken")
    shutil.rmtree(broken / "unet")
    odd = shutil.copytree(sorted(data.iterdir())[0], tmp_path / "odd")
    Image.open(odd / "grid.png").crop((0, 0, 31, 47)).save(odd / "grid.png")
    cases = [
        (["discover", data, "--model", broken, "--out", out], "unet"),
        (["discover", odd, "--model", model_folder, "--out", out], "does not divide"),
        (["discover", data, "--model", model_folder, "--out", out, "--mode", "both"], "--mode"),
        (["discover", data, "--model", model_folder, "--out", out, "--tokens", "0"], "--tokens"),
        (["discover", data, "--model", model_folder, "--out", out, "--layers", "nope*"], "nope"),
        (["detect", tmp_path / "no_run", data, "--out", out], "no tokens"),
        (["detect", world / "run", data, "--out", out, "--format", "json,obj"], "'obj'"),
        (["detect", world / "run", data, "--out", out, "--skeleton", "0-9"], "0-9"),
        (["detect", world / "run", data, "--out", out, "--skeleton", "spine"], "spine"),
        (["dataset", "make", out, "--category", "unicorn"], "unicorn"),
        (["dataset", "make", out, "--shard", "4"], "--shard"),
        (["dataset", "make", out, "--shard", "4/4"], "no shard 4 of 4"),
        (["dataset", "render", tmp_path / "no.obj", "--out", out], "no.obj"),
        (["evaluate", world / "run", tmp_path, "--dataset", "taichi"], "taichi_test_gt.json"),
        (["evaluate", world / "run", data, "--dataset", "unicorns"], "celeba-aligned"),
        (["evaluate", world / "run", data, "--limit", "0"], "--limit"),
    ]
    for words, named in cases:
        assert call(monkeypatch, *words) == 2, words
        said = capsys.readouterr().err.strip().splitlines()
        assert said[-1].startswith("keyorbit: "), said
        assert named in said[-1]
        assert "Traceback" not in "".join(said)
        assert not out.exists(), words


def test_tokens_of_another_model_are_refused(world, tmp_path, monkeypatch, capsys, model_folder):
    other = shutil.copytree(model_folder, tmp_path / "other")
    path = next((other / "vae").glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    words = ["detect", world / "run", world / "data", "--out", tmp_path / "out", "--model", other]
    assert call(monkeypatch, *words) == 2
    assert "use that model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_separate_unet_is_another_model(world, tmp_path, monkeypatch, capsys, model_folder):
    stored = next((model_folder / "unet").glob("*.safetensors"))
    words = ["detect", world / "run", world / "data", "--out", tmp_path / "out", "--unet"]
    other = tmp_path / "other.safetensors"
    save_file({name: weight + 1 for name, weight in load_file(stored).items()}, other)
    for file, named in ((other, "use that model"), (stored.with_suffix(".bin"), "no UNet state dict")):
        assert call(monkeypatch, *words, file) == 2
        assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_version(monkeypatch, capsys):
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


def test_verbose_tells_with_what_where_to_and_how_long(world, model_folder, few_planted, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest's own: with them main() adds none
    detect = ["detect", world / "run", sorted((world / "data").iterdir())[0], "--out", tmp_path / "found"]
    assert call(monkeypatch, *detect) == 0
    assert capsys.readouterr().err == "detect 1/1\n"
    assert call(monkeypatch, "--verbose", *detect, "--overwrite") == 0
    told = capsys.readouterr().err
    found = "on 6 given views, in "
    for words in (
        "6 views of 16 pixels, float32 on cpu",
        "4 tokens from 3 objects",
        found,
        "found: coco.json",
        " s in all",
    ):
        assert words in told
    discover = ["discover", world / "data", "--model", model_folder, "--out", tmp_path / "run"]
    few = ["--tokens", 4, "--candidates", 6, "--steps", 2, "--warps", 1, "--config", few_planted]
    assert call(monkeypatch, "-v", *discover, *few) == 0
    told = capsys.readouterr().err
    for words in ("objects in", "queries, ", "3 objects in 2 versions", "layers: ", "steps 1 to 2", "kept tokens"):
        assert words in told
    for name in ("checkpoint.safetensors", "tokens.safetensors", "discover.toml", "losses.jsonl", "run.json"):
        assert f"wrote {tmp_path / 'run' / name}" in told


def test_quiet_leaves_results_and_errors_only(tmp_path, monkeypatch, capfd):
    words = ["dataset", "make", tmp_path / "data", "--objects", 1, "--size", 16]
    assert call(monkeypatch, *words) == 0
    assert "render 1/1" in capfd.readouterr().err
    assert call(monkeypatch, "--quiet", *words, "--overwrite") == 0
    said = capfd.readouterr()
    assert said.err == ""
    assert "1 objects" in said.out
    assert call(monkeypatch, "--quiet", "--verbose", *words) == 2


def test_keypoints_are_named_by_the_words_for_the_kind_that_the_objects_tell(world, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(world / "run", tmp_path / "run")
    assert call(monkeypatch, "name", run, "--limit", 1, "--json", tmp_path / "names.json") == 0
    assert "the tiny model's words for the kind chair" in capsys.readouterr().err
    told = json.loads((tmp_path / "names.json").read_text())["names"]
    assert {one["runner_up"] for one in told} <= {*kind_phrases("chair")}
    others = shutil.copytree(world / "data", tmp_path / "data")
    meta = sorted(others.iterdir())[0] / "meta.json"
    for kind in ("boat", "car"):  # one without words; two kinds
        meta.write_text(json.dumps(json.loads(meta.read_text()) | {"category": kind}))
        assert call(monkeypatch, "name", run, "--objects", others) == 2
        assert "do not tell one kind that the tiny model has words for: give --words FILE" in capsys.readouterr().err
