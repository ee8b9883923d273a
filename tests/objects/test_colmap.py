"""COLMAP's models: the binary format holds what the text holds, and files that are cut or lie are one sentence."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.colmap import write_binary, write_model
from helpers.wrong_cameras import RIG
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
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


POINTS = "1.5 2.5 -1 7 8 9"


@pytest.mark.parametrize(
    ("between", "end"),
    [
        (f"\n{POINTS}\n", "\n"),
        (f"\n{POINTS}\n\n# a comment\n  # another\n", f"\n{POINTS}"),
        ("\n\n", "\n\n"),
        ("\n", ""),  # no rows of points
        ("\n", "\n"),
        ("\r\n", "\r\n"),
        (f"\r\n{POINTS}\r\n", "\r\n"),
        ("\n1 2 -1 nan inf 5\n", "\n"),
        ("\n" + "103 55 -1 " * 4 + "\n", "\n"),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff", "# IMAGE_ID, …\n\n"])
def test_rows_of_images_may_have_points_after_them_an_empty_row_or_none(between, end, mark, model):
    binary = read_colmap(model)
    write_model(model, RIG, 24, 24, NAMES)
    rows = (model / "images.txt").read_text().split("\n")[::2]
    (model / "images.txt").write_bytes((mark + between.join(rows) + end).encode())
    assert read_colmap(model) == binary


def test_a_name_may_be_a_number_and_points_may_be_missing_for_some(model):
    write_model(model, RIG, 24, 24, [f"000{i}" for i in range(6)])
    rows = (model / "images.txt").read_text().split("\n")[::2]
    lines = [line for i, row in enumerate(rows) for line in (row, *[POINTS, ""][i % 3 : i % 3 + 1])]
    (model / "images.txt").write_text("\n".join(lines))
    assert [shot.name for shot in read_colmap(model).shots] == [f"000{i}" for i in range(6)]


def test_a_text_and_a_binary_file_make_a_model(model):
    binary = read_colmap(model)
    write_model(model, RIG, 24, 24, NAMES)
    for gone in ("cameras.bin", "images.txt"):
        (model / gone).unlink()
    for more in ("rigs.bin", "frames.bin", "points3D.ply"):
        (model / more).write_bytes(b"not read")
    assert read_colmap(model) == binary


PLACES = [
    "sparse/0",
    "sparse",
    "colmap/sparse/0",
    "distorted/sparse/0",
    "dense/sparse",
    "dense/0/sparse",
    "0",
    "sparse/1",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("write", [write_model, write_binary])
def test_a_project_has_its_model_in_one_of_these_folders(place, write, photographs, tmp_path):
    (tmp_path / "project" / place).mkdir(parents=True)
    write(tmp_path / "project" / place, RIG, 24, 24, NAMES)
    found = load_capture(photographs, tmp_path / "project", Layout(3, 2), 16)
    torch.testing.assert_close(found.cameras.world_to_camera, RIG.world_to_camera, atol=1e-6, rtol=0)


def moved(by):
    poses = RIG.world_to_camera.clone()
    poses[:, 2, 3] *= by
    return Cameras(poses, RIG.intrinsics)


def test_of_several_models_that_with_the_photographs_is_taken(photographs, tmp_path):
    project, names = tmp_path / "project", [f"other {i}.png" for i in range(6)]
    for i, (those, by) in enumerate(((names, 1.0), (NAMES, 2.0), (NAMES[:3], 3.0))):
        (project / "sparse" / str(i)).mkdir(parents=True)
        write_binary(project / "sparse" / str(i), moved(by).select(range(len(those))), 24, 24, those)
    found = load_capture(photographs, project, Layout(3, 2), 16)
    torch.testing.assert_close(found.cameras.world_to_camera, moved(2.0).world_to_camera, atol=1e-6, rtol=0)
    write_binary(project / "sparse" / "1", RIG.select(range(3)), 24, 24, NAMES[3:])
    with pytest.raises(InputError, match=r"sparse/1 does not have a view 0.png, and .*sparse/2 does not have others"):
        load_capture(photographs, project, Layout(3, 2), 16)


def test_of_the_same_names_those_for_pictures_of_this_size_are_taken(photographs, tmp_path):
    project = tmp_path / "project"
    for place, side, by in (("sparse/0", 48, 1.0), ("distorted/sparse/0", 24, 2.0)):
        (project / place).mkdir(parents=True)
        write_binary(project / place, moved(by), side, side, NAMES)
    found = load_capture(photographs, project, Layout(3, 2), 16)
    torch.testing.assert_close(found.cameras.world_to_camera, moved(2.0).world_to_camera, atol=1e-6, rtol=0)


@pytest.mark.parametrize("place", ["colmap_text", "sparse/aligned", "out/undistorted/sparse"])
def test_a_model_elsewhere_in_a_project_is_named(place, photographs, tmp_path):
    (tmp_path / "project" / place).mkdir(parents=True)
    write_model(tmp_path / "project" / place, RIG, 24, 24, NAMES)
    (tmp_path / "project" / "database.db").touch()
    with pytest.raises(InputError, match=rf"project has a COLMAP model in {tmp_path / 'project' / place}, .*give that"):
        load_capture(photographs, tmp_path / "project", Layout(3, 2), 16)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("database.db", "holds a database of COLMAP's, database.db, but no model"),
        ("a.txt", "holds no COLMAP model, .* and no transforms.json"),
    ],
)
def test_a_project_without_a_model_is_told(name, words, photographs, tmp_path):
    (tmp_path / "project" / "sparse").mkdir(parents=True)
    (tmp_path / "project" / name).write_bytes(b"")
    with pytest.raises(InputError, match=words):
        load_capture(photographs, tmp_path / "project", Layout(3, 2), 16)


def test_a_file_of_a_model_is_told(photographs, model):
    with pytest.raises(InputError, match=r"cameras.bin is one file of a COLMAP model: give the folder that it is in"):
        load_capture(photographs, model / "cameras.bin", Layout(3, 2), 16)


LENSES = {  # by the number of the model
    "SIMPLE_RADIAL": (2, (40.0, 12.0, 12.0, -0.2)),
    "OPENCV": (4, (40.0, 40.0, 12.0, 12.0, 0.3, 0.0, 0.0, 0.0)),
    "FULL_OPENCV": (6, (40.0, 40.0, 12.0, 12.0, 0.3, *[0.0] * 7)),
    "EQUIRECTANGULAR": (17, (24.0, 24.0)),
}


@pytest.mark.parametrize("name", LENSES)
@pytest.mark.parametrize("kind", ["text", "binary"])
def test_a_lens_matters_where_a_photograph_has_it(name, kind, photographs, model):
    number, values = LENSES[name]
    write_model(model, RIG, 24, 24, NAMES)
    inner = (model / "cameras.txt").read_text()
    (model / "cameras.txt").write_text(f"{inner}2 {name} 24 24 {' '.join(map(str, values))}\n")
    if kind == "binary":
        first = (model / "cameras.bin").read_bytes()[8:]
        content = struct.pack("<Q", 2) + first + camera(2, number, values=values)
        (model / "cameras.bin").write_bytes(content)
        (model / "cameras.txt").unlink()
    plain = load_capture(photographs, model, Layout(3, 2), 16)
    torch.testing.assert_close(plain.cameras.intrinsics, RIG.intrinsics, atol=1e-6, rtol=0)
    (model / "images.txt").write_text((model / "images.txt").read_text().replace(" 1 a view 0", " 2 a view 0"))
    if name == "EQUIRECTANGULAR":
        if kind == "text":
            with pytest.raises(InputError, match=r"of a view 0.png cannot be used: it is a EQUIRECTANGULAR camera"):
                load_capture(photographs, model, Layout(3, 2), 16)
        return
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(photographs / NAMES[0])
    (model / "cameras.bin").unlink(missing_ok=True)
    (model / "cameras.txt").write_text(f"{inner}2 {name} 24 24 {' '.join(map(str, values))}\n")
    bent = load_capture(photographs, model, Layout(3, 2), 16)
    (model / "cameras.txt").write_text(f"{inner}2 PINHOLE 24 24 40 40 12 12\n")
    straight = load_capture(photographs, model, Layout(3, 2), 16)
    assert (bent.views[0] - straight.views[0]).abs().max() > 0.02
    torch.testing.assert_close(bent.views[1:], straight.views[1:])
    torch.testing.assert_close(bent.cameras.intrinsics, straight.cameras.intrinsics)


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
        ([camera(model=99)], "camera 1 has the model number 99, which is not known"),
        ([camera(model=-1)], "camera 1 has the model number -1, which is not known"),
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
