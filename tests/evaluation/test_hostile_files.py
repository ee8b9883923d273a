"""Files made to crash, to use up memory or to lead elsewhere: MATLAB, HDF5, and names of pictures."""

import json
import struct

import numpy as np
import pytest
import scipy.io

from helpers import layouts
from keyorbit.errors import InputError
from keyorbit.evaluation.readers import read_dataset
from keyorbit.evaluation.readers.matlab import mat_variable
from keyorbit.evaluation.readers.tables import Array, below

HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
CELL, STRUCT, DOUBLE = 1, 2, 6
LARGEST = 2**20


def element(kind, data):
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def start(kind, dims, name):
    return element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack(f"<{len(dims)}i", *dims)) + element(1, name)


def matrix(kind, dims, name, body):
    return element(14, start(kind, dims, name) + body)


def nested(depth):
    """A number in so many cells, each in the next."""
    parts = [matrix(DOUBLE, (1, 1), b"", element(9, struct.pack("<d", 1.0)))]
    size = len(parts[0])
    for i in reversed(range(depth)):
        head = start(CELL, (1, 1), b"" if i else b"x")
        size += len(head)
        parts.append(struct.pack("<II", 14, size) + head)
        size += 8
    return b"".join(reversed(parts))


LIES = {
    "cells": (matrix(CELL, (30000, 30000), b"x", b""), "30000 x 30000 cells"),
    "few cells": (matrix(CELL, (10000, 1000), b"x", b""), "10000 x 1000 cells"),
    "structures": (
        matrix(STRUCT, (20000, 2000), b"x", element(5, struct.pack("<i", 8)) + element(1, b"field\0\0\0")),
        "20000 x 2000 cells",
    ),
    "negative": (matrix(CELL, (-3, 5), b"x", b""), "-3 x 5 cells"),
    "numbers": (matrix(DOUBLE, (50000, 50000), b"x", element(9, bytes(8))), "cannot be read"),
    "deep": (nested(200_000), "nested more than 64 deep"),
    "long": (matrix(DOUBLE, (1, 2**18), b"x", element(9, bytes(2**21))), "larger than such a variable may be"),
    "cut": (matrix(DOUBLE, (1, 9), b"x", element(9, bytes(72)))[:-40], "ends too early"),
    "other name": (matrix(DOUBLE, (1, 1), b"y", element(9, bytes(8))), "no variable 'x'"),
}


@pytest.mark.parametrize("kind", LIES)
def test_a_matlab_file_is_not_believed(kind, tmp_path):
    data, words = LIES[kind]
    (tmp_path / "a.mat").write_bytes(HEADER + data)
    with pytest.raises(InputError, match=words) as caught:
        mat_variable(tmp_path / "a.mat", "x", LARGEST)
    assert "a.mat" in str(caught.value)


