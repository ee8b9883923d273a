"""The command line with Stable Diffusion: plain pictures, keypoints in 2D, and measures where the truth allows."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from helpers.command_line import call
from keyorbit.detection.detector import KeypointDetector
from keyorbit.diffusion.tokens import Tokens
from keyorbit.output.loss_log import read_losses
from keyorbit.storage.outputs import MARKER
from keyorbit.synthetic.dataset import DatasetSpec, make_dataset


@pytest.fixture(scope="module")
def world(tmp_path_factory, stable_diffusion_folder):
    """A folder of pictures, among them one with alpha, one in grey and one not square, and a finished run on it."""
    root = tmp_path_factory.mktemp("single_view")
    (root / "data").mkdir()
    draws = np.random.default_rng(0)
    for name, mode, size in (
        ("a", "RGB", (40, 40)),
        ("b", "RGBA", (33, 33)),
        ("c", "L", (32, 32)),
        ("d", "RGB", (32, 70)),
    ):
        pixels = draws.integers(0, 255, (*size, 4), dtype=np.uint8)
        Image.fromarray(pixels, "RGBA").convert(mode).save(root / "data" / f"{name}.png")
    with pytest.MonkeyPatch.context() as patch:
        options = ["--tokens", 3, "--candidates", 5, "--steps", 3, "--batch", 2, "--warps", 1]
        words = ["discover", root / "data", "--model", stable_diffusion_folder, "--out", root / "run", *options]
        assert call(patch, *words) == 0
    return root


def test_a_run_is_made_with_the_models_own_settings(world):
    assert [entry["step"] for entry in read_losses(world / "run")] == [1, 2, 3]
    assert {"sharpening", "equivariance", "total"} < set(read_losses(world / "run")[0])
    info = Tokens.load(world / "run" / "tokens.safetensors").info
    assert info.timestep == 0
    assert len(info.layers) == 4
    assert info.settings["maps"] == "attention"


def test_detect_writes_two_dimensions_and_says_so(world, tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, "detect", world / "run", world / "data" / "d.png", "--out", tmp_path / "one") == 0
    assert "no points.glb" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "one").iterdir()} - {MARKER}
    assert names == {"keypoints.json", "coco.json", "overlay.png", "view_0.png"}
    found = json.loads((tmp_path / "one" / "keypoints.json").read_text())
    assert len(found["keypoints"]) == 3
    assert "xyz" not in found["keypoints"][0]
    assert found["cameras"] is None
    assert found["input"] is None
    (view,) = found["views"]
    assert np.array(view["xy"]).shape == (3, 2)
    assert len(view["score"]) == 3
    coco = json.loads((tmp_path / "one" / "coco.json").read_text())
    assert [(image["width"], image["height"]) for image in coco["images"]] == [(32, 32)]
    assert call(monkeypatch, "detect", world / "run", world / "data", "--out", tmp_path / "all") == 0
    assert {path.name for path in (tmp_path / "all").iterdir()} == {"a", "b", "c", "d", "results.jsonl", MARKER}


def test_a_single_view_is_not_triangulated(world, stable_diffusion):
    detector = KeypointDetector(stable_diffusion, Tokens.load(world / "run" / "tokens.safetensors"))
    found = detector.detect(world / "data" / "b.png")
    with pytest.raises(ValueError, match="one view does not fix a point"):
        found.triangulate()


def test_evaluate_measures_landmarks_in_the_input_picture(world, tmp_path, monkeypatch, capsys):
    make_dataset(tmp_path / "chairs", DatasetSpec("chair", 3, seed=1, size=32))
    file = tmp_path / "scores.json"
    assert call(monkeypatch, "evaluate", world / "run", tmp_path / "chairs", "--json", file) == 0
    scores = json.loads(file.read_text())["discovered"]
    assert scores["landmark_3d"] is None
    assert scores["reprojection"] is None
    # How large it is says nothing: weights fitted on one or two pictures, of an untrained UNet.
    errors = [thing["landmark_2d"] for thing in scores["objects"]]
    assert 0 < min(errors) < scores["landmark_2d"] < max(errors)
    assert "2D landmark error" in capsys.readouterr().out
    assert call(monkeypatch, "evaluate", world / "run", world / "data", "--json", file) == 0
    assert json.loads(file.read_text())["discovered"]["landmark_2d"] is None


def test_resume_goes_on_from_the_checkpoint(world, tmp_path, monkeypatch, stable_diffusion_folder):
    run = shutil.copytree(world / "run", tmp_path / "run")
    same = ["--tokens", 3, "--candidates", 5, "--batch", 2, "--warps", 1, "--steps", 3]
    before = (run / "tokens.safetensors").read_bytes()
    words = ["discover", world / "data", "--model", stable_diffusion_folder, "--out", run, *same, "--resume"]
    assert call(monkeypatch, *words) == 0
    assert (run / "tokens.safetensors").read_bytes() == before


@pytest.mark.parametrize(("words", "named"), [(["--maps", "nope"], "stablekeypoints"), (["--timestep", "-1"], "999")])
def test_bad_options_get_one_sentence(world, words, named, tmp_path, monkeypatch, capsys, stable_diffusion_folder):
    start = ["discover", world / "data", "--model", stable_diffusion_folder, "--out", tmp_path / "out"]
    assert call(monkeypatch, *start, *words) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
