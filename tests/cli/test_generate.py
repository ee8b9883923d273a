"""`keyorbit generate`: views of pictures, as objects that the other commands read."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from PIL import Image

from helpers.disk import contents
from helpers.models import save_controlnet
from keyorbit.diffusion.backends.components import load_controlnet
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.control import Control, depth_picture, load_depths
from keyorbit.diffusion.generation import Sampling, generate_objects
from keyorbit.diffusion.prepare import object_views
from keyorbit.errors import InputError
from keyorbit.geometry.views import split_views
from keyorbit.objects.dataset import ObjectViews, load_dataset, load_object

STEPS = 3


@pytest.fixture
def pictures(tmp_path):
    """Two pictures of other sizes, the first with alpha."""
    (tmp_path / "pictures").mkdir()
    draw = np.random.default_rng(0)
    for name, size in (("a", (24, 24, 4)), ("b", (16, 16, 3))):
        Image.fromarray(draw.integers(0, 256, size, np.uint8)).save(tmp_path / "pictures" / f"{name}.png")
    return tmp_path / "pictures"


@pytest.fixture(scope="module")
def controlnet(model_folder, tmp_path_factory):
    return save_controlnet(model_folder, tmp_path_factory.mktemp("controlnet"))


def as_picture(grid):
    return Image.fromarray((grid.permute(1, 2, 0) * 255).round().numpy().astype(np.uint8))


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
        assert (found[name] == np.asarray(as_picture(alone))).all()
        folder = tmp_path / "out" / name
        told = json.loads((folder / "meta.json").read_text())["generated"]
        assert told == {
            "model": str(model_folder),
            "model_fingerprint": backend.fingerprint,
            "dtype": "float32",
            "seed": seed,
            "steps": STEPS,
            "guidance": 2.0,
            "recentred": False,
        }
        thing = load_object(folder)
        assert (np.asarray(thing.input_image) == np.asarray(picture)).all()
        assert torch.equal(thing.cameras.world_to_camera, backend.cameras.world_to_camera)
        views = [np.asarray(Image.open(folder / f"view_{i}.png")) for i in range(6)]
        assert (np.asarray(thing.views.permute(0, 2, 3, 1) * 255).round() == np.stack(views)).all()
    assert len(load_dataset(tmp_path / "out")) == 4
    assert command(*words, "--num", 2, "--out", tmp_path / "out") == 2
    assert "a_0 holds a set of views already: replace it (--overwrite)" in capsys.readouterr().err
    assert command(*words, "--out", tmp_path / "out/a_0/grid.png") == 2
    assert "grid.png is a file; give a folder for the set of views" in capsys.readouterr().err


def test_the_same_command_makes_what_is_missing(pictures, tmp_path, model_folder, command, capsys, monkeypatch):
    (pictures / "bad.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    words = ["generate", pictures, "--model", model_folder, "--steps", 1, "--out", out]
    assert command(*words) == 2
    said = capsys.readouterr()
    assert "1 of 3 objects are left out: " in said.err
    assert "bad.png" in said.err
    assert [Path(line).name for line in said.out.split()] == ["a", "b"]
    before = contents(out)
    shutil.rmtree(out / "b")
    ran, generate = [], Zero123PlusBackend.generate
    monkeypatch.setattr(
        Zero123PlusBackend, "generate", lambda *given, **more: ran.append(1) or generate(*given, **more)
    )
    assert command(*words, "--seed", 1) == 2
    assert "a holds a set of views of another picture, or made with other settings" in capsys.readouterr().err
    assert command(*words, "--strict") == 2
    assert ran == [1]
    assert contents(out) == before
    (pictures / "bad.png").unlink()
    shutil.rmtree(out / "b")
    shutil.copy(pictures / "b.png", pictures / "a.png")
    assert command(*words) == 2
    assert "a holds a set of views of another picture" in capsys.readouterr().err


def test_detect_sees_the_same_views_with_the_same_seed(pictures, tmp_path, backend):
    thing = ObjectViews("a", Image.open(pictures / "a.png"))
    generate_objects([tmp_path / "a"], [thing], backend, Sampling(seed=7))
    seen, _, _ = object_views(thing, backend, torch.Generator().manual_seed(7))
    assert torch.allclose(load_object(tmp_path / "a").views, seen, atol=0.5001 / 255)


def test_a_small_object_is_shown_in_the_middle(tmp_path, model_folder, backend, command, capsys):
    picture = Image.new("RGBA", (40, 40))
    picture.paste("red", (2, 2, 12, 12))
    picture.save(tmp_path / "small.png")
    words = ["generate", tmp_path / "small.png", "--model", model_folder, "--steps", 1, "--out"]
    thing, seeded = ObjectViews("small", picture), torch.Generator().manual_seed
    for more, shown in ([], thing.framed_image), (["--no-recentre"], picture):
        assert command(*words, tmp_path / str(len(more)), *more) == 0
        assert ("recentred: the object fills 25%" in capsys.readouterr().err) == (not more)
        grid = as_picture(backend.generate(shown, seeded(0), 1)[0])
        assert (grids(tmp_path / str(len(more)))["small"] == np.asarray(grid)).all()
        told = json.loads((tmp_path / str(len(more)) / "small" / "meta.json").read_text())["generated"]
        assert told["recentred"] == (not more)


def test_pictures_that_go_together_give_the_same_views(pictures, tmp_path, backend):
    things, told = list(load_dataset(pictures)), []
    for batch in (1, 3):
        places = [tmp_path / str(batch) / name for name in "abcd"]
        generate_objects(places, things, backend, Sampling(1, 2, STEPS), None, batch, lambda *now: told.append(now))
    alone, together = grids(tmp_path / "1"), grids(tmp_path / "3")
    assert all(np.abs(alone[name] - together[name]).max() <= 1 for name in "abcd")
    assert told == [(i, 12) for i in range(1, 13)] + [(i, 6) for i in range(1, 7)]


@pytest.fixture(scope="module")
def controlled(model_folder, controlnet):
    return load_backend(model_folder, controlnet=controlnet)


def test_normals_are_what_the_controlnet_makes_of_the_views(
    pictures, tmp_path, model_folder, controlnet, controlled, command
):
    words = ["generate", pictures / "b.png", "--model", model_folder, "--steps", STEPS, "--normals"]
    assert command(*words, "--controlnet", controlnet, "--out", tmp_path / "out") == 0
    picture, seeded = Image.open(pictures / "b.png"), lambda: torch.Generator().manual_seed(0)
    grid = as_picture(controlled.generate(picture, seeded(), STEPS)[0])
    normals = as_picture(controlled.generate(picture, seeded(), STEPS, depth_images=grid, conditioning_scale=1.0)[0])
    assert (grids(tmp_path / "out")["b"] == np.asarray(grid)).all()
    assert (np.asarray(Image.open(tmp_path / "out" / "b" / "normals.png")) == np.asarray(normals)).all()
    assert not (np.asarray(normals) == np.asarray(grid)).all()
    told = json.loads((tmp_path / "out" / "b" / "meta.json").read_text())["generated"]
    assert (told["control"], told["control_scale"]) == ("normals", 1.0)


@pytest.mark.parametrize("given", [True, False])
def test_views_that_follow_depths(given, pictures, tmp_path, model_folder, controlnet, controlled, command, chairs):
    """Those of a picture; of an object's own views; of views that are generated before."""
    picture, seeded = Image.open(pictures / "b.png"), lambda: torch.Generator().manual_seed(4)
    if given:
        depth = Image.fromarray(np.random.default_rng(1).integers(0, 256, (48, 32, 3), np.uint8))
        depth.save(tmp_path / "depth.png")
        words, weight = ["--depth", tmp_path / "depth.png", "--control-scale", 0.5], 0.5
    else:
        first = controlled.generate(picture, seeded(), STEPS)[0]
        made = ObjectViews("first", picture, split_views(first, controlled.layout).movedim(1, 0))
        _, masks, cameras = object_views(made, controlled, seeded())
        depth = depth_picture(masks, cameras, controlled.layout)
        words, weight = ["--depth", "auto"], 0.75
    words = ["generate", pictures / "b.png", "--model", model_folder, "--steps", STEPS, "--seed", 4, *words]
    assert command(*words, "--controlnet", controlnet, "--out", tmp_path / "out") == 0
    grid = controlled.generate(picture, seeded(), STEPS, depth_images=depth, conditioning_scale=weight)[0]
    assert (grids(tmp_path / "out")["b"] == np.asarray(as_picture(grid))).all()
    assert (np.asarray(Image.open(tmp_path / "out" / "b" / "depth.png")) == np.asarray(depth)).all()


