"""Every command that has a `--device` runs with it, and writes what it writes on the CPU."""

import json
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from helpers import layouts
from helpers.colmap import write_model
from helpers.command_line import call
from keyorbit.cli.main import new_app
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.inspection.cost import measure
from keyorbit.diffusion.inspection.drift import measure_drift
from keyorbit.diffusion.inspection.variants import CAPTURES
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.marks_config import MarkConfig
from keyorbit.objects.dataset import load_dataset, load_object
from keyorbit.objects.marks import Mark, write_marks
from keyorbit.objects.pictures import to_uint8
from other_device.common import DEVICE

pytestmark = pytest.mark.filterwarnings("error:.*appears to be a view operator")

THERE = ("--device", DEVICE)


def near(found, here, tolerance=1e-3):
    """Whether two JSON files hold the same but for rounding."""
    if isinstance(here, dict):
        return found.keys() == here.keys() and all(near(found[key], here[key], tolerance) for key in here)
    if isinstance(here, list):
        return len(found) == len(here) and all(near(a, b, tolerance) for a, b in zip(found, here, strict=True))
    if isinstance(here, float):
        return found == pytest.approx(here, abs=tolerance, rel=tolerance)
    return found == here


@pytest.fixture(scope="module")
def place(tmp_path_factory, model_folder, stable_diffusion_folder, chairs):
    """Where the commands read and write, and a call of one."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "few.toml").write_text("planting = 2\nexemplars = 1")
    (folder / "photographs").mkdir()
    things = sorted(path for path in chairs.iterdir() if path.is_dir())
    chair = load_object(things[0])
    names = [f"view_{i}.png" for i in range(6)]
    for name, view in zip(names, chair.views, strict=True):
        Image.fromarray(to_uint8(view)).save(folder / "photographs" / name)
    (folder / "cameras.json").write_text(json.dumps(chair.cameras.to_dict()))
    write_model(folder / "colmap", chair.cameras, 16, 16, names)
    (folder / "pictures").mkdir()
    for number, thing in enumerate(things[:2]):
        shutil.copy(thing / "cond.png", folder / "pictures" / f"{number}.png")

    def run(*words, on=THERE):
        kind = () if words[0] == "train" else ("--dtype", "float32")
        with pytest.MonkeyPatch.context() as patch:
            assert call(patch, *words, *on, *kind) == 0

    return SimpleNamespace(folder=folder, model=model_folder, single=stable_diffusion_folder, chairs=chairs, run=run)


@pytest.fixture(scope="module")
def few(place):
    return "--tokens", 2, "--candidates", 3, "--steps", 2, "--batch", 2, "--config", place.folder / "few.toml"


@pytest.fixture(scope="module")
def discovered(place, few):
    """A run that was made on the device."""
    place.run("discover", place.chairs, "--model", place.model, "--out", place.folder / "run", *few, "--noises", 1)
    return place.folder / "run"


def same_tokens(one, other):
    found, here = (Tokens.load(run / "tokens.safetensors").embedding.tolist() for run in (one, other))
    assert near(found, here)


def discover(place, few, discovered, tmp_path, monkeypatch):
    words = ["discover", place.chairs, "--model", place.model, "--noises", 1, *few]
    place.run(*words, "--out", tmp_path / "here", on=("--device", "cpu"))
    same_tokens(discovered, tmp_path / "here")
    place.run(*words, "--out", discovered, "--resume")
    same_tokens(discovered, tmp_path / "here")
    more = ["--method", "consistency", "--mode", "joint", "--maps", "attention", "--steps", 1]
    place.run(*words, *more, "--out", tmp_path / "joint")
    place.run("discover", place.folder / "pictures", "--model", place.single, *few, "--out", tmp_path / "single")
    four = ["--layout", "2x2", "--rig", "mvdream", "--noises", 1]
    place.run("discover", place.folder / "pictures", "--model", place.model, *few, *four, "--out", tmp_path / "four")


def cache(place, few, discovered, tmp_path, monkeypatch):
    place.run("cache", place.chairs, "--model", place.model, "--out", tmp_path / "cache", "--noises", 1)
    words = ["discover", "--cache", tmp_path / "cache", "--out", tmp_path / "run", *few]
    place.run(*words)
    same_tokens(tmp_path / "run", discovered)
    place.run(*words, "--resume")
    same_tokens(tmp_path / "run", discovered)
    small = ["--out", tmp_path / "small", "--store", "bfloat16"]
    place.run("cache", place.chairs, "--model", place.model, *small)
    place.run("discover", "--cache", tmp_path / "small", "--out", tmp_path / "other", *few)


def detect(place, few, discovered, tmp_path, monkeypatch):
    photographs = ["--views", place.folder / "photographs", "--cameras"]
    picture = place.folder / "pictures" / "0.png"
    given = {
        "objects": [place.chairs, "--skeleton", "auto"],
        "picture": [picture],
        "json": [*photographs, place.folder / "cameras.json"],
        "colmap": [picture, *photographs, place.folder / "colmap", "--peak", "argmax"],
    }
    # All formats and the figure, which takes longer than the rest, are in `device_detection.py`.
    monkeypatch.setattr("keyorbit.output.write.draw_keypoints", lambda *pictures, **more: None)
    monkeypatch.setattr("keyorbit.output.write.save_figure", lambda figure, path: None)
    for name, words in given.items():
        for where in (DEVICE, "cpu"):
            words = [*words, "--format", "json", "--noises", 1]
            place.run("detect", discovered, *words, "--out", tmp_path / where / name, on=("--device", where))
        there, here = (sorted((tmp_path / where / name).rglob("keypoints.json")) for where in (DEVICE, "cpu"))
        assert len(there) == len(here) == (3 if name == "objects" else 1)
        for one, other in zip(there, here, strict=True):
            assert near(json.loads(one.read_text()), json.loads(other.read_text()))


def generate(place, few, discovered, tmp_path, monkeypatch):
    for where in (DEVICE, "cpu"):
        words = ["generate", place.folder / "pictures", "--model", place.model, "--steps", 2, "--num", 2]
        place.run(*words, "--out", tmp_path / where, on=("--device", where))
    there, here = (sorted((tmp_path / where).rglob("grid.png")) for where in (DEVICE, "cpu"))
    assert len(there) == len(here) == 2 * len(list((place.folder / "pictures").iterdir()))
    for one, other in zip(there, here, strict=True):
        assert np.abs(np.asarray(Image.open(one), int) - np.asarray(Image.open(other), int)).max() <= 1


def evaluate(place, few, discovered, tmp_path, monkeypatch):
    more = ["--fit", place.chairs, "--moved", place.chairs, "--limit", 1]
    for where in (DEVICE, "cpu"):
        scores = tmp_path / f"{where}.json"
        place.run("evaluate", discovered, place.chairs, *more, "--json", scores, on=("--device", where))
    there, here = (json.loads((tmp_path / f"{where}.json").read_text()) for where in (DEVICE, "cpu"))
    assert there["discovered"]["landmark_3d"] > 0
    assert near(there, here)
    place.run("evaluate", discovered, place.chairs, "--generate", "--limit", 1)


def name(place, few, discovered, tmp_path, monkeypatch):
    (tmp_path / "words.txt").write_text("seat\nback\nfront left leg\n")
    told = []
    for where in (DEVICE, "cpu"):
        shutil.copytree(discovered, tmp_path / where)
        words = ["--objects", place.chairs, "--words", tmp_path / "words.txt", "--json", tmp_path / f"{where}.json"]
        place.run("name", tmp_path / where, *words, on=("--device", where))
        told.append(json.loads((tmp_path / f"{where}.json").read_text()))
    assert near(*told)


def mark(place, few, discovered, tmp_path, monkeypatch):
    """One mark of each kind; with helpers of its own, and with those of a run."""
    monkeypatch.setattr("keyorbit.cli.mark.MarkConfig", partial(MarkConfig, planting=2, noises=1))
    first, *_ = load_dataset(place.chairs)
    truth = first.truth
    marks = [
        Mark(truth.names[0], first.name, xyz=tuple(truth.keypoints_3d[0].tolist())),
        Mark(truth.names[1], first.name, 0, tuple(truth.keypoints_2d[1, 1].tolist())),
    ]
    write_marks(tmp_path / "points.json", marks)
    words = ["mark", place.chairs, "--points", tmp_path / "points.json", "--steps", 1]
    for name, more in (("alone", ["--model", place.model]), ("helped", ["--run", discovered, "--keep"])):
        for where in (DEVICE, "cpu"):
            place.run(*words, *more, "--out", tmp_path / where / name, on=("--device", where))
        there, here = (Tokens.load(tmp_path / where / name / "tokens.safetensors") for where in (DEVICE, "cpu"))
        torch.testing.assert_close(there.embedding, here.embedding, atol=0.05, rtol=0.05)
        assert np.allclose(there.info.places, here.info.places, atol=1e-4)


def report(place, few, discovered, tmp_path, monkeypatch):
    place.run("report", discovered, place.chairs, "--objects", 1, "--out", tmp_path / "report.html")
    assert "<section" in (tmp_path / "report.html").read_text()


def protocol(place, few, discovered, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    layouts.write_taichi(tmp_path / "data")
    numbers = {"keypoints": 2, "tokens": 3, "steps": 1, "batch": 1, "pictures": 2, "fit": 2, "test": 1}
    numbers |= {"augmentations": 1, "map-size": 16}
    words = ["protocol", "stablekeypoints", "--dataset", "taichi", "--data", tmp_path / "data", "--model", place.single]
    words += [word for name, number in numbers.items() for word in (f"--{name}", number)]
    for where in (DEVICE, "cpu"):
        place.run(*words, "--out", tmp_path / where, on=("--device", where))
    there, here = (json.loads((tmp_path / where / "protocol.json").read_text())["value"] for where in (DEVICE, "cpu"))
    assert there == pytest.approx(here, rel=1e-3)


def inspect(place, few, discovered, tmp_path, monkeypatch):
    cost, drift = "keyorbit.diffusion.inspection.cost.measure", "keyorbit.diffusion.inspection.drift.measure_drift"
    monkeypatch.setattr(cost, partial(measure, variants=CAPTURES[:2], repeats=1))
    monkeypatch.setattr(drift, partial(measure_drift, counts=(1,), norms=(1.0,), steps=1))
    file = tmp_path / "report.json"
    place.run("inspect", "--model", place.model, "--measure", "--drift", "--json", file)
    data = json.loads(file.read_text())
    assert len(data["measured"]) == 2
    assert [entry["isolated_equal"] for entry in data["drift"]] == [True]


def app(place, few, discovered, tmp_path, monkeypatch):
    """Up to where it serves; what the page then calls is in `test_the_studio_of_the_app`."""
    opened = []

    def launch(studio, host, port):
        opened.append(studio)
        raise KeyboardInterrupt  # as a user ends it

    monkeypatch.setattr("keyorbit.app.interface.launch", launch)
    monkeypatch.setattr("keyorbit.app.interface.gradio", lambda: None)
    place.run("app", discovered)
    assert opened[0].backend.device.type == DEVICE


def annotate(place, few, discovered, tmp_path, monkeypatch):
    """Objects are read, a mark is fitted as the page has it done, and what is annotated is written."""
    from keyorbit.objects.marks import Annotations, Mark, Review, write_annotations

    file = tmp_path / "marks.json"
    name = sorted(path.name for path in place.chairs.iterdir())[0]
    write_annotations(file, Annotations(reviewed=(Review(name, (Mark("keypoint_00", xyz=(0.0, 0.0, 0.0)),)),)))
    place.run("annotate", place.chairs, "--run", discovered, "--out", file, "--export", tmp_path / "out")
    assert (tmp_path / "out" / "cvat.xml").is_file()


COMMANDS = {
    "discover": discover,
    "cache": cache,
    "detect": detect,
    "generate": generate,
    "evaluate": evaluate,
    "name": name,
    "mark": mark,
    "report": report,
    "protocol stablekeypoints": protocol,
    "inspect": inspect,
    "app": app,
    "annotate": annotate,
}


def commands(group, before=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*before, name))
        else:
            yield " ".join((*before, name)), command


def test_no_command_is_left_out():
    """`train` has no such option, since Accelerate chooses its device: `device_discovery.py` trains there."""
    every = commands(typer.main.get_command(new_app()))
    assert {name for name, c in every if any("--device" in p.opts for p in c.params)} == COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command(name, place, few, discovered, tmp_path, monkeypatch, few_denoising_steps):
    COMMANDS[name](place, few, discovered, tmp_path, monkeypatch)


def test_the_type_is_chosen_by_measurement(model_folder, chairs, tmp_path, command, capsys):
    """What is printed is what is loaded; float32's maps come near those of a model that was loaded in that type."""
    few = ["--tokens", 2, "--candidates", 2, "--steps", 1, "--noises", 1, "--method", "consistency"]
    words = ["discover", chairs, "--model", model_folder, "--out", tmp_path / "run", *few, "--device", DEVICE]
    assert command(*words) == 0
    assert f"model on {DEVICE}:0 in float16: maps within 0." in capsys.readouterr().err
    chosen, asked = (load_backend(model_folder, device=DEVICE, dtype=dtype) for dtype in ("auto", "float16"))
    assert chosen.precision.dtype == "float16"
    assert 0 < chosen.precision.mean < 0.01
    assert {p.dtype for p in chosen.unet.parameters()} == {torch.float16}
    for ours, theirs in zip(chosen.unet.parameters(), asked.unet.parameters(), strict=True):
        assert torch.equal(ours.cpu(), theirs.cpu())
