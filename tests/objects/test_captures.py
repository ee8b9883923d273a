"""A user's own photographs: cameras from JSON and from COLMAP, cut to squares, and what does not fit refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from helpers.colmap import write_model
from helpers.wrong_cameras import RIG, WRONG
from keyorbit.cli import app
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.geometry.views import Layout
from keyorbit.objects.captures import load_capture
from keyorbit.objects.dataset import load_object

CAMERAS, LAYOUT = zero123plus_cameras(), Layout(3, 2)


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        picture = np.full((32, 48, 3), 255, np.uint8)
        picture[8:24, 16:32] = rng.integers(0, 200, 3)
        Image.fromarray(picture).save(folder / f"view_{i}.png")
    return folder


def as_wide(cameras):
    """Cameras of the 48 × 32 pictures whose middle squares these cameras see."""
    intrinsics = cameras.intrinsics.clone()
    intrinsics[:, 0] *= 32 / 48
    intrinsics[:, 0, 2] += 8 / 48
    return type(cameras)(cameras.world_to_camera, intrinsics)


def test_json_alone_or_as_a_data_set_writes_it(photographs, tmp_path):
    given = as_wide(CAMERAS).to_dict()
    three = given | {"world_to_camera": [rows[:3] for rows in given["world_to_camera"]]}
    for content in (given, {"format": "x", "cameras": given}, three):
        (tmp_path / "cameras.json").write_text(json.dumps(content))
        found = load_capture(photographs, tmp_path / "cameras.json", LAYOUT, 16)
        assert found.views.shape == (6, 3, 16, 16)
        torch.testing.assert_close(found.cameras.intrinsics, CAMERAS.intrinsics)
        torch.testing.assert_close(found.cameras.world_to_camera, CAMERAS.world_to_camera)
        assert found.masks is None
        # The square of colour is where it was: columns 16 to 31 of 48 are 8 to 23 of the middle 32.
        assert (found.views[0, :, 8, 8] < 0.95).all()
        assert (found.views[0, :, 8, 1] > 0.95).all()


def test_a_model_of_colmap_is_read(photographs, tmp_path):
    write_model(tmp_path / "model", as_wide(CAMERAS), 48, 32, [f"view_{i}.png" for i in range(6)])
    found = load_capture(photographs, tmp_path / "model", LAYOUT, 16)
    torch.testing.assert_close(found.cameras.world_to_camera, CAMERAS.world_to_camera, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.cameras.intrinsics, CAMERAS.intrinsics, atol=1e-5, rtol=0)
    (tmp_path / "model" / "cameras.txt").write_text("1 OPENCV 48 32 40 40 24 16 -40 0 0 0\n")
    with pytest.raises(
        InputError, match=r"view_0.png: its OPENCV lens moves pixels by up to \d+ and folds the picture"
    ):
        load_capture(photographs, tmp_path / "model", LAYOUT, 16)


def test_what_does_not_fit_is_refused(photographs, tmp_path):
    path = tmp_path / "cameras.json"
    path.write_text(json.dumps(CAMERAS.to_dict()))
    with pytest.raises(InputError, match="exactly 4"):
        load_capture(photographs, path, Layout(2, 2), 16)
    (photographs / "view_5.png").unlink()
    with pytest.raises(
        InputError, match="5 photographs; the model tiles 3 rows × 2 columns of views, so give exactly 6"
    ):
        load_capture(photographs, path, LAYOUT, 16)
    path.write_text("{}")
    with pytest.raises(InputError, match="world_to_camera"):
        load_capture(photographs, path, LAYOUT, 16)
    with pytest.raises(InputError, match="there is no file"):
        load_capture(photographs, tmp_path / "nothing.json", LAYOUT, 16)
    with pytest.raises(InputError, match="no folder"):
        load_capture(tmp_path / "nowhere", path, LAYOUT, 16)


def test_detect_on_own_photographs(backend, model_folder, photographs, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    config = DiscoverConfig(num_tokens=3, num_candidates=3)
    untrained(backend, config).save(run / "tokens.safetensors")
    (tmp_path / "cameras.json").write_text(json.dumps(as_wide(CAMERAS).to_dict()))
    arguments = ["detect", str(run), "--views", str(photographs), "--out", str(tmp_path / "out")]
    arguments += ["--model", str(model_folder)]
    result = CliRunner().invoke(app, [*arguments, "--cameras", str(tmp_path / "cameras.json")])
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert len(written["views"]) == 6
    assert len(written["keypoints"]) == 3
    alone = CliRunner().invoke(app, arguments)
    assert isinstance(alone.exception, InputError)
    assert "--views and --cameras belong together" in str(alone.exception)


@pytest.mark.parametrize(
    "row", ["1 PINHOLE 64", "1 PINHOLE 0 0 9 9 9 9", "1 PINHOLE 64 64 9 9 9", "PINHOLE", "1 PINHOLE w h 1 1 1 1"]
)
def test_a_damaged_line_of_colmaps_cameras_is_told(row, photographs, tmp_path):
    (tmp_path / "model").mkdir()
    # As some editors save it, with a byte order mark.
    (tmp_path / "model" / "cameras.txt").write_text(f"# cameras\n{row}\n", encoding="utf-8-sig")
    (tmp_path / "model" / "images.txt").write_text("")
    with pytest.raises(InputError, match=r"cameras.txt, line 2.* (lacks|cannot be|has) "):
        load_capture(photographs, tmp_path / "model", LAYOUT, 16)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2]", " is a list, which is not read here: give a COLMAP model's folder, a transforms.json, or "),
        (
            '[{"img_name": "a", "fx": 9}]',
            " is 3D Gaussian Splatting's own format, which is not read here: give a COLMAP",
        ),
        ('[{"cameras": {}, "shots": {}}]', " is OpenSfM's own format, which is not read here: give"),
        ("7", " cannot be 7; it must be a table"),
        ("", " cannot be read as JSON"),
        ('{"cameras": [1]}', r": cameras cannot be \[1\]; it must be a table"),
        ('{"cameras": null}', ": cameras cannot be None"),
        ("[" * 100_000, " cannot be read as JSON: it is nested more than 64 deep"),
        ("{}", " lacks world_to_camera"),
        ('{"world_to_camera": [], "intrinsics": []}', ": there are no cameras"),
    ],
)
def test_files_that_hold_no_cameras_are_told(text, words, small_photographs, tmp_path):
    (tmp_path / "cameras.json").write_text(text)
    with pytest.raises(InputError, match=rf"cameras\.json{words}"):
        load_capture(small_photographs, tmp_path / "cameras.json", Layout(3, 2), 16)


@pytest.mark.parametrize("content", [b"<?xml version='1.0'?>", b"\x93NUMPY", b"PK\x03\x04"])
def test_files_of_other_kinds_are_told(content, small_photographs, tmp_path):
    (tmp_path / "cameras.xml").write_bytes(content)
    with pytest.raises(InputError, match=r"cameras\.xml (is no text|cannot be read as JSON).*; give a COLMAP"):
        load_capture(small_photographs, tmp_path / "cameras.xml", Layout(3, 2), 16)


@pytest.fixture
def small_photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i in range(6):
        Image.fromarray(np.full((24, 24, 3), 40 * i, np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("name", WRONG)
def test_they_are_checked_wherever_they_come_in(name, small_photographs, tmp_path):
    cameras = WRONG[name][0].to_dict()
    text = json.dumps({"cameras": cameras})
    (tmp_path / "cameras.json").write_text(text)
    with pytest.raises(InputError, match=r"cameras\.json"):
        load_capture(small_photographs, tmp_path / "cameras.json", Layout(3, 2), 16)
    meta = {"format": "keyorbit-object-1", "layout": [3, 2], "cameras": cameras}
    (small_photographs / "meta.json").write_text(json.dumps(meta))
    for path in sorted(small_photographs.glob("*.png")):
        path.rename(path.with_name(f"view_{path.name}"))
    Image.new("RGB", (24, 24)).save(small_photographs / "cond.png")
    with pytest.raises(InputError, match=r"meta\.json|cameras"):
        load_object(small_photographs)


def test_colmaps_cameras_fit_photographs_made_smaller_and_no_others(small_photographs, tmp_path):
    model = tmp_path / "model"
    for width, height, fine in ((24, 24, True), (1001, 1000, True), (48, 32, False), (32, 48, False), (28, 24, False)):
        inner = RIG.intrinsics.clone()
        inner[:, 1, 1] *= width / height  # pixels are as high as wide
        write_model(model, Cameras(RIG.world_to_camera, inner), width, height, [f"{i}.png" for i in range(6)])
        if fine:
            found = load_capture(small_photographs, model, Layout(3, 2), 16)
            torch.testing.assert_close(found.cameras.intrinsics, RIG.intrinsics, atol=3e-3, rtol=0)
            continue
        with pytest.raises(InputError, match=rf"for pictures of {width}x{height} pixels, and 0.png has 24x24"):
            load_capture(small_photographs, model, Layout(3, 2), 16)
