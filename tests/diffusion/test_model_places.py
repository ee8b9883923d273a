"""Runs travel: tokens and caches find the model that lies beside them, and say which one it was where it is gone."""

import os
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.hostile import answer
from keyorbit.diffusion.backends.loading import load_backend, load_backend_of
from keyorbit.diffusion.model_places import found_from, seen_from
from keyorbit.diffusion.tokens import Tokens
from keyorbit.diffusion.tokens_info import TokensInfo
from keyorbit.discovery.cache.build import build_cache
from keyorbit.discovery.cache.disk import open_cache
from keyorbit.discovery.cache.index import plan_cache
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import discover_cached
from keyorbit.discovery.initial import untrained
from keyorbit.errors import InputError
from keyorbit.storage.checkpoint import load_checkpoint, save_checkpoint

FEW = DiscoverConfig(num_tokens=2, num_candidates=2, method="consistency", steps=1, batch=1)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A project with a model and a run, which is the working directory."""
    (tmp_path / "project" / "models" / "zero").mkdir(parents=True)
    (tmp_path / "project" / "run" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.mark.parametrize(
    ("model", "seen"),
    [
        ("tiny", ""),
        ("sudo-ai/zero123plus-v1.2", ""),
        ("models/zero", "../models/zero"),
        ("./models/zero/", "../models/zero"),
        ("{here}/models/zero", "../models/zero"),
        ("{here}/run/model", "model"),
        ("/usr/bin", "/usr/bin"),
    ],
)
def test_a_folder_is_named_as_seen_from_the_file(here, model, seen):
    assert seen_from(here / "run" / "tokens.safetensors", model.format(here=here)) == seen


@pytest.mark.parametrize("model", ["models/zero", "./models/zero", "{here}/models/zero", "{here}/run/model"])
def test_what_is_moved_together_is_found(here, model, monkeypatch):
    given = model.format(here=here)
    Tokens(torch.zeros(2, 4), TokensInfo(given)).save(here / "run" / "tokens.safetensors")
    assert Tokens.load("run/tokens.safetensors").info.model == given
    moved = here.parent / "moved"
    here.rename(moved)
    monkeypatch.chdir(here.parent)
    found = Tokens.load("moved/run/tokens.safetensors").info.model
    assert os.path.samefile(found, moved / given.replace(str(here), "."))
    shutil.rmtree(found)
    lost = Tokens.load("moved/run/tokens.safetensors")
    # Not models/zero, which might be on the Hub.
    with pytest.raises(InputError, match=rf"is not at {lost.info.model}: give the folder .* --model FOLDER"):
        load_backend_of(lost)
    lost.save("again.safetensors")
    assert Tokens.load("again.safetensors").info.model == lost.info.model


def test_tokens_of_earlier_versions_find_the_model_of_their_run(here):
    path = here / "run" / "tokens.safetensors"
    places = {"/gone/run/model": here / "run" / "model", "models/zero": "models/zero", "owner/name": "owner/name"}
    for model, found in places.items():
        header = {"format": "keyorbit-tokens-1", "info": {"model": model}}
        save_checkpoint(path, {"embedding": torch.zeros(2, 4)}, header)
        assert Tokens.load(path).info.model == str(found)


@pytest.mark.parametrize("model", ["C:\\models\\zero", "..\\models\\zero", "D:/models/zero", "\\\\server\\share\\zero"])
def test_tokens_that_were_found_on_windows(model, here):
    """The model may lie beside them; where it does not, its path is told, and no Hub is asked."""
    file = here / "run" / "tokens.safetensors"
    Tokens(torch.zeros(2, 4), TokensInfo(model, "mark")).save(file)
    with pytest.raises(InputError, match=r"the model of these tokens .fingerprint mark. is not at .*zero: give the"):
        load_backend_of(Tokens.load(file))
    (here / "models" / "zero").rename(here / "run" / "zero")
    assert Tokens.load(file).info.model == str(here / "run" / "zero")


def test_of_two_models_it_is_the_one_with_the_weights(here, model_folder, backend):
    other = str(here / "other" / "model")
    for place in (here / "run" / "model", other):
        shutil.copytree(model_folder, place, dirs_exist_ok=True)
    file = here / "run" / "tokens.safetensors"
    # As in the copy of a run: both are the model, and the copy's own comes first.
    assert found_from(file, other, "model", backend.fingerprint) == str(here / "run" / "model")
    (file,) = (here / "run" / "model" / "vae").glob("*.safetensors")
    save_file({name: x * 1.1 for name, x in load_file(file).items()}, file, {"format": "pt"})
    file = here / "run" / "tokens.safetensors"
    assert found_from(file, other, "model", backend.fingerprint) == other
    assert found_from(file, other, "model", "unknown") == str(here / "run" / "model")


def test_a_moved_run_on_the_command_line(model_folder, backend, chairs, tmp_path, monkeypatch):
    shutil.copytree(model_folder, tmp_path / "old" / "model")
    info = replace(untrained(backend, FEW).info, model=str(tmp_path / "old" / "model"))
    run = tmp_path / "old" / "run"
    Tokens(untrained(backend, FEW).embedding, info).half().save(run / "tokens.safetensors")
    moved = tmp_path / "new"
    (tmp_path / "old").rename(moved)
    picture = next(chairs.glob("*/cond.png"))
    words = ("detect", moved / "run", picture, "--device", "cpu", "--noises", 1)
    assert answer(*words, "--out", tmp_path / "found").status == 0
    (moved / "model").rename(moved / "renamed")
    gone = answer(*words, "--out", tmp_path / "none")
    assert gone.sentence
    assert f"tokens (fingerprint {backend.fingerprint}) is not at {moved / 'model'}: give" in gone.said
    (file,) = (moved / "renamed" / "vae").glob("*.safetensors")
    save_file({name: x * 1.1 for name, x in load_file(file).items()}, file, {"format": "pt"})
    other = answer(*words, "--model", moved / "renamed", "--out", tmp_path / "none")
    assert other.sentence
    assert "--force" in other.said
    assert not (tmp_path / "none").exists()
    assert answer(*words, "--model", moved / "renamed", "--out", tmp_path / "forced", "--force").status == 0


def test_a_cache_goes_on_with_a_renamed_model_and_travels(model_folder, objects, tmp_path):
    shutil.copytree(model_folder, tmp_path / "a" / "model")
    model = load_backend(tmp_path / "a" / "model", "cpu", "float32")
    model.fingerprint = model.older_fingerprint()  # as an earlier version began it
    cache = build_cache(model, objects[:1], plan_cache(model, objects[:1], FEW), tmp_path / "a" / "cache")
    identity = cache.index.identity
    (tmp_path / "a" / "model").rename(tmp_path / "a" / "renamed")
    model = load_backend(tmp_path / "a" / "renamed", "cpu", "float32")
    again = build_cache(model, objects[:1], plan_cache(model, objects[:1], FEW), tmp_path / "a" / "cache")
    assert again.index.identity == identity
    (tmp_path / "a").rename(tmp_path / "b")
    opened = open_cache(tmp_path / "b" / "cache", "cpu")
    assert opened.facts.name == str(tmp_path / "b" / "renamed")
    assert discover_cached(opened, FEW).info.model == opened.facts.name


def test_what_names_no_folder_is_written_as_ever(tmp_path):
    Tokens(torch.zeros(2, 4), TokensInfo("tiny")).save(tmp_path / "t.safetensors")
    assert load_checkpoint(tmp_path / "t.safetensors")[1].keys() == {"format", "info"}