def test_depths_of_an_objects_own_views(tmp_path, controlled, objects):
    thing, told = objects[0], []
    for batch in (1, 2):
        places = [tmp_path / str(batch) / "own", tmp_path / str(batch) / "bare"]
        things = [thing, ObjectViews("bare", thing.input_image)]
        how = {"batch": batch, "progress": lambda *now: told.append(now)}
        generate_objects(places, things, controlled, Sampling(steps=2), Control("auto"), **how)
        assert told[-1] == ((6, 6) if batch == 1 else (4, 4))
    depth = np.asarray(Image.open(tmp_path / "1" / "own" / "depth.png"))
    assert (depth == np.asarray(depth_picture(thing.masks, thing.cameras, controlled.layout))).all()
    assert (depth == np.asarray(Image.open(tmp_path / "2" / "own" / "depth.png"))).all()
    assert [depth[depth[..., 3] > 0].min(), depth[..., :3].max()] == [0, 255]
    other = replace(thing, cameras=thing.cameras.select([1, 0, 2, 3, 4, 5]))
    with pytest.raises(InputError, match="has other cameras than the model"):
        generate_objects([tmp_path / "other"], [other], controlled, Sampling(steps=1), Control("auto"))


WRONG = [
    (["--depth", "auto", "--normals"], "choose one of them"),
    (["--control-scale", 1], "give one of these too"),
    (["--normals", "--model", "tiny"], "the tiny model has no ControlNet"),
    (["--normals", "--controlnet", "nowhere"], "no ControlNet at nowhere"),
    (["--depth", "none.png", "--controlnet", "a/b"], "there is no picture at none.png"),
]


