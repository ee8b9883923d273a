"""Keypoints on a mesh's surface: KeypointNet's annotations and mesh.glb, in the file's own axes and unit."""

import json

import numpy as np
import pytest
import torch
import trimesh

from helpers.meshes import POINTS, chair, write_chair
from keyorbit.geometry.keypoints import Keypoints3D
from keyorbit.output.on_mesh import keypointnet_dict, write_on_mesh
from keyorbit.synthetic.meshes.landmarks import read_landmarks
from keyorbit.synthetic.meshes.views import load_meshes

SCALE, SHIFT = 30.0, (5.0, 6.0, 7.0)


@pytest.fixture(scope="module")
def thing(tmp_path_factory):
    """A chair of another unit, off its file's origin."""
    return load_meshes(write_chair(tmp_path_factory.mktemp("cups") / "a.ply", SCALE, SHIFT), up="y", size=8)[0]


def points_at(thing, places, scores):
    """Keypoints at places of the file."""
    xyz = torch.from_numpy(thing.mesh.to_world(np.array(places))).float()
    nothing = torch.zeros(6, len(xyz))
    return Keypoints3D(xyz, torch.tensor(scores), nothing[0], nothing)


def test_each_keypoint_is_at_the_nearest_point_of_the_mesh(thing, tmp_path):
    true = np.array(list(POINTS.values())) * SCALE + SHIFT
    off = np.array([[0, 1.2, 0], [0, 0.6, 0], [0, 0.9, 0], [0, 0, -0.3]])
    points = points_at(thing, true + off, [1.0, 0.5, 0.0, 0.25])
    write_on_mesh(tmp_path, thing.mesh, points, ("keypointnet", "glb"), ("", "top", "", ""), [(1, 3), (0, 2)])
    (model,) = json.loads((tmp_path / "keypointnet.json").read_text())
    assert (model["class_id"], model["model_id"]) == (thing.mesh.kind, "a")
    assert model["symmetries"] == {"reflection": [{"kp_indexes": [1, 2]}], "rotation": []}
    kept = [0, 1, 3]
    assert [one["semantic_id"] for one in model["keypoints"]] == kept
    assert [one["score"] for one in model["keypoints"]] == [1.0, 0.5, 0.25]
    assert [one["name"] for one in model["keypoints"]] == ["keypoint_00", "top", "keypoint_03"]
    assert [one["distance"] for one in model["keypoints"]] == pytest.approx([1.2, 0.6, 0.3], abs=1e-4)
    mesh = chair(SCALE, SHIFT)
    colours = {0: [200, 60, 40], 1: [40, 90, 200], 3: [40, 90, 200]}
    for one, k in zip(model["keypoints"], kept, strict=True):
        assert one["xyz"] == pytest.approx(true[k], abs=1e-4)
        # As KeypointNet's own script reads it: the corners times their shares.
        corners = np.asarray(mesh.triangles)[one["mesh_info"]["face_index"]]
        assert corners.T @ one["mesh_info"]["face_uv"] == pytest.approx(np.array(one["xyz"]))
        assert one["mesh_info"]["vertex_indices"] == mesh.faces[one["mesh_info"]["face_index"]].tolist()
        nearest = np.linalg.norm(corners - one["xyz"], axis=1).argmin()
        assert one["pcd_info"]["point_index"] == one["mesh_info"]["vertex_indices"][nearest]
        assert one["rgb"] == colours[k]
    # It opens again as landmarks: the same points.
    again = read_landmarks(tmp_path / "keypointnet.json")["a"]
    assert again.names == ("semantic 0", "semantic 1", "semantic 3")
    assert again.points.tolist() == [one["xyz"] for one in model["keypoints"]]


def test_the_scene_lies_on_the_file_itself(thing, tmp_path):
    true = np.array(list(POINTS.values())) * SCALE + SHIFT
    write_on_mesh(tmp_path, thing.mesh, points_at(thing, true, [1.0, 1.0, 0.0, 1.0]), ("glb",), ("a", "b", "", ""))
    assert not (tmp_path / "keypointnet.json").exists()
    scene = trimesh.load(tmp_path / "mesh.glb")
    assert set(scene.graph.nodes_geometry) == {"mesh", "a", "b", "keypoint_03"}
    assert scene.geometry["mesh"].bounds == pytest.approx(chair(SCALE, SHIFT).bounds, abs=1e-4)
    for name, k in (("a", 0), ("b", 1), ("keypoint_03", 3)):
        matrix, geometry = scene.graph[name]
        assert matrix[:3, 3] == pytest.approx(true[k], abs=1e-3)
        radius = scene.geometry[geometry].bounding_sphere.primitive.radius
        assert radius == pytest.approx(0.012 * np.linalg.norm(chair().extents) * SCALE, rel=0.2)


def test_without_a_point_there_is_an_empty_list(thing):
    points = points_at(thing, [[5.0, 6, 7]], [0.0])
    assert keypointnet_dict(thing.mesh, points)["keypoints"] == []
