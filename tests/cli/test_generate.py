"""`keyorbit generate`: views of pictures, as objects that the other commands read."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from keyorbit.diffusion.generation import Sampling, generate_objects
from keyorbit.diffusion.prepare import object_views
from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectViews, load_dataset, load_object

STEPS = 3


@pytest.fixture
def pictures(tmp_path):
    """Two pictures of other sizes, the first with alpha."""
    (tmp_path / "pictures").mkdir()
    draw = np.random.default_rng(0)
    for name, size in (("a", (20, 24, 4)), ("b", (16, 16, 3))):
        Image.fromarray(draw.integers(0, 256, size, np.uint8)).save(tmp_path / "pictures" / f"{name}.png")
    return tmp_path / "pictures"


def grids(folder):
    return {path.parent.name: np.asarray(Image.open(path), int) for path in sorted(folder.rglob("grid.png"))}


def test_the_views_are_those_of_backend_generate_and_an_object_of_all_commands(
    pictures, tmp_path, model_folder, backend, command, capsys
):
    words = ["generate", pictures, "--model", model_folder, "--steps", STEPS, "--guidance", 2, "--seed", 5]
    assert command(*words, "--num", 2, "--out", tmp_path / "out") == 0
    said = [Path(line).name for line in capsys.readouterr().out.split()]
    assert said == ["a_0", "a_1", "b_0", "b_1"]
    found = grids(tmp_path / "out")
    assert list(found) == said
    for name in said:
        seed = 5 + int(name[-1])
        picture = Image.open(pictures / f"{name[0]}.png")
        alone = backend.generate([picture], torch.Generator().manual_seed(seed), STEPS, 2.0)[0]
        grid = (alone.permute(1, 2, 0) * 255).round().numpy()
        assert (found[name] == grid).all()
        folder = tmp_path / "out" / name
        told = json.loads((folder / "meta.json").read_text())["generated"]
        assert told == {
            "model": str(model_folder),
            "model_fingerprint": backend.fingerprint,
            "dtype": "float32",
            "seed": seed,
            "steps": STEPS,
            "guidance": 2.0,
        }
        thing = load_object(folder)
        assert (np.asarray(thing.input_image) == np.asarray(picture)).all()
        assert torch.equal(thing.cameras.world_to_camera, backend.cameras.world_to_camera)
        views = [np.asarray(Image.open(folder / f"view_{i}.png")) for i in range(6)]
        assert (np.asarray(thing.views.permute(0, 2, 3, 1) * 255).round() == np.stack(views)).all()
    assert len(load_dataset(tmp_path / "out")) == 4


def test_detect_sees_the_same_views_with_the_same_seed(pictures, tmp_path, backend):
    thing = ObjectViews("a", Image.open(pictures / "a.png"))
    generate_objects([tmp_path / "a"], [thing], backend, Sampling(seed=7))
    seen, _, _ = object_views(thing, backend, torch.Generator().manual_seed(7))
    assert torch.allclose(load_object(tmp_path / "a").views, seen, atol=0.5001 / 255)


def test_pictures_that_go_together_give_the_same_views(pictures, tmp_path, backend):
    things, told = list(load_dataset(pictures)), []
    for batch in (1, 3):
        places = [tmp_path / str(batch) / name for name in "abcd"]
        generate_objects(places, things, backend, Sampling(1, 2, STEPS), batch, lambda *now: told.append(now))
    alone, together = grids(tmp_path / "1"), grids(tmp_path / "3")
    assert all(np.abs(alone[name] - together[name]).max() <= 1 for name in "abcd")
    assert told == [(i, 12) for i in range(1, 13)] + [(i, 6) for i in range(1, 7)]


def test_a_model_of_one_view_generates_none(pictures, tmp_path, stable_diffusion_folder, command, capsys):
    assert command("generate", pictures, "--model", stable_diffusion_folder, "--out", tmp_path / "out") == 2
    assert "a model of a single view, which generates none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"sets": 0}, {"steps": 1001}, {"guidance": float("nan")}])
def test_samplings_that_cannot_be(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Sampling(**wrong)