@pytest.mark.parametrize(("words", "sentence"), WRONG)
def test_what_a_controlnet_cannot_do(words, sentence, pictures, tmp_path, model_folder, command, capsys):
    assert command("generate", pictures, "--model", model_folder, *words, "--out", tmp_path / "out") == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_depths_of_more_than_eight_bits_are_refused(pictures, tmp_path, model_folder, controlnet, command, capsys):
    Image.fromarray(np.full((48, 32), 1500, np.uint16)).save(tmp_path / "depth.png")
    words = ["generate", pictures, "--model", model_folder, "--controlnet", controlnet, "--out", tmp_path / "out"]
    assert command(*words, "--depth", tmp_path / "depth.png") == 2
    assert "does not have 8 bits a channel" in capsys.readouterr().err


def test_depths_for_print_are_read_as_colours(tmp_path):
    Image.new("CMYK", (32, 48), (0, 0, 0, 128)).save(tmp_path / "depth.jpg")
    assert load_depths(tmp_path / "depth.jpg").mode == "RGB"  # a PNG beside the views has no inks


def test_a_controlnet_of_several_files_loads_without_a_word(
    pictures, tmp_path, model_folder, controlnet, command, capfd
):
    ControlNetModel.from_pretrained(controlnet).save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    capfd.readouterr()
    words = ["--model", model_folder, "--controlnet", tmp_path / "shards", "--steps", 1, "--normals"]
    assert command("-q", "generate", pictures / "b.png", *words, "--out", tmp_path / "out") == 0
    assert capfd.readouterr().err == ""


def test_a_controlnet_of_other_sizes_is_told_in_one_sentence(controlnet, tmp_path):
    other = shutil.copytree(controlnet, tmp_path / "other")
    config = json.loads((other / "config.json").read_text()) | {"conditioning_channels": 1}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"expected shape .*1, 3, 3.*but got torch.Size\(\[8, 3, 3, 3\]\)$"):
        load_controlnet(other, torch.float32)


def test_a_whole_model_is_no_controlnet(pictures, tmp_path, model_folder, command, capsys):
    words = ["generate", pictures, "--model", model_folder, "--out", tmp_path / "out"]
    assert command(*words, "--normals", "--controlnet", model_folder) == 2
    assert f"{model_folder} holds no ControlNet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_of_one_view_generates_none(pictures, tmp_path, stable_diffusion_folder, command, capsys):
    assert command("generate", pictures, "--model", stable_diffusion_folder, "--out", tmp_path / "out") == 2
    assert "a model of a single view, which generates none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"sets": 0}, {"steps": 1001}, {"guidance": float("nan")}])
def test_samplings_that_cannot_be(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Sampling(**wrong)
