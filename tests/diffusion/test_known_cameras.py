"""Which cameras a Zero123++ has: told by what is in its folder, never by what it is called, unless somebody chooses."""

import json
import shutil

import pytest
import torch

import keyorbit as ko
from keyorbit.diffusion.backends.known_cameras import camera_choices, cameras_in
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.cache.index import read_index
from keyorbit.errors import InputError
from keyorbit.geometry.rigs import rig, zero123plus_cameras

# As huggingface.co has them in sudo-ai/zero123plus-v1.1 and -v1.2, model_index.json.
PUBLISHED = {
    "v1.1": {
        "_class_name": "Zero123PlusPipeline",
        "_diffusers_version": "0.17.1",
        "ramping_coefficients": [0.0, 0.2060057818889618, 0.18684479594230652, 0.24342191219329834, 0.1850781738],
    },
    "v1.2": {
        "_class_name": "Zero123PlusPipeline",
        "_diffusers_version": "0.24.0",
        "_name_or_path": "sudo-ai/zero123plus-v1.1",
        "ramping_coefficients": [0.00301829120144, 0.22046332061, 0.21527841687, 0.23498539626598358, 0.1914631873],
    },
}  # fmt: skip


def copy(model_folder, folder, **changes):
    """The small model elsewhere, its index changed."""
    shutil.copytree(model_folder, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({k: v for k, v in (index | changes).items() if v is not None}))
    return folder


def stands_as(backend, name):
    cameras = zero123plus_cameras(name) if name in ("v1.1", "v1.2") else rig(name).cameras
    found = backend.cameras
    same_places = torch.equal(found.world_to_camera, cameras.world_to_camera)
    return same_places and torch.equal(found.intrinsics, cameras.intrinsics)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_models_are_told_apart_by_what_they_learned(name, model_folder, tmp_path):
    assert cameras_in(PUBLISHED[name], tmp_path) == name
    saved_again = PUBLISHED[name] | {"_diffusers_version": "0.40.0", "_name_or_path": f"elsewhere/zero123plus-{name}"}
    assert cameras_in(saved_again, tmp_path) == name
    coefficients = json.loads((model_folder / "model_index.json").read_text())["ramping_coefficients"]
    learned = PUBLISHED[name]["ramping_coefficients"]
    folder = copy(
        model_folder,
        tmp_path / "zero123plus-v1.1-or-v1.2",
        version=None,
        ramping_coefficients=learned + coefficients[len(learned) :],
    )
    assert stands_as(load_backend(folder), name)


@pytest.mark.parametrize("name", ["exp-v1.1/zero123plus-v1.2", "zero123plus-v1.1", "my.v1.1.models/m"])
def test_no_name_and_no_path_tells(name, model_folder, tmp_path, caplog):
    assert stands_as(load_backend(copy(model_folder, tmp_path / name)), "v1.2")
    assert not caplog.records
    other = copy(model_folder, tmp_path / "other" / name, version=None)
    assert stands_as(load_backend(other), "v1.2")
    assert "no published Zero123++" in caplog.text
    assert "--cameras-of" in caplog.text


@pytest.mark.parametrize("version", [7, None, "v9", [], "1.0"])
def test_a_version_that_is_none_tells_nothing(version, tmp_path):
    assert cameras_in(PUBLISHED["v1.1"] | {"version": version}, tmp_path) == "v1.1"


def test_the_shipped_model_knows_its_cameras(caplog):
    assert stands_as(load_backend("tiny"), "v1.2")
    assert not caplog.records


@pytest.mark.parametrize("name", camera_choices())
def test_somebody_may_choose(name, model_folder):
    assert stands_as(load_backend(model_folder, cameras_of=name), name)


def test_what_cannot_be_chosen_is_refused(model_folder, stable_diffusion_folder):
    assert camera_choices() == ("v1.1", "v1.2", "zero123plus-v1.1", "zero123plus-v1.2", "instantmesh")
    for name, words in (("wonder3d", "not tiled as Zero123"), ("v1.3", "unknown: give one of v1.1, v1.2")):
        with pytest.raises(InputError, match=words):
            load_backend(model_folder, cameras_of=name)
    with pytest.raises(InputError, match="has no cameras"):
        load_backend(stable_diffusion_folder, cameras_of="v1.1")


def test_every_command_remembers_them(model_folder, chairs, tmp_path, command, capsys):
    run = tmp_path / "run"
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    shutil.copy(min(chairs.glob("*/cond.png")), pictures / "0.png")
    (tmp_path / "few.toml").write_text("planting = 3")
    few = ["--tokens", 2, "--candidates", 3, "--steps", 2, "--batch", 1]
    few += ["--config", tmp_path / "few.toml", "--noises", 1]
    discover = ["discover", pictures, "--model", model_folder, "--out", run, *few]
    assert command(*discover, "--cameras-of", "v1.1") == 0
    assert Tokens.load(run / "tokens.safetensors").info.cameras_of == "v1.1"
    assert command(*discover, "--resume") == 2
    assert "cameras_of" in capsys.readouterr().err
    seen = {}
    for name, more in (("own", []), ("other", ["--cameras-of", "instantmesh"])):
        assert command("detect", run, pictures / "0.png", "--out", tmp_path / name, "--noises", 1, *more) == 0
        written = json.loads((tmp_path / name / "keypoints.json").read_text())["cameras"]
        seen[name] = ko.Cameras.from_dict(written)
    torch.testing.assert_close(seen["own"].intrinsics, zero123plus_cameras("v1.1").intrinsics)
    torch.testing.assert_close(seen["other"].world_to_camera, rig("instantmesh").cameras.world_to_camera)
    cache = ["cache", pictures, "--model", model_folder, "--out", tmp_path / "cache", "--noises", 1]
    assert command(*cache, "--cameras-of", "v1.1") == 0
    assert read_index(tmp_path / "cache").cameras_of == "v1.1"
    assert command(*cache) == 2  # another cache
    assert "cameras_of" in capsys.readouterr().err
    cached = ["discover", "--cache", tmp_path / "cache", "--out", tmp_path / "cached", *few[:-2]]
    assert command(*cached, "--cameras-of", "v1.1") == 2
    assert "cannot be chosen any more" in capsys.readouterr().err
    assert command(*cached) == 0
    assert Tokens.load(tmp_path / "cached" / "tokens.safetensors").info.cameras_of == "v1.1"
