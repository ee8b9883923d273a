"""The benchmark of foreign meshes runs, and knows points that stay from points that move."""

import sys

import pytest
import torch
import trimesh
from PIL import Image

import keyorbit as ko
from keyorbit.discovery.initial import untrained


@pytest.fixture(scope="module")
def foreign(benchmark_script):
    return benchmark_script("foreign")


def test_a_keypoint_that_moves_at_one_heading_counts_against_its_pairs(foreign):
    points = torch.rand(4, 3).repeat(3, 1, 1)
    assert foreign.same_place(points) == 1
    points[2, 0, 0] += 0.2
    # 4 keypoints at 3 pairs of headings; the third heading is in two of them. (24: each pair taken both ways.)
    assert foreign.same_place(points) == pytest.approx(1 - 4 / 24)


def test_every_mesh_has_a_row_and_wears_the_picture_beside_it(
    foreign, backend, model_folder, tmp_path, monkeypatch, capsys
):
    (tmp_path / "mug").mkdir()
    untrained(backend, ko.DiscoverConfig(num_tokens=3)).save(tmp_path / "mug" / "tokens.safetensors")
    box = trimesh.creation.box((1, 2, 1))
    box.visual = trimesh.visual.TextureVisuals(box.vertices[:, :2] % 1)
    lines = trimesh.exchange.obj.export_obj(box, return_texture=True)[0].splitlines()
    (tmp_path / "box.obj").write_text("\n".join(line for line in lines if "mtl" not in line))
    Image.new("RGB", (4, 4), (250, 0, 0)).save(tmp_path / "box.png")
    monkeypatch.setattr(foreign, "MESHES", (foreign.Mesh("a box", "mug", "*.obj"),))
    words = f"{tmp_path} {tmp_path} {tmp_path / 'seen' / 'sheet.png'} --headings 2 --model {model_folder}"
    monkeypatch.setattr(sys, "argv", ["foreign.py", *words.split()])
    foreign.main()
    row = next(line for line in capsys.readouterr().out.splitlines() if "a box" in line)
    assert 0 <= int(row.split("│")[4]) <= 100
    with Image.open(tmp_path / "seen" / "sheet.png") as sheet:
        assert sheet.size == (7 * foreign.SIZE, foreign.SIZE)
        red, green, _ = sheet.convert("RGB").getpixel((foreign.SIZE // 2, foreign.SIZE // 2))
    assert red > 2 * green
