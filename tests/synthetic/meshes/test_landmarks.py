"""Landmarks of meshes: files of points by name, and KeypointNet's annotations."""

import json

import numpy as np
import pytest
import trimesh

from keyorbit.errors import InputError
from keyorbit.objects.dataset import load_dataset
from keyorbit.synthetic.dataset import render_mesh
from keyorbit.synthetic.meshes.landmarks import LandmarkFiles, read_landmarks

POINTS = {"head.L": [0, 1, 0], "head.R": [0, 1, 1]}


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("horses/a.keypoints.json", {"keypoints": POINTS}),
        ("horses/a.keypoints.json", {"keypoints": {"a": POINTS}}),
        ("horses/a.keypoints.json", {"keypoints": {"a.glb": POINTS}}),
        ("horses/horses.keypoints.json", {"keypoints": {"a": POINTS}}),
        ("horses.keypoints.json", {"up": "y", "keypoints": {"a": POINTS, "b": {}}}),
    ],
)
def test_landmarks_are_found_beside_a_mesh(place, told, tmp_path):
    write(tmp_path / place, told)
    found = LandmarkFiles().of(tmp_path / "horses" / "a.glb")
    assert found.names == tuple(POINTS)
    assert found.pairs == ((0, 1),)
    assert found.points.tolist() == list(POINTS.values())
    assert LandmarkFiles().of(tmp_path / "horses" / "other.glb") is None
    assert LandmarkFiles().of(tmp_path / "cows" / "a.glb") is None


def test_keypointnet_names_models_by_their_folders(tmp_path):
    def point(number, xyz):
        more = {
            "rgb": [255, 0, 0],
            "pcd_info": {"point_index": 3},
            "mesh_info": {"face_index": 1, "face_uv": [0, 0, 1]},
        }
        return {"xyz": xyz, "semantic_id": number, **more}

    models = [
        {"class_id": "03001627", "model_id": "1a2b", "keypoints": [point(9, [0, 0, 1]), point(2, [0, 0, 2])]},
        {"class_id": "03001627", "model_id": "77", "keypoints": [point(2, [1, 0, 0]), point(2, [2, 0, 0])]},
    ]
    files = LandmarkFiles(write(tmp_path / "chair.json", models))
    found = files.of(tmp_path / "03001627" / "1a2b" / "models" / "model_normalized.obj")
    assert found.names == ("semantic 2", "semantic 9")
    assert found.points.tolist() == [[0, 0, 2], [0, 0, 1]]
    other = files.of(tmp_path / "77.ply")
    assert (other.points[0].tolist(), other.known.tolist()) == ([1, 0, 0], [True, False])
    assert files.of(tmp_path / "78.ply") is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"keypoints": {"a": {"head": [0, 1]}}}, "list of length 3"),
        ({"keypoints": {"a": {"head": ["x", 0, 1]}}}, "list of length 3"),
        ({"up": "w", "keypoints": {"a": POINTS}}, "up cannot be 'w'; it must be one of x, y"),
        ({"keypoints": {}}, "holds no keypoints"),
        ({}, "lacks keypoints"),
        ([], "holds no keypoints"),
        ([{"model_id": "a", "keypoints": [{"semantic_id": 0}]}], r"models\[0\].keypoints\[0\] lacks xyz"),
        (3, "must be a table"),
    ],
)
def test_a_broken_file_of_landmarks_is_named(values, words, tmp_path):
    path = write(tmp_path / "x.keypoints.json", values)
    with pytest.raises(InputError, match=words) as found:
        read_landmarks(path)
    assert "x.keypoints.json" in str(found.value)


def test_a_file_named_after_a_mesh_has_its_landmarks(tmp_path):
    write(tmp_path / "a.keypoints.json", {"keypoints": {"A": POINTS, "b": POINTS}})
    with pytest.raises(
        InputError, match=r"a\.keypoints\.json has no keypoints of 'a', the mesh beside it, but of A, b"
    ):
        LandmarkFiles().of(tmp_path / "a.glb")
    assert LandmarkFiles().of(tmp_path / "c.glb") is None


def test_landmarks_become_the_objects_truth(tmp_path):
    box = trimesh.creation.box((1, 1, 1))
    box.export(tmp_path / "box.glb")
    places = {"front": [0, 0, 0.5], "back": [0, 0, -0.5], "middle": [0, 0, 0]}
    write(tmp_path / "box.keypoints.json", {"keypoints": places})
    render_mesh(tmp_path / "box.glb", tmp_path / "out", 16)
    truth = load_dataset(tmp_path / "out")[0].truth
    assert truth.names == ("front", "back", "middle")
    assert truth.visible[0].tolist() == [True, False, True]  # within a body is seen through as much as it is deep
    assert truth.keypoints_2d[0, 0, 1] > truth.keypoints_2d[0, 2, 1]  # seen from above, the front is lower
    np.testing.assert_allclose(truth.keypoints_3d[0].numpy(), [0.5 / 3**0.5, 0, 0], atol=1e-6)


def test_landmarks_of_another_unit_are_refused(tmp_path):
    trimesh.creation.box((1, 1, 1)).export(tmp_path / "box.glb")
    write(tmp_path / "box.keypoints.json", {"keypoints": {"front": [0, 0, 500]}})
    with pytest.raises(InputError, match=r"box\.glb: its landmark 'front' lies far outside of it"):
        render_mesh(tmp_path / "box.glb", tmp_path / "out", 16)
    assert not (tmp_path / "out").exists()
