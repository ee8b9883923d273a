"""The benchmark of real meshes runs on meshes made here; its data, its split and its figures are what they say."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

import keyorbit as ko
from keyorbit.geometry.alignment import turns_by
from keyorbit.objects.dataset import load_dataset
from keyorbit.synthetic.objects import CATEGORIES, make_object


@pytest.fixture(scope="module")
def real(benchmark_script):
    return benchmark_script("real")


@pytest.fixture(scope="module")
def data(benchmark_script):
    return benchmark_script("real_data")


@pytest.fixture(scope="module")
def meshes(tmp_path_factory):
    """Four cars, long along the file's z, with a cabin behind the middle; two landmarks of three are known."""
    folder, told = tmp_path_factory.mktemp("meshes"), {}
    (folder / "car").mkdir()
    for i in range(4):
        body, cabin = trimesh.creation.box((1, 1, 3 + i)), trimesh.creation.box((1, 1, 1))
        cabin.apply_translation((0, 1, -1))
        trimesh.util.concatenate([body, cabin]).export(folder / "car" / f"box{i}.glb")
        told[f"box{i}"] = {"nose": [0, 0, (3 + i) / 2], "left": [0.5, 0, 0]} | ({"roof": [0, 1.5, -1]} if i else {})
    (folder / "car.keypoints.json").write_text(json.dumps({"keypoints": told}))
    return folder


def test_every_baseline_is_a_row_and_a_second_run_goes_on(real, meshes, model_folder, tmp_path, monkeypatch, capsys):
    def call(*words):
        base = f"{meshes} --seeds 0 --steps 2 --headings 2 --model {model_folder} --json {tmp_path / 'r.json'}"
        monkeypatch.setattr(sys, "argv", ["real.py", *base.split(), *map(str, words)])
        real.main()

    monkeypatch.setattr(real, "blank_backend", lambda seed: ko.load_backend(model_folder))
    config = ko.DiscoverConfig(num_tokens=4, num_candidates=4, planting=2, exemplars=1)
    monkeypatch.setattr(real.ko, "DiscoverConfig", lambda steps, seed: replace(config, steps=steps, seed=seed))
    call("--markdown", tmp_path / "r.md", "--keep", tmp_path / "kept")
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]["car"]
    assert set(rows) == {row.name for row in real.ROWS}
    for name, seeds in rows.items():
        if seeds and not name.startswith("mean shape"):
            assert all(np.isfinite(seeds["0"][field]) for field in real.SHOWN[:3]), name
            assert 0 <= seeds["0"]["same_place_worst"] <= seeds["0"]["same_place"] <= 1
    assert rows["mean shape, heading known"]["0"]["landmark_3d"] < rows["mean shape"]["0"]["landmark_3d"]
    assert (tmp_path / "kept" / "car" / "tokens_0.safetensors").is_file()
    assert "| car | random tokens |" in (tmp_path / "r.md").read_text()
    before = (tmp_path / "r.json").read_bytes()
    (tmp_path / "r.json").unlink()
    with monkeypatch.context() as patched:  # what was found is there still
        patched.setattr(real, "read", lambda *args: pytest.fail("keypoints were sought again"))
        call("--keep", tmp_path / "kept")
    assert (tmp_path / "r.json").read_bytes() == before
    monkeypatch.setattr(real, "found_by", lambda *args: pytest.fail("a row was run again"))
    call("--rows", "discovered", "mean shape")
    assert (tmp_path / "r.json").read_bytes() == before
    assert "mean shape" in capsys.readouterr().out


def test_a_mesh_shows_its_front_at_heading_0_and_its_landmarks_go_with_it(data, meshes):
    (mesh,) = (mesh for mesh in data.meshes_of(meshes)["car"] if mesh.name == "box1")
    ahead, aside = (data.sample(mesh, heading, 32) for heading in (0.0, 90.0))
    nose, left, roof = ahead.keypoints_3d
    assert nose[0] == pytest.approx(max(ahead.surface[:, 0]), abs=0.01)
    assert left[1] > 0.05
    assert abs(left[0]) < 0.06
    assert roof[2] > 0 > roof[0]
    # Seen from its left side: its front is to the left.
    assert aside.keypoints_2d[0, 0, 0] < 0.3
    assert ahead.known.all()
    assert mesh.names == ("nose", "left", "roof")
    (other,) = (mesh for mesh in data.meshes_of(meshes)["car"] if mesh.name == "box0")
    assert data.sample(other, 0.0, 16).known.tolist() == [True, True, False]


def test_folders_hold_the_same_objects(data, meshes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["real_data.py", str(meshes), str(tmp_path), "--headings", "2", "--size", "16"])
    data.main()
    discovery, test = data.split(data.meshes_of(meshes)["car"])
    assert [thing.name for thing in load_dataset(tmp_path / "car" / "test")] == [
        f"{test[0].name}_{h:03}" for h in (0, 180)
    ]
    read = load_dataset(tmp_path / "car" / "discovery")[0]
    (mesh,) = (mesh for mesh in discovery if mesh.name == read.name)
    made = data.seen(mesh, data.some_heading(mesh), 16)
    assert torch.allclose(read.truth.keypoints_3d, made.truth.keypoints_3d, atol=1e-5)
    assert torch.allclose(read.views, made.views, atol=0.01)


def test_the_split_depends_on_names_alone(data, meshes):
    cars = data.meshes_of(meshes)["car"]
    for order in (cars, cars[::-1]):
        discovery, test = data.split(order)
        assert (len(discovery), len(test)) == (3, 1)
        assert test == data.split(cars)[1]


def test_the_utmost_place_is_the_middle_of_the_edge_that_lies_furthest(data):
    box = np.array([[x, y, z] for x in (-3, 3) for y in (-1, 1) for z in (0, 1)], float)
    assert data.utmost(box, [1, 0, 0]).tolist() == [3, 0, 0.5]
    assert data.utmost(box, [1, 1, -1]).tolist() == [3, 1, 0]


def test_turns_that_look_alike_are_the_same_place_and_others_are_not(real):
    points = torch.rand(6, 3)
    half = torch.stack([points, points @ turns_by(torch.tensor(torch.pi)).T])
    assert real.same_place(half, turns_by(torch.tensor([0.0]))) < 1
    assert real.same_place(half, turns_by(torch.tensor([0.0, torch.pi]))) == 1
    known, zero = torch.ones(6, dtype=torch.bool), turns_by(torch.tensor([0.0]))
    turned = real.judged_mesh(half, points, known, zero, half)
    assert turned.wrong == [False, True]
    assert turned.errors[0] == 0
    alike = real.judged_mesh(half, points, known, turns_by(torch.tensor([0.0, torch.pi])), half)
    assert alike.wrong == [False, False]
    assert max(alike.errors) < 1e-5
    assert torch.allclose(alike.points[1], points, atol=1e-5)


def test_phrases_are_those_that_training_can_draw(benchmark_script):
    from keyorbit.detection.words import PLACES

    for kind, phrases in benchmark_script("phrases").PHRASES.items():
        parts = {part.name for seed in range(12) for part in make_object(kind, seed).parts}
        possible = {f"{place} {part}".lstrip() for place in PLACES for part in parts}
        assert len(set(phrases)) == 16
        names = benchmark_script("phrases").same_names(kind)
        assert set(names) <= set(phrases)
        assert set(names.values()) <= set(CATEGORIES[kind].keypoint_names)
        assert set(phrases) <= possible
