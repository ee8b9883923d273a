"""What `generate` says of a picture of which the tiny model makes something that it does not know."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keyorbit
from keyorbit.cli.work.doubts import doubts
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.objects.dataset import ObjectViews, load_dataset

CHAIR = Path(keyorbit.__file__).parent / "assets" / "examples" / "chair_2_00003"


@pytest.fixture(scope="module")
def tiny():
    return load_backend("tiny")


def test_a_chair_is_known_and_noise_is_not_whatever_was_made_of_it(tiny):
    chair = load_dataset(CHAIR / "cond.png")[0]
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    noise = ObjectViews("noise", Image.fromarray(noise), background="keep")
    (said,) = doubts([chair, noise], [CHAIR, CHAIR], tiny)
    assert said[0] == "noise"
    assert said[1].startswith("its views show no chair, car, aeroplane or animal (0%); the picture is noise")


def test_views_that_are_of_nothing_known_have_a_remedy(tiny, tmp_path):
    """The chair's views in a wrong order are no object."""
    for file in CHAIR.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    grid = np.asarray(Image.open(CHAIR / "grid.png"))
    Image.fromarray(np.roll(grid[::-1], 40, 1)).save(tmp_path / "grid.png")
    ((_, words),) = doubts([load_dataset(CHAIR / "cond.png")[0]], [tmp_path], tiny)
    assert "others take published weights, such as --model sudo-ai/zero123plus-v1.2" in words


def test_of_other_weights_nothing_is_said(backend):
    assert doubts([load_dataset(CHAIR / "cond.png")[0]], [CHAIR], backend) == []


def test_generate_says_it_of_each_picture(chairs, model_folder, backend, command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("keyorbit.cli.work.loading.load_backend", lambda *_: backend)
    asked = []
    monkeypatch.setattr(
        "keyorbit.cli.work.doubts.doubts",
        lambda things, folders, _: asked.extend(folders) or [(things[0].name, "no chair")],
    )
    words = ["generate", chairs, "--model", model_folder, "--steps", 1, "--num", 2, "--out", tmp_path / "out"]
    assert command(*words) == 0
    assert [folder.name for folder in asked] == [f"chair_1_0000{i}_0" for i in range(3)]
    assert "chair_1_00000: no chair" in capsys.readouterr().err
