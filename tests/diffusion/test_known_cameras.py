"""Which cameras a Zero123++ has: told by what is in its folder, never by what it is called, unless somebody chooses."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

import keyorbit as ko
from keyorbit.diffusion.backends.known_cameras import cameras_in
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.choices import RIGS, TILED_RIGS, VERSIONS
from keyorbit.diffusion.inspection.architectures import load_architecture
from keyorbit.diffusion.inspection.shape_report import inspect_model
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.cache.index import read_index
from keyorbit.errors import InputError
from keyorbit.geometry.rigs import known_rigs, rig, zero123plus_cameras

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
    assert "--rig" in caplog.text


@pytest.mark.parametrize("version", [7, None, "v9", [], "1.0"])
def test_a_version_that_is_none_tells_nothing(version, tmp_path):
    assert cameras_in(PUBLISHED["v1.1"] | {"version": version}, tmp_path) == "v1.1"


def test_the_shipped_model_knows_its_cameras(caplog):
    assert stands_as(load_backend("tiny"), "v1.2")
    assert not caplog.records


# Every rig, in a layout of its number of views: those of a batch are tiled only by who fine-tuned a model so.
LAYOUTS = dict.fromkeys((*VERSIONS, *TILED_RIGS)) | {
    "syncdreamer": "4x4",
    "wonder3d": "1x6",
    "era3d": "2x3",
    "mvdream": "2x2",
    "mv-adapter": "6x1",
}


def test_every_rig_can_be_chosen():
    assert tuple(LAYOUTS) == RIGS
    tiled = {name for name, known in known_rigs().items() if known.tiled}
    assert tiled == {*TILED_RIGS}
    assert {*VERSIONS, *known_rigs()} == {*RIGS}


@pytest.mark.parametrize(("name", "layout"), LAYOUTS.items())
def test_somebody_may_choose(name, layout, model_folder):
    backend = load_backend(model_folder, rig=name, layout=layout)
    assert stands_as(backend, name)
    assert backend.layout.text == (layout or "3x2")
    assert backend.cameras_of == name
    grid = backend.generate(Image.new("RGB", (8, 8), "red"), torch.Generator(), steps=1)
    assert grid.shape[-2:] == (16 * backend.layout.rows, 16 * backend.layout.cols)


def test_a_folder_tells_its_layout_and_its_cameras(model_folder, tmp_path, caplog):
    cameras = rig("mvdream").cameras
    whole = copy(model_folder, tmp_path / "whole", layout="4x1", cameras=cameras.to_dict())
    for choice, layout in (({}, "4x1"), ({"layout": "2x2"}, "2x2"), ({"layout": ko.Layout(1, 4)}, "1x4")):
        backend = load_backend(whole, **choice)
        assert backend.layout.text == layout
        torch.testing.assert_close(backend.cameras.world_to_camera, cameras.world_to_camera)
    assert load_architecture(whole).layout == ko.Layout(4, 1)
    assert not caplog.records
    pair = copy(model_folder, tmp_path / "pair", layout=[2, 3], version=None)
    assert load_backend(pair).layout == ko.Layout(2, 3)
    assert "row by row, are taken to have the cameras of v1.2; --rig" in caplog.text
    assert stands_as(load_backend(pair, cameras_of="wonder3d"), "wonder3d")  # the older name


def test_cameras_from_a_file(model_folder, tmp_path):
    cameras = ko.orbit_cameras([0.0, 90.0, 180.0, 270.0], 10.0, 2.0)
    file = tmp_path / "cameras.json"
    file.write_text(json.dumps({"cameras": cameras.to_dict()}))
    backend = load_backend(model_folder, rig=file, layout="2x2")
    torch.testing.assert_close(backend.cameras.world_to_camera, cameras.world_to_camera)
    assert backend.cameras_of == str(file)
    pixels = cameras.intrinsics * torch.tensor([256.0, 256.0, 1.0])[:, None]
    file.write_text(json.dumps(replace(cameras, intrinsics=pixels).to_dict()))
    with pytest.raises(InputError, match=r"cameras.json: .*pixels"):
        load_backend(model_folder, rig=file, layout="2x2")


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"rig": "wonder3d"}, "not tiled as Zero123.* such as --layout 1x6"),
        ({"rig": "v1.3"}, "unknown: give one of v1.1, v1.2"),
        (
            {"layout": "2x2"},
            r"4 views in a layout of 2x2, and there are 6 cameras \(v1.2\): .* mvdream or FILE.json",
        ),
        ({"layout": "7x9", "rig": "era3d"}, "63 views .* 6 cameras .* --rig FILE.json"),
        ({"layout": "1x1"}, "two views or more"),
        ({"layout": "65x1"}, "at most 64"),
        ({"layout": "2by3"}, "cannot be '2by3'; it must be rows x columns"),
        ({"layout": ""}, "layout=. cannot be .."),
    ],
)
def test_what_cannot_be_chosen_is_refused(choice, words, model_folder):
    with pytest.raises(InputError, match=words):
        load_backend(model_folder, **choice)


@pytest.mark.parametrize("layout", ["3", [3], [3, 2, 1], [0, 2], "1x1", [2.5, 2], {"rows": 3}, [True, 2]])
def test_a_folder_with_no_layout(layout, model_folder, tmp_path):
    folder = copy(model_folder, tmp_path / "m", layout=layout)
    with pytest.raises(InputError, match=r"model_index.json: .*layout"):
        load_backend(folder)
    with pytest.raises(InputError, match=r"model_index.json: .*layout"):
        load_architecture(folder)


@pytest.mark.parametrize("choice", [{"rig": "v1.1"}, {"layout": "2x3"}])
def test_a_single_view_has_no_rig(choice, stable_diffusion_folder):
    with pytest.raises(InputError, match="single view, which has no cameras or layout"):
        load_backend(stable_diffusion_folder, **choice)
    with pytest.raises(InputError, match="single view, which has no layout"):
        inspect_model("stable-diffusion-1.5", layout="2x2")


def test_every_command_remembers_them(model_folder, chairs, tmp_path, command, capsys, few_denoising_steps):
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
    assert command("detect", run, pictures / "0.png", "--out", tmp_path / "own", "--noises", 1) == 0
    written = ko.Cameras.from_dict(json.loads((tmp_path / "own" / "keypoints.json").read_text())["cameras"])
    torch.testing.assert_close(written.intrinsics, zero123plus_cameras("v1.1").intrinsics)
    four = tmp_path / "four.json"
    four.write_text(json.dumps(rig("mvdream").cameras.to_dict()))
    cache = ["cache", pictures, "--model", model_folder, "--out", tmp_path / "cache", "--noises", 1]
    assert command(*cache, "--rig", four, "--layout", "2x2") == 0
    assert read_index(tmp_path / "cache").cameras_of == str(four)
    assert command(*cache) == 2  # another cache
    assert "cameras_of" in capsys.readouterr().err
    cached = ["discover", "--cache", tmp_path / "cache", "--out", tmp_path / "cached", *few[:-2]]
    assert command(*cached, "--cameras-of", "v1.1", "--layout", "2x2") == 2
    assert "--rig and --layout cannot be chosen any more" in capsys.readouterr().err
    assert command(*cached) == 0
    info = Tokens.load(tmp_path / "cached" / "tokens.safetensors").info
    assert (info.cameras_of, info.layout) == (str(four), "2x2")
    assert len(info.cameras_mark) == 16
    assert (
        command(
            "detect",
            tmp_path / "cached",
            pictures / "0.png",
            "--out",
            tmp_path / "4",
            "--noises",
            1,
            "--rig",
            "mvdream",
        )
        == 0
    )
    written = json.loads((tmp_path / "4" / "keypoints.json").read_text())["cameras"]
    torch.testing.assert_close(ko.Cameras.from_dict(written).intrinsics, rig("mvdream").cameras.intrinsics)
    with pytest.raises(InputError, match="layout of 2x2, not 1x4: load the model with layout='2x2'"):
        ko.KeypointDetector(
            load_backend(model_folder, rig=four, layout="1x4"), Tokens.load(tmp_path / "cached" / "tokens.safetensors")
        )
    # The file is another one now: nobody is given its cameras unless they ask for them.
    four.write_text(json.dumps(ko.orbit_cameras([0.0, 90.0, 180.0, 270.0], 10.0, 2.0).to_dict()))
    detect = ["detect", tmp_path / "cached", pictures / "0.png", "--noises", 1, "--out"]
    train = ["train", chairs, "--model", model_folder, "--tokens", tmp_path / "cached", "--out", tmp_path / "trained"]
    assert command(*detect, tmp_path / "gone") == 2
    assert f"with other cameras than are in {four} now" in capsys.readouterr().err
    assert command(*detect, tmp_path / "asked", "--rig", four) == 0
    four.unlink()
    for words in ([*detect, tmp_path / "gone"], [*train, "--cpu"]):
        assert command(*words) == 2
        assert "these tokens were discovered with the cameras in" in (said := capsys.readouterr().err)
        assert "--rig FILE.json" in said
    assert not (tmp_path / "gone").exists()
