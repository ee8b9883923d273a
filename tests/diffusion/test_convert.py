"""Models whose weights are pickles become models without, bit for bit; what could run code is not opened."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.hub import served, use
from helpers.models import save_controlnet
from keyorbit.diffusion.backends import pickles
from keyorbit.diffusion.backends.convert import convert
from keyorbit.diffusion.backends.fingerprint import fingerprint
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.backends.pickles import convert_file
from keyorbit.errors import InputError


def pickled(folder):
    """Its weights as pickles, one part in two shards with a table of contents, as the published ones are."""
    for path in sorted(folder.rglob("*.safetensors")):
        tensors, stem = load_file(path), "pytorch_model" if path.name == "model.safetensors" else path.stem
        names = sorted(tensors)
        if path.parent.name == "vision_encoder":
            files = [f"{stem}-0000{i}-of-00002.bin" for i in (1, 2)]
            place = {name: files[i % 2] for i, name in enumerate(names)}
            table = {"metadata": {"total_size": 1}, "weight_map": place}
            (path.parent / f"{stem}.bin.index.json").write_text(json.dumps(table))
            for file in files:
                torch.save({name: tensors[name] for name in names if place[name] == file}, path.parent / file)
        else:
            torch.save(tensors, path.parent / f"{stem}.bin")
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def folder(model_folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("pickled") / "model"
    shutil.copytree(model_folder, place)
    (place / "safety_checker").mkdir()
    (place / "safety_checker" / "pytorch_model.bin").write_bytes(b"never read")
    return pickled(place)


def test_a_converted_model_is_the_same_one(folder, model_folder, tmp_path, command, capsys):
    out, words = tmp_path / "new", ["generate", tmp_path / "a.png", "--steps", 1, "--model"]
    from PIL import Image

    picture = Image.new("RGB", (16, 16), "red")
    picture.paste("white", (4, 4, 12, 12))
    picture.save(tmp_path / "a.png")
    assert command(*words, folder, "--out", tmp_path / "none") == 2
    assert f"keyorbit convert {folder} NEW" in capsys.readouterr().err
    assert command("convert", folder, out) == 0
    assert "unet/diffusion_pytorch_model.bin" in capsys.readouterr().out
    for path in sorted(out.rglob("*.safetensors")):
        assert path.stat().st_mode & 0o777 == (out / "model_index.json").stat().st_mode & 0o777
    weights = {path.name for path in (out / "vision_encoder").glob("*.safetensors*")}
    shards = {f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    assert weights == shards | {"model.safetensors.index.json"}
    assert not list(out.rglob("*.bin*"))
    assert not (out / "safety_checker").exists()
    assert command(*words, out, "--out", tmp_path / "one") == 0
    assert command(*words, model_folder, "--out", tmp_path / "other") == 0
    assert (tmp_path / "one/a/grid.png").read_bytes() == (tmp_path / "other/a/grid.png").read_bytes()
    assert command("convert", folder, out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert command("convert", out, tmp_path / "again") == 0
    assert "there were no pickles" in capsys.readouterr().out


def test_a_controlnet_and_a_single_file(model_folder, tmp_path):
    place = save_controlnet(model_folder, tmp_path / "controlnet")
    before = load_file(place / "diffusion_pytorch_model.safetensors")
    assert convert(str(pickled(place)), tmp_path / "new") == ["diffusion_pytorch_model.bin"]
    convert(str(place / "diffusion_pytorch_model.bin"), tmp_path / "one.safetensors")
    for path in (tmp_path / "new" / "diffusion_pytorch_model.safetensors", tmp_path / "one.safetensors"):
        found = load_file(path)
        assert found.keys() == before.keys()
        assert all(torch.equal(found[name], value) for name, value in before.items())
    with pytest.raises(InputError, match="is there already"):
        convert(str(place / "diffusion_pytorch_model.bin"), tmp_path / "one.safetensors")
    with pytest.raises(InputError, match=r"must be one too, ending in .safetensors"):
        convert(str(place / "diffusion_pytorch_model.bin"), tmp_path / "one")
    convert(str(place / "diffusion_pytorch_model.bin"), tmp_path / "a" / "b" / "one.safetensors")
    (tmp_path / "bad.bin").write_bytes(b"no pickle")
    with pytest.raises(InputError, match=r"bad\.bin is damaged"):
        convert(str(tmp_path / "bad.bin"), tmp_path / "c" / "d" / "one.safetensors")
    assert not (tmp_path / "c").exists()


def test_what_cannot_be_converted_leaves_nothing(folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "vision_encoder" / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(InputError, match=r"vision_encoder holds no weights, or not all of their shards"):
        convert(str(broken), tmp_path / "new")
    shutil.rmtree(broken / "vae")
    with pytest.raises(InputError, match="lacks its vae"):
        convert(str(broken), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_of_a_repository_no_more_is_fetched_than_is_converted(folder, model_folder, tmp_path, monkeypatch):
    more = {"unet/diffusion_pytorch_model.fp16.bin": folder / "model_index.json"}
    with served(folder, more=more) as there:
        use(monkeypatch, there.url, tmp_path / "cache")
        with pytest.raises(InputError, match=r"the pickle \w+.bin, .*'keyorbit convert o/x FOLDER'"):
            load_backend("o/x")
        there.sent.clear()
        convert("o/x", tmp_path / "new")
        sent = set(there.sent)
    assert "unet/diffusion_pytorch_model.bin" in sent
    assert not {name for name in sent if "safety_checker" in name or "fp16" in name}
    assert load_backend(tmp_path / "new").fingerprint == fingerprint(model_folder)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_pointer_to_a_file_that_was_not_cloned(kind, model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "model")
    file = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    words = "it is a pointer of Git LFS, not the file itself: .*'git lfs pull'"
    if kind == "safetensors":
        with pytest.raises(InputError, match=words):
            load_backend(tmp_path / "model")
    file.rename(file.with_suffix(f".{kind}"))
    with pytest.raises(InputError, match=words):
        convert(str(tmp_path / "model"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_pickle_that_the_libraries_would_not_find(model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "model")
    for part, known in (("unet", "diffusion_pytorch_model"), ("vision_encoder", "pytorch_model")):
        (file,) = (tmp_path / "model" / part).glob("*.safetensors")
        torch.save(load_file(file), file.with_name("last.ckpt"))
        file.unlink()
        with pytest.raises(
            InputError, match=f"{part} holds no weights.*: last.ckpt is taken if its name is {known}.bin"
        ):
            convert(str(tmp_path / "model"), tmp_path / "new")
        file.with_name("last.ckpt").rename(file.with_name(f"{known}.bin"))
    assert len(convert(str(tmp_path / "model"), tmp_path / "new")) == 2


class Hostile:
    """What a pickle may do when it is opened in the usual way."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


