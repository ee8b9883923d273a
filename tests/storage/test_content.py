"""A file from outside is text, JSON or TOML, or one sentence that names it."""

import os

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from keyorbit.errors import InputError
from keyorbit.storage.content import json_in, json_of, stand_in, text_of, toml_of, why_no_tensors


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + '{"ö": 1}'.encode())
    assert json_of(tmp_path / "a.json") == {"ö": 1}


def test_numbers_and_depth_that_are_allowed():
    assert json_in("[" * 64 + "1e308" + "]" * 64, "here") is not None
    assert json_in("[1, 2.5, -0.0, null, true]", "here") == [1, 2.5, 0.0, None, True]


def test_other_programs_write_infinite_numbers():
    """As diffusers does in the configuration of a DPM-Solver."""
    assert json_in('{"a": -Infinity}', "here", infinite=True) == {"a": float("-inf")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "here cannot be read as JSON: Expecting value"),
        ("[" * 65 + "]" * 65, "nested more than 64 deep"),
        ("[" * 100_000 + "]" * 100_000, "nested more than 64 deep"),
        ('{"a":' * 100_000, "nested more than 64 deep"),
        ("1" * 5000, "here cannot be read as JSON: Exceeds the limit"),
        ('{"a": {"b": [0, NaN]}}', r"here: a\.b\[1\] cannot be nan; it must be a finite number"),
        ('{"a": -1e999}', "here: a cannot be -inf; it must be a finite number"),
    ],
)
def test_text_that_is_no_json(text, words):
    with pytest.raises(InputError, match=words):
        json_in(text, "here")


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    (tmp_path / "large").write_text("12345")
    os.mkfifo(tmp_path / "pipe")
    for name, words in {
        "none": "there is no file .*none",
        ".": "is a folder; give a file",
        "latin": "is no text in UTF-8: byte 3",
        "large": "has 5 bytes; such a file has at most 4",
        "pipe": "is no regular file",
        "n" * 300: "cannot be read: File name too long|there is no file",
        "a\0b": "cannot be read|there is no file",
        "large/inside": "there is no file",
    }.items():
        with pytest.raises(InputError, match=words):
            text_of(tmp_path / name, largest=4)


def test_what_lies_in_place_of_a_file(tmp_path):
    (tmp_path / "lfs").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n")
    (tmp_path / "page").write_text("\ufeff\n<!doctype HTML><html>", encoding="utf-8")
    (tmp_path / "file").write_text("{}")
    os.mkfifo(tmp_path / "pipe")
    assert "git lfs pull" in stand_in(tmp_path / "lfs")
    assert "a web page" in stand_in(tmp_path / "page")
    assert not any(stand_in(tmp_path / name) for name in ("file", "pipe", ".", "none"))
    with pytest.raises(InputError, match=r"page cannot be read: it is a web page"):
        json_of(tmp_path / "page")


def test_toml_is_checked_alike(tmp_path):
    path = tmp_path / "a.toml"
    for text, words in {
        "a = ": "cannot be read as TOML",
        "[t]\nrate = nan": r"a\.toml: t\.rate cannot be nan",
        "a = " + "[" * 70 + "]" * 70: "nested more than 64 deep",
        "a = " + "[" * 9999 + "]" * 9999: "nested more than 64 deep",
        "a = " + "1" * 5000: "cannot be read as TOML: Exceeds the limit",
    }.items():
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            toml_of(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda whole: b"", "it is empty"),
        (lambda whole: b"some text that is no tensor", "it is no safetensors file"),
        (lambda whole: b"PK\x03\x04" + bytes(100), "it is no safetensors file"),
        (lambda whole: b"<html>" + whole, "it is a web page"),
        (lambda whole: whole[:-1], "its length is not what its header says"),
        (lambda whole: whole + b"x", "its length is not what its header says"),
    ],
)
def test_why_a_file_has_no_tensors(change, words, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(change(save({"a": torch.zeros(4)})))
    with pytest.raises(SafetensorError) as raised:
        safe_open(path, "pt").__enter__()
    assert words in why_no_tensors(path, raised.value)