@pytest.mark.parametrize("version", ["4", "5"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_matlab_file_is_read_as_it_was(version, packed, tmp_path):
    told = {"a": np.arange(6.0).reshape(2, 3), "y": np.ones(3) * 1j}
    if version == "5":
        told |= {"s": {"text": "word", "cells": np.array([[1, 2], "b"], dtype=object)}}
    scipy.io.savemat(tmp_path / "a.mat", told, format=version, do_compression=packed and version == "5")
    plain = scipy.io.loadmat(tmp_path / "a.mat", struct_as_record=False, squeeze_me=True)
    for name in ("a", "y"):
        np.testing.assert_array_equal(mat_variable(tmp_path / "a.mat", name, LARGEST), plain[name])
    if version == "5":
        found = mat_variable(tmp_path / "a.mat", "s", LARGEST)
        assert found.text == "word"
        assert found.cells[1] == "b"


def test_matlabs_new_format_is_told(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<H", 0x0200) + b"IM" + bytes(600))
    with pytest.raises(InputError, match=r"7\.3.*-v7"):
        mat_variable(tmp_path / "a.mat", "x", LARGEST)


@pytest.fixture
def h5(tmp_path):
    """A function that writes AutoLink's file with one array replaced, and reads it."""
    h5py = pytest.importorskip("h5py")

    def read(change):
        with h5py.File(tmp_path / "cub.h5", "w") as file:
            file["test_img"] = np.full((2, 3, 16, 16), 7, np.uint8)
            file["test_kp"] = np.full((2, 15, 2), 0.5, np.float32)
            file["test_vis"] = np.ones((2, 15), np.uint8)
            change(file, h5py)
        return list(read_dataset("cub-aligned", tmp_path))

    return read


def _linked(file, h5py):
    with h5py.File(file.filename.replace("cub.h5", "other.h5"), "w") as other:
        other["data"] = np.ones((2, 15), np.uint8)
    del file["test_vis"]
    file["test_vis"] = h5py.ExternalLink("other.h5", "data")


def _raw(file, h5py):
    del file["test_vis"]
    file.create_dataset("test_vis", (2, 15), "u1", external=[("/etc/passwd", 0, 30)])


def _virtual(file, h5py):
    del file["test_vis"]
    layout = h5py.VirtualLayout((2, 15), "u1")
    layout[:] = h5py.VirtualSource("other.h5", "data", (2, 15))
    file.create_virtual_dataset("test_vis", layout)


def _empty(file, h5py):
    del file["test_img"]
    file.create_dataset("test_img", (10**9, 3, 1000, 1000), "u1", chunks=(1, 3, 100, 100))


def _with(name, values):
    def change(file, h5py):
        del file[name]
        file[name] = values

    return change


NAN = np.full((2, 15, 2), np.nan, np.float32)
ARRAYS = {
    "linked": (_linked, "no array in this file itself"),
    "raw": (_raw, "no array in this file itself"),
    "virtual": (_virtual, "no array in this file itself"),
    "empty": (_empty, "which the file does not hold"),
    "group": (lambda file, h5py: (file.__delitem__("test_kp"), file.create_group("test_kp")), "no array in this file"),
    "texts": (_with("test_kp", "words"), "must hold numbers|numbers"),
    "floats": (_with("test_img", np.zeros((2, 3, 16, 16))), "it must hold bytes"),
    "fewer": (_with("test_kp", NAN[:1]), "differ in length|visible"),
    "shape": (_with("test_kp", NAN[..., :1]), "2 x 15 x 1; it must be any x 15 x 2"),
    "nan": (_with("test_kp", NAN), "nan where a landmark is visible"),
    "inf": (_with("test_kp", NAN * 0 + np.inf), "visible"),
    "huge": (_with("test_kp", np.full((2, 15, 2), 1e30)), "cannot be 1e"),
    "no picture": (_with("test_img", np.zeros((2, 3, 0, 0), np.uint8)), "it must be any x 3 x any x any"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_hdf5_file_is_not_believed(kind, h5):
    change, words = ARRAYS[kind]
    with pytest.raises(InputError, match=words) as caught:
        h5(change)
    assert "cub.h5" in str(caught.value)


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "", ".", "a/..", "x" * 256, "\x00", "\ud800", "a/\x00"])
def test_no_name_leads_out_of_the_folder(name, tmp_path):
    with pytest.raises(InputError, match="list names"):
        below(tmp_path, name, "list")


@pytest.mark.parametrize("name", ["a", "a/b.jpg", "a\\b.jpg", "a/../b.jpg", "./a", "..a/b..", "ä" * 100])
def test_other_names_are_kept(name, tmp_path):
    assert below(tmp_path, name, "list") == tmp_path / name


def test_a_picture_elsewhere_is_not_read(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    layouts.write_coco(root)
    layouts.picture(tmp_path / "secret.jpg")
    path = root / "annotations" / "person_keypoints_val2017.json"
    data = json.loads(path.read_text())
    data["images"][0]["file_name"] = "../../secret.jpg"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"images\[0\] names '../../secret.jpg'; it must be a file in"):
        read_dataset("coco", root)


def test_a_box_much_larger_than_its_picture_is_refused(tmp_path):
    layouts.write_coco(tmp_path)
    path = tmp_path / "annotations" / "person_keypoints_val2017.json"
    path.write_text(path.read_text().replace("[3, 2, 10, 6]", "[3, 2, 1000000, 6]"))
    with pytest.raises(InputError, match=r"the box is 1200000 x 1200000 pixels, and the picture .*only 20 x 10"):
        list(read_dataset("coco", tmp_path))


def test_an_array_says_where_it_is_wrong():
    with pytest.raises(InputError, match=r"a\[1, 0\] cannot be nan; it must be a number >= 0 and <= 1"):
        Array((2, None), 0.0, 1.0).checked([[0, 1], [float("nan"), 1]], "a")
    assert np.isnan(Array((2,), unknown=True).checked([None, 1], "a")[0])
