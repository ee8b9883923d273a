"""The whole way, by the command line: damaged data sets, meshes and run folders get one sentence, and leave nothing."""

import json
import shutil

import pytest
import torch

from helpers import layouts
from helpers.hostile import answer
from keyorbit.diffusion.tokens import Tokens
from keyorbit.diffusion.tokens_info import TokensInfo


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    Tokens(torch.zeros(3, 8), TokensInfo("tiny", "abc", ("a.attn2",), 300)).save(folder / "tokens.safetensors")
    (folder / "losses.jsonl").write_text('{"step": 1, "total": 1.0}\n')
    return folder


def refused(found, *words):
    """Whether the answer is one sentence that holds these words."""
    assert found.sentence, found
    assert all(word in found.said for word in words), found.said


TAICHI = {
    "no list": ("landmark/taichi_test_gt.json", "{}", "must be a list"),
    "deep": ("landmark/taichi_test_gt.json", "[" * 100_000, "64 deep"),
    "elsewhere": ("landmark/taichi_test_gt.json", '[{"file_name": "../../a.png", "value": [[1, 2]]}]', "../../a.png"),
    "digits": ("landmark/taichi_test_gt.json", '[{"file_name": "a", "value": [[' + "9" * 5000 + ", 2]]}]", "digits"),
    "other landmarks": (
        "landmark/taichi_test_gt.json",
        '[{"file_name": "test_0.png", "value": [[1, 2]]}]',
        "has 18 landmarks",
    ),
}


@pytest.mark.parametrize("kind", TAICHI)
def test_protocol_refuses_a_damaged_list(kind, tmp_path, stable_diffusion_folder, tally):
    name, content, words = TAICHI[kind]
    layouts.write_taichi(tmp_path)
    (tmp_path / name).write_text(content)
    out = tmp_path / "out"
    found = answer(
        *("protocol", "stablekeypoints", "--dataset", "taichi", "--data", tmp_path, "--out", out),
        *("--model", stable_diffusion_folder, "--device", "cpu"),
    )
    refused(found, words)
    assert not out.exists()
    tally["readers", "protocol", "one sentence"] += 1


def test_evaluate_refuses_a_damaged_annotation(run, tmp_path, tally):
    layouts.write_spair(tmp_path)
    place = tmp_path / "ImageAnnotation" / "cat" / "2008_003.json"
    told = json.loads(place.read_text())
    place.write_text(json.dumps(told | {"bndbox": [2, 1, 1, 9]}))
    refused(answer("evaluate", run, tmp_path, "--dataset", "spair-71k/cat"), "2008_003.json", "bndbox")
    tally["readers", "evaluate", "one sentence"] += 1


REPORTS = {
    "losses.jsonl": ('{"step": 1}\n{"step": 2, "a": NaN}\n', "line 2"),
    "losses.json": ("[[]]", "losses.json, item 0"),
    "run.json": ('{"seconds": "long"}', "run.json: seconds cannot be 'long'"),
    "scores.json": ('{"discovered": {"objects": [], "measures": {"a": "b"}}}', "scores.json: discovered.measures"),
}


@pytest.mark.parametrize("name", REPORTS)
def test_report_refuses_a_damaged_run(name, run, tally):
    if name == "losses.json":
        (run / "losses.jsonl").unlink()
    (run / name).write_text(REPORTS[name][0])
    refused(answer("report", run), REPORTS[name][1])
    assert not (run / "report.html").exists()
    shutil.rmtree(run / name, ignore_errors=True)
    tally["readers", "report", "one sentence"] += 1


OBJ = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"
MESHES = {
    "nan.obj": ("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "finite"),
    "point.obj": ("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", "extent of 0"),
    "huge.obj": ("v 0 0 0\nv 1e300 0 0\nv 0 1e300 0\nf 1 2 3\n", "extent of inf"),
    "index.obj": (OBJ + "f 1 2 9\n", "index.obj"),
    "circle.gltf": ('{"nodes": [{"children": [1]}, {"children": [0]}]}', "circle"),
    "deep.gltf": (
        json.dumps({"nodes": [{"children": [i + 1]} for i in range(5000)] + [{}]}),
        "nodes up to 5,000 deep",
    ),
    "many.gltf": ('{"accessors": [{"count": 2000000000, "type": "MAT4"}]}', "bytes of arrays"),
    "copies.gltf": (
        json.dumps(
            {
                "accessors": [{"count": 300_000, "type": "SCALAR"}],
                "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
                "nodes": [{"mesh": 0}] * 1000,
            }
        ),
        "100,000,000 triangles",
    ),
}


@pytest.mark.parametrize("name", MESHES)
def test_render_refuses_a_damaged_mesh(name, tmp_path, tally):
    (tmp_path / name).write_text(MESHES[name][0])
    refused(answer("dataset", "render", tmp_path / name, "--out", tmp_path / "out", "--size", 8), MESHES[name][1])
    assert not (tmp_path / "out").exists()
    tally["readers", "dataset render", "one sentence"] += 1


@pytest.mark.parametrize("name", ["../secret.png", "http://127.0.0.1:9/secret.png", "/etc/hostname"])
def test_a_texture_elsewhere_is_not_read(name, tmp_path, tally, caplog):
    (tmp_path / "in").mkdir()
    layouts.picture(tmp_path / "secret.png")
    (tmp_path / "in" / "m.mtl").write_text(f"newmtl m\nKd 1 0 0\nmap_Kd {name}\n")
    (tmp_path / "in" / "m.obj").write_text(f"mtllib m.mtl\nusemtl m\n{OBJ}vt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n")
    found = answer("dataset", "render", tmp_path / "in" / "m.obj", "--out", tmp_path / "out", "--size", 8)
    assert found.status == 0
    assert f"{name!r}, which is not in its folder" in caplog.text
    tally["readers", "dataset render", "accepted"] += 1
