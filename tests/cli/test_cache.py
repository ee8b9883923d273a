"""``keyorbit cache`` and ``keyorbit discover --cache``: what they write, and what they refuse in one sentence."""

import json
import shutil

import pytest

from helpers.command_line import call
from keyorbit.diffusion.tokens import Tokens


@pytest.fixture
def same(few_planted):
    return ["--tokens", 3, "--candidates", 5, "--steps", 3, "--batch", 2, "--config", few_planted]


@pytest.fixture(scope="module")
def world(tmp_path_factory, model_folder):
    """A dataset and a finished cache of it."""
    root = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, "dataset", "make", root / "data", "--objects", 3, "--size", 16) == 0
        words = ["cache", root / "data", "--model", model_folder, "--out", root / "cache", "--warps", 1]
        assert call(patch, *words) == 0
    return root


def test_a_run_from_a_cache_is_the_run_from_the_data(world, same, tmp_path, monkeypatch, model_folder):
    words = ["discover", world / "data", "--model", model_folder, "--warps", 1, "--out", tmp_path / "memory", *same]
    assert call(monkeypatch, *words) == 0
    assert call(monkeypatch, "discover", "--cache", world / "cache", "--out", tmp_path / "disk", *same) == 0
    memory, disk = ((tmp_path / name / "tokens.safetensors").read_bytes() for name in ("memory", "disk"))
    assert memory == disk
    about = json.loads((tmp_path / "disk" / "run.json").read_text())
    assert about["objects"] == 3
    assert about["model"] == str(model_folder)
    thing = sorted((world / "data").iterdir())[0]
    assert call(monkeypatch, "detect", tmp_path / "disk", thing, "--out", tmp_path / "found") == 0


def test_the_size_is_said_before_and_a_second_call_has_nothing_to_do(world, monkeypatch, capsys, model_folder):
    before = {path: path.stat().st_mtime_ns for path in (world / "cache").glob("shard*")}
    words = ["cache", world / "data", "--model", model_folder, "--out", world / "cache", "--warps", 1]
    assert call(monkeypatch, *words) == 0
    assert "MB for 3 objects in 2 versions" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (world / "cache").glob("shard*")} == before


def test_several_timesteps_go_into_the_tokens(world, same, tmp_path, monkeypatch, model_folder):
    words = ["discover", world / "data", "--model", model_folder, "--timestep", "100,300", "--noises", 2, "--warps", 0]
    assert call(monkeypatch, *words, "--out", tmp_path / "run", *same) == 0
    assert Tokens.load(tmp_path / "run" / "tokens.safetensors").info.timestep == (100, 300)
    thing = sorted((world / "data").iterdir())[0]
    words = ["detect", tmp_path / "run", thing, "--out", tmp_path / "found", "--warps", 2, "--peak", "argmax"]
    assert call(monkeypatch, *words) == 0


def test_bad_uses_get_one_sentence(world, tmp_path, monkeypatch, capsys, model_folder):
    cache, out = world / "cache", tmp_path / "out"
    other = shutil.copytree(model_folder, tmp_path / "other")
    path = next((other / "unet").glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    build = ["cache", world / "data", "--model", model_folder, "--out", out]
    cases = [
        (["discover", "--out", out], "DATA or --cache"),
        (["discover", world / "data", "--cache", cache, "--out", out], "DATA or --cache"),
        (["discover", "--cache", world / "data", "--out", out], "no query cache"),
        (["discover", "--cache", cache, "--out", out, "--warps", 3], "--warps"),
        (["discover", "--cache", cache, "--out", out, "--mode", "joint"], "isolated"),
        (["discover", "--cache", cache, "--out", out, "--model", other], "was built with"),
        ([*build, "--store", "int8"], "int8"),
        ([*build, "--timestep", "100,1000"], "999"),
        ([*build, "--noises", "0"], "--noises"),
        (["cache", world / "data", "--model", model_folder, "--out", cache, "--warps", 0], "another cache"),
    ]
    for words, named in cases:
        assert call(monkeypatch, *words) == 2, words
        said = capsys.readouterr().err.strip().splitlines()
        assert said[-1].startswith("keyorbit: "), said
        assert named in said[-1], said
        assert not out.exists(), words
