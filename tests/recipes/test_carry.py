"""What travels arrives whole, or it is said what lacks; and what a machine lacks is said before a run."""

import importlib.util

import pytest

from keyorbit.errors import InputError
from tiny_model import carry
from tiny_model.carry import pack, unpack
from tiny_model.preflight import check, missing


@pytest.fixture
def packed(tmp_path):
    (tmp_path / "model" / "unet").mkdir(parents=True)
    (tmp_path / "model" / "unet" / "config.json").write_text("{}")
    (tmp_path / "data.safetensors").write_bytes(bytes(range(256)) * 10)
    parts = pack("data", [tmp_path / "data.safetensors", tmp_path / "model"], tmp_path / "parts", part_bytes=200)
    return tmp_path, parts


def test_files_and_folders_arrive_as_they_were(packed):
    folder, parts = packed
    assert len(parts) > 1
    assert all(path.stat().st_size <= 200 for path in parts)
    assert parts[0].name.endswith(f".1-of-{len(parts)}")
    assert "data.safetensors" in unpack(folder / "parts", folder / "out")
    assert (folder / "out" / "data.safetensors").read_bytes() == (folder / "data.safetensors").read_bytes()
    assert (folder / "out" / "model" / "unet" / "config.json").read_text() == "{}"
    (folder / "out" / "data.safetensors").write_bytes(b"further")  # a run that went on
    unpack(folder / "parts", folder / "out")
    assert (folder / "out" / "data.safetensors").read_bytes() == b"further"


def test_the_same_files_packed_again_replace_their_parts(packed):
    folder, parts = packed
    (folder / "data.safetensors").write_bytes(b"new")
    again = pack("data", [folder / "data.safetensors"], folder / "parts", part_bytes=200)
    assert sorted((folder / "parts").iterdir()) == sorted(again)
    assert not set(again) & set(parts)


def test_a_part_that_lacks_is_named(packed):
    folder, parts = packed
    parts[1].unlink()
    with pytest.raises(InputError, match=f"of the {len(parts)} parts of data, part 2 is missing"):
        unpack(folder / "parts", folder / "out")
    assert not (folder / "out").exists()


def test_a_damaged_part_is_told(packed):
    folder, parts = packed
    parts[0].write_bytes(b"x" + parts[0].read_bytes()[1:])
    with pytest.raises(InputError, match="a part of data is damaged"):
        unpack(folder / "parts", folder / "out")


def test_parts_of_two_archives_are_not_mixed(packed):
    folder, parts = packed
    parts[0].rename(parts[0].with_name(f"data-{'0' * 12}.1-of-2"))
    with pytest.raises(InputError, match="parts of two archives data"):
        unpack(folder / "parts", folder / "out")


@pytest.mark.parametrize(
    ("name", "file", "words"), [("data", "none", "nothing to pack"), ("My Data", "data.safetensors", "small letters")]
)
def test_what_cannot_be_packed_is_told(packed, name, file, words):
    folder, _ = packed
    with pytest.raises(InputError, match=words):
        pack(name, [folder / file], folder / "other")
    assert not (folder / "other").exists()


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_without_parts_is_told(tmp_path, there):
    if there:
        (tmp_path / "data-xyz.1-of-2").write_bytes(b"")
    with pytest.raises(InputError, match="holds no parts of an archive"):
        carry.archives(tmp_path if there else tmp_path / "none")


def test_what_a_machine_lacks_is_told_at_once(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    gone = {"diffusers", "embreex"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else real(name))
    files = ["data.safetensors", "places.safetensors"]
    (tmp_path / "data.safetensors").write_bytes(b"")
    found = missing(tmp_path, files, "cuda", tmp_path / "model", tmp_path / "meshes")
    assert found[0] == "the package diffusers is not installed"
    assert found[1] == "the package embreex is not installed, and places.safetensors has to be rendered"
    assert [line.split(":")[0] for line in found[2:]] == ["--device cuda", "--init", "--meshes"]
    (tmp_path / "places.safetensors").write_bytes(b"")
    gone.clear()
    assert missing(tmp_path, files, "cpu", None, None) == []
    with pytest.raises(InputError, match="--device is tpu; it must be auto, cpu or cuda"):
        check(tmp_path, files, "tpu", None, None)


def test_files_of_one_name_are_not_packed_over_each_other(packed):
    folder, _ = packed
    (folder / "more").mkdir()
    (folder / "more" / "data.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match=r"two files are named data\.safetensors"):
        pack("data", [folder / "data.safetensors", folder / "more" / "data.safetensors"], folder / "other")
    assert not (folder / "other").exists()
