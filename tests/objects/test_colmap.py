"""COLMAP's models: the binary format holds what the text holds, and files that are cut or lie are one sentence."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.colmap import write_binary, write_model
from helpers.wrong_cameras import RIG
from keyorbit.errors import InputError
from keyorbit.geometry.views import Layout
from keyorbit.objects.captures import load_capture
from keyorbit.objects.colmap import read_colmap

NAMES = [f"a view {i}.png" for i in range(6)]


@pytest.fixture
def model(tmp_path):
    write_binary(tmp_path / "model", RIG, 24, 24, NAMES)
    return tmp_path / "model"


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i, name in enumerate(NAMES):
        Image.fromarray(np.full((24, 24, 3), 40 * i, np.uint8)).save(folder / name)
    return folder


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("points", [0, 1, 1000])
def test_binary_models_hold_planted_cameras(kind, points, photographs, model):
    write_binary(model, RIG, 24, 24, NAMES, points, kind)
    found = load_capture(photographs, model, Layout(3, 2), 16)
    torch.testing.assert_close(found.cameras.world_to_camera, RIG.world_to_camera, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.cameras.intrinsics, RIG.intrinsics, atol=1e-6, rtol=0)


def test_text_and_binary_agree_and_text_is_used_where_both_are(model):
    binary = read_colmap(model)
    write_model(model, RIG, 24, 24, NAMES)
    (model / "images.bin").write_bytes(b"not read")
    assert read_colmap(model) == binary
    (model / "cameras.txt").unlink()
    with pytest.raises(InputError, match=r"images\.bin"):
        read_colmap(model)


def test_rows_of_text_may_have_comments_and_empty_lines_between(model):
    binary = read_colmap(model)
    write_model(model, RIG, 24, 24, NAMES)
    rows = (model / "images.txt").read_text().split("\n")
    spaced = "# IMAGE_ID, …\n\n" + "\n\n".join(f"{row}\n1.5 2.5 -1" for row in rows[::2]) + "\n"
    (model / "images.txt").write_text(spaced)
    assert read_colmap(model) == binary


def test_every_cut_and_every_surplus_is_told(model):
    for name in ("cameras.bin", "images.bin"):
        whole = (model / name).read_bytes()
        for length in range(0, len(whole), 3):
            (model / name).write_bytes(whole[:length])
            with pytest.raises(InputError, match=name):
                read_colmap(model)
        (model / name).write_bytes(whole + b"\0")
        with pytest.raises(InputError, match=rf"{name} is damaged: 1 bytes follow"):
            read_colmap(model)
        (model / name).write_bytes(whole)


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin"])
@pytest.mark.parametrize("count", [2**64 - 1, 2**40, 7])
def test_a_count_that_lies_reserves_no_memory(name, count, model):
    content = (model / name).read_bytes()
    (model / name).write_bytes(struct.pack("<Q", count) + content[8:])
    with pytest.raises(InputError, match=f"{name}.* is cut or damaged"):
        read_colmap(model)
    lying = struct.pack("<Q", 1) + struct.pack("<I7dI", 1, 1, 0, 0, 0, 0, 0, 0, 1) + b"a\0" + struct.pack("<Q", count)
    (model / "images.bin").write_bytes(lying)
    with pytest.raises(InputError):
        read_colmap(model)


def camera(number=1, model=1, width=24, height=24, values=(40.0, 40.0, 12.0, 12.0)):
    return struct.pack(f"<IiQQ{len(values)}d", number, model, width, height, *values)


@pytest.mark.parametrize(
    ("cameras", "words"),
    [
        ([camera(model=4, values=(1.0,) * 8)], "it is a OPENCV camera; undistort to PINHOLE first"),
        ([camera(model=99)], "it is a number 99 camera"),
        ([camera(model=-1)], "it is a number -1 camera"),
        ([camera(width=0)], "width cannot be 0; it must be a number >= 1"),
        ([camera(height=2**63)], "height cannot be 9223372036854775808"),
        ([camera(values=(float("nan"), 1.0, 1.0, 1.0))], r"parameters\[0\] cannot be nan"),
        ([camera(values=(1e300, 1.0, 1.0, 1.0))], r"parameters\[0\] cannot be 1e\+300"),
        ([camera(), camera()], "has the number 1 twice"),
        ([camera(number=2)], r"camera 1 of image 1 is not in cameras\.bin"),
        ([], r"camera 1 of image 1 is not in cameras\.bin"),
    ],
)
def test_a_camera_that_cannot_be_used_is_told(cameras, words, model):
    (model / "cameras.bin").write_bytes(struct.pack("<Q", len(cameras)) + b"".join(cameras))
    with pytest.raises(InputError, match=words):
        read_colmap(model)


POSE = "1 0 0 0 0 0 2"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["1 0 0 0 0 0 0 2 1 a.png"], "line 1: qw, qx, qy, qz are all 0"),
        (["1 1 0 0 0 0 0 2 1"], "line 1 lacks name"),
        (["1 1 0 0 0 0 nan 2 1 a.png"], "line 1: ty cannot be nan"),
        (["1 1 0 0 0 0 x 2 1 a.png"], "line 1: ty cannot be 'x'; it must be a number"),
        (["-1 1 0 0 0 0 0 2 1 a.png"], "line 1: number cannot be -1; it must be a whole number >= 0"),
        ([f"1 {'9' * 5000} 0 0 0 0 0 2 1 a.png"], "line 1: qw cannot be inf"),
        ([f"1 {POSE} 2 a.png"], "camera 2 of image 1 is not in cameras.txt"),
        ([f"1 {POSE} 1 a.png", "", f"1 {POSE} 1 b.png"], "has the number 1 twice"),
        ([f"1 {POSE} 1 a.png", "", f"2 {POSE} 1 a.png"], "has two images with the name 'a.png'"),
        ([f"1 {POSE} 1 {'a' * 5000}"], "line 1: name cannot be 'aaaaaaa.*of length >= 1 and of length <= 4096"),
    ],
)
def test_a_row_of_text_that_cannot_be_used_is_told(rows, words, model):
    (model / "cameras.txt").write_text("1 PINHOLE 24 24 40 40 12 12\n")
    (model / "images.txt").write_text("\n".join(rows))
    with pytest.raises(InputError, match=words):
        read_colmap(model)


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "C:\\a.png", "NUL", "", "a\n.png", "=1+1", "\x1b[2J"])
def test_a_name_in_a_model_opens_no_file(name, photographs, model, monkeypatch):
    write_binary(model, RIG, 24, 24, [name, *NAMES[1:]])
    opened = []
    monkeypatch.setattr("keyorbit.objects.captures.load_stored", lambda path, *_: opened.append(path))
    with pytest.raises(InputError, match=r"does not have a view 0\.png|name cannot be ''"):
        load_capture(photographs, model, Layout(3, 2), 16)
    assert opened == []