X = torch.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_a_hostile_pickle_runs_nothing(zipped, nested, tmp_path):
    trap = Hostile(str(tmp_path / "trap"))
    torch.save(
        {"a": X, "b": {"c": trap} if nested else trap}, tmp_path / "a.bin", _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(InputError, match=r"was not opened, since that could run code: it holds posix.mkdir"):
        convert_file(tmp_path / "a.bin", tmp_path / "a.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    torch.load(tmp_path / "a.bin", weights_only=False)
    assert (tmp_path / "trap").is_dir()  # it would have


def test_torch_whose_safe_reader_was_not_safe_opens_none(tmp_path, monkeypatch):
    torch.save({"a": X}, tmp_path / "a.bin")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cu121")
    with pytest.raises(InputError, match=r"torch 2.6 and later only, and this is 2.5.1"):
        convert_file(tmp_path / "a.bin", tmp_path / "a.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_all_forms_are_kept(zipped, tmp_path):
    given = {
        "whole": X,
        "tied": X,
        "part": X[1:],
        "turned": X.T,
        "spread": torch.ones(1).expand(3, 3),
        "nan": torch.tensor([float("nan"), float("inf")]),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(True),
        "half": X.bfloat16(),
        "complex": torch.tensor([1 + 2j]).conj(),
        "parameter": torch.nn.Parameter(X.clone()),
        "position_ids": torch.arange(3),
    }
    torch.save({"state_dict": given, "epoch": 3}, tmp_path / "a.ckpt", _use_new_zipfile_serialization=zipped)
    assert convert_file(tmp_path / "a.ckpt", tmp_path / "a.safetensors") == len(given)
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == given.keys()
    for name, value in given.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name].nan_to_num(7), value.detach().nan_to_num(7)), name


WRONG = {
    "list": [X],
    "names": {1: X},
    "words": {"a": "b"},
    "nothing": {},
    "sparse": {"a": X.to_sparse()},
    "without numbers": {"a": X.to("meta")},
    "reserved": {"__metadata__": X},
}


@pytest.mark.parametrize("name", WRONG)
def test_other_contents_are_named(name, tmp_path):
    torch.save(WRONG[name], tmp_path / "a.bin")
    with pytest.raises(
        InputError, match=r"a.bin (holds no weights by name|is no state dict|cannot be stored)|cannot write"
    ):
        convert_file(tmp_path / "a.bin", tmp_path / "a.safetensors")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", None])
def test_damaged_pickles(content, tmp_path):
    torch.save({"a": X}, tmp_path / "a.bin")
    whole = (tmp_path / "a.bin").read_bytes()
    (tmp_path / "a.bin").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(InputError, match=r"a.bin is damaged, or not what torch.save writes"):
        convert_file(tmp_path / "a.bin", tmp_path / "a.safetensors")


def test_a_file_that_is_no_pickle_is_told(tmp_path):
    for content, words in (
        (b"version https://git-lfs.github.com/spec/v1\noid", "cannot be converted: it is a pointer of Git LFS"),
        (b"<!DOCTYPE html>", "cannot be converted: it is a web page"),
    ):
        (tmp_path / "a.bin").write_bytes(content)
        with pytest.raises(InputError, match=words):
            convert_file(tmp_path / "a.bin", tmp_path / "a.safetensors")
    save_file({"a": X.clone()}, tmp_path / "a.bin")
    with pytest.raises(InputError, match=r"no pickle, but safetensors already: give it a name that ends in"):
        convert_file(tmp_path / "a.bin", tmp_path / "a.safetensors")


def test_a_file_may_be_written_into_a_new_folder(tmp_path):
    torch.save({"a": X}, tmp_path / "a.bin")
    convert(str(tmp_path / "a.bin"), tmp_path / "new" / "a.safetensors")
    assert torch.equal(load_file(tmp_path / "new" / "a.safetensors")["a"], X)


def test_a_file_that_was_written_wrongly_is_noticed(tmp_path, monkeypatch):
    torch.save({"a": X}, tmp_path / "a.bin")
    save = pickles.save_file
    monkeypatch.setattr(pickles, "save_file", lambda tensors, *more: save({"a": tensors["a"] + 1}, *more))
    with pytest.raises(InputError, match="was written wrongly: a differs"):
        convert_file(tmp_path / "a.bin", tmp_path / "a.safetensors")
