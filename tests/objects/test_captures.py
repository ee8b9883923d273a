"""A user's own photographs: cameras from JSON and from COLMAP, cut to squares, and what does not fit refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from keyorbit.cli import app
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.errors import InputError
from keyorbit.geometry.keypoints import Keypoints2D
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.geometry.views import Layout
from keyorbit.objects.captures import load_capture
from keyorbit.output.colmap import write_colmap

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
    for content in (as_wide(CAMERAS).to_dict(), {"format": "x", "cameras": as_wide(CAMERAS).to_dict()}):
        (tmp_path / "cameras.json").write_text(json.dumps(content))
        found = load_capture(photographs, tmp_path / "cameras.json", LAYOUT, 16)
        assert found.views.shape == (6, 3, 16, 16)
        torch.testing.assert_close(found.cameras.intrinsics, CAMERAS.intrinsics)
        torch.testing.assert_close(found.cameras.world_to_camera, CAMERAS.world_to_camera)
        assert found.masks is None
        # The square of colour is where it was: columns 16 to 31 of 48 are 8 to 23 of the middle 32.
        assert (found.views[0, :, 8, 8] < 0.95).all()
        assert (found.views[0, :, 8, 1] > 0.95).all()


def test_colmap_round_trip(photographs, tmp_path):
    wide = as_wide(CAMERAS)
    points = torch.tensor([[0.1, 0.2, -0.1], [-0.2, 0.0, 0.1]])
    flat = Keypoints2D(wide.project(points), torch.ones(6, 2), wide)
    write_colmap(tmp_path / "model", flat, flat.triangulate(), 48, 32, [f"view_{i}.png" for i in range(6)])
    found = load_capture(photographs, tmp_path / "model", LAYOUT, 16)
    torch.testing.assert_close(found.cameras.world_to_camera, CAMERAS.world_to_camera, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.cameras.intrinsics, CAMERAS.intrinsics, atol=1e-5, rtol=0)
    (tmp_path / "model" / "cameras.txt").write_text("1 OPENCV 48 32 40 40 24 16 0 0 0 0\n")
    with pytest.raises(InputError, match="OPENCV camera; undistort"):
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
    with pytest.raises(InputError, match="cannot be read"):
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
    with pytest.raises(InputError, match=r"cameras.txt is damaged at"):
        load_capture(photographs, tmp_path / "model", LAYOUT, 16)
