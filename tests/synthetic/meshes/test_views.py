"""Meshes as objects in memory: what their folders would hold, and the mesh in the numbers of its file."""

import json
from dataclasses import fields

import numpy as np
import pytest
import torch
import trimesh

from helpers.meshes import POINTS, chair, write_chair, write_keypointnet, write_painted_obj
from keyorbit.errors import InputError
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.objects.dataset import load_dataset
from keyorbit.synthetic.dataset import render_mesh
from keyorbit.synthetic.meshes.views import load_meshes


def same(first, second):
    """Whether two values are the same to the last bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    parts = getattr(first, "__dataclass_fields__", None)
    if parts is None:
        return first == second
    return all(same(getattr(first, name), getattr(second, name)) for name in parts)


@pytest.mark.parametrize("name", ["chair.glb", "chair.ply"])
def test_it_is_what_the_object_folder_would_be(name, tmp_path):
    path = write_chair(tmp_path / "in" / name, 30, (5, 6, 7))
    (tmp_path / "in" / "chair.keypoints.json").write_text(json.dumps({"keypoints": {"top": [5, 36, -5], "arm": None}}))
    render_mesh(path, tmp_path / "chair", 24)
    (read,), (thing,) = load_dataset(tmp_path / "chair"), load_meshes(path, size=24)
    for field in fields(read):
        if field.name not in ("mesh", "input_image", "source"):
            assert same(getattr(thing, field.name), getattr(read, field.name)), field.name
    assert np.array_equal(thing.input_image, read.input_image)
    assert thing.truth.known.tolist() == [True, False]
    assert read.mesh is None
    # Its mesh is where the object is.
    there = thing.mesh.to_world(np.array([[5.0, 36, -5]]))
    assert there == pytest.approx(thing.truth.keypoints_3d[:1].numpy(), abs=1e-6)
    assert thing.mesh.to_file(there) == pytest.approx(np.array([[5.0, 36, -5]]))
    assert np.linalg.norm(thing.mesh.to_world(thing.mesh.vertices), axis=1).max() == pytest.approx(0.5)


def test_it_is_rendered_at_any_cameras(tmp_path):
    path, cameras = write_chair(tmp_path / "chair.off"), zero123plus_cameras("v1.1").select([0, 3])
    (thing,) = load_meshes(path, cameras, "y", 16)
    assert thing.views.shape == (2, 3, 16, 16)
    assert torch.equal(thing.cameras.world_to_camera, cameras.world_to_camera)
    # In the picture where the cameras see it.
    places = cameras.project(torch.from_numpy(thing.mesh.to_world(thing.mesh.vertices)).float())
    rows, columns = thing.masks[0].any(1).nonzero()[:, 0], thing.masks[0].any(0).nonzero()[:, 0]
    for axis, covered in ((1, rows), (0, columns)):
        assert covered.min() / 16 == pytest.approx(float(places[0, :, axis].min()), abs=1 / 16)
        assert covered.max() / 16 + 1 / 16 == pytest.approx(float(places[0, :, axis].max()), abs=1 / 16)


def test_vertices_and_faces_have_the_numbers_of_the_file(tmp_path):
    path, faces = write_painted_obj(tmp_path / "chair.obj")
    (thing,) = load_meshes(path, up="y", size=8)
    assert thing.mesh.vertices == pytest.approx(chair().vertices)
    assert thing.mesh.faces.tolist() == faces.tolist()
    # Colours are those of the faces, though reading materials has put these in another order.
    on = thing.mesh.nearest(thing.mesh.to_world(chair().triangles_center))
    paints = [(255, 0, 0), (0, 0, 255), (255, 0, 0), (0, 255, 0)]
    assert thing.mesh.colours(on.places).tolist() == [list(paints[face % 4]) for face in on.face]
    assert on.distance == pytest.approx(0, abs=1e-9)
    for name in ("chair.ply", "chair.off"):
        write_chair(tmp_path / name)
        (thing,) = load_meshes(tmp_path / name, up="y", size=8)
        assert thing.mesh.faces.tolist() == faces.tolist(), name


@pytest.mark.parametrize(
    ("text", "faces"),
    [
        ("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 1 # far\nf -4 -3 -2 -1 # all\n", [[0, 1, 2], [0, 2, 3]]),
        ("v 0 0 0\nv 1 0 0\nv 9 9 9\nv 1 1 0\nv 0 1 1\nf 1//1 2//1 \\\n 4//1\r\nf 1 4 5\n", [[0, 1, 3], [0, 3, 4]]),
        ("\ufeffv 0 0 0\nv 1 0 0 1 0 0\nv 1 1 0\nv 0 1 1\nf 1 2 3\nf 3 4 1\n", [[0, 1, 2], [2, 3, 0]]),
    ],
)
def test_obj_faces_are_numbered_whatever_their_form(text, faces, tmp_path):
    (tmp_path / "a.obj").write_text(text)
    (thing,) = load_meshes(tmp_path / "a.obj", up="y", size=8)
    assert thing.mesh.faces.tolist() == faces


def test_data_sets_of_shapenet_name_models_by_folders(tmp_path):
    write_chair(tmp_path / "03001627" / "1a2b" / "models" / "model_normalized.ply")
    write_chair(tmp_path / "cups" / "a.ply")
    found = [(thing.mesh.kind, thing.mesh.model) for thing in load_meshes(tmp_path, up="y", size=8)]
    assert found == [("03001627", "1a2b"), ("cups", "a")]


def test_all_meshes_get_the_landmarks_of_all(tmp_path, caplog):
    for name in "abc":
        write_chair(tmp_path / f"{name}.ply")
    top, arm, seat = (POINTS[name] for name in ("top", "arm", "seat"))
    write_keypointnet(tmp_path / "a.keypoints.json", {"a": {10: top, 2: arm}})
    write_keypointnet(tmp_path / "b.keypoints.json", {"b": {2: arm, 0: seat}})
    every = list(load_meshes(tmp_path, up="y", size=8))
    assert [thing.truth is None for thing in every] == [False, False, True]
    told = load_meshes(tmp_path, up="y", size=8, landmarked=True)
    assert "no landmarks are known of c: left out" in caplog.text
    assert [thing.name for thing in told] == ["a", "b"]
    for thing, known in zip(told, ([False, True, True], [True, True, False]), strict=True):
        assert thing.truth.names == ("semantic 0", "semantic 2", "semantic 10")
        assert thing.truth.known.tolist() == known
        places = thing.mesh.to_file(thing.truth.keypoints_3d.numpy())[known]
        assert places == pytest.approx(np.array([seat, arm, top])[known], abs=1e-6)


def test_what_is_no_mesh_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no mesh file at"):
        load_meshes(tmp_path / "none.glb")
    (tmp_path / "points.ply").write_bytes(trimesh.PointCloud(np.eye(3)).export(file_type="ply"))
    with pytest.raises(InputError, match="holds no triangles"):
        load_meshes(tmp_path / "points.ply")[0]
