"""Which way up a mesh stands: as it is told, as its format has it, or as its shape tells."""

import json
import zipfile

import numpy as np
import pytest
import trimesh

from keyorbit.errors import InputError
from keyorbit.synthetic.meshes.surface import load_mesh
from keyorbit.synthetic.meshes.upright import upward_axis, upward_evidence
from keyorbit.synthetic.objects import make_object
from keyorbit.synthetic.render import object_surface

# A tower on a wide foot, z up, with a nose at +x.
TOWER = trimesh.util.concatenate(
    [
        trimesh.creation.box((1, 1, 0.1), trimesh.transformations.translation_matrix((0, 0, 0.05))),
        trimesh.creation.box((0.2, 0.2, 1.4), trimesh.transformations.translation_matrix((0, 0, 0.8))),
        trimesh.creation.box((0.6, 0.1, 0.1), trimesh.transformations.translation_matrix((0.3, 0, 1.3))),
    ]
)
# What z becomes in files with other axes upward; the nose as our world has it.
TURNS = {
    "x": ((0, 0, 1), (1, 0, 0), (0, 1, 0)),
    "y": ((0, 1, 0), (0, 0, 1), (1, 0, 0)),
    "z": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "-x": ((0, 0, -1), (1, 0, 0), (0, -1, 0)),
    "-y": ((0, -1, 0), (0, 0, -1), (1, 0, 0)),
    "-z": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
}


def turned(mesh, up):
    return trimesh.Trimesh(mesh.vertices @ np.array(TURNS[up], float).T, mesh.faces, process=False)


@pytest.mark.parametrize("up", TURNS)
def test_every_axis_can_be_the_upward_one(up, tmp_path):
    turned(TOWER, up).export(tmp_path / "a.ply")
    straight = load_mesh(tmp_path / "a.ply", up)
    assert not straight.judged
    assert np.linalg.det(straight.rotation) == pytest.approx(1)
    size = np.ptp(TOWER.vertices, axis=0) * straight.scale
    np.testing.assert_allclose(np.ptp(straight.surface.mesh.vertices, axis=0), size, atol=1e-6)
    # The foot is below, and the nose in front.
    vertices = straight.surface.mesh.vertices
    low = vertices[vertices[:, 2] < vertices[:, 2].min() + 1e-6]
    np.testing.assert_allclose(np.ptp(low[:, :2], axis=0), np.ones(2) * straight.scale, atol=1e-6)
    high = vertices[vertices[:, 2] > 0.25]
    assert high[:, 0].max() > 0.2 > -high[:, 0].min()
    np.testing.assert_allclose(straight.placed(turned(TOWER, up).vertices), vertices, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "up", "judged"),
    [("a.glb", "y", False), ("a.obj", "z", True), ("a.stl", "z", True), ("a.off", "z", True), ("a.zip", "y", False)],
)
def test_a_format_tells_or_the_shape_does(name, up, judged, tmp_path):
    """All of them stand along z, which glTF does not have."""
    if name == "a.zip":
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            file.writestr("in/b.glb", TOWER.export(file_type="glb"))
    else:
        TOWER.export(tmp_path / name)
    found = load_mesh(tmp_path / name)
    assert (found.up, found.judged) == (up, judged)


def test_shapes_are_judged_right():
    """Objects of our own, whose format would not tell; each as y up and as z up."""
    right = []
    for kind in ("chair", "table", "lamp", "mug", "car", "animal", "person"):
        for seed in range(2):
            mesh = object_surface(make_object(kind, seed)).mesh
            for up in ("y", "z"):
                one = turned(mesh, up)
                right.append(upward_axis(upward_evidence(one.vertices, one.faces)) == up)
    assert np.mean(right) > 0.9


def test_formats_have_habits():
    ball = trimesh.creation.icosphere()
    for suffix, up in {"": "y", ".obj": "y", ".STL": "z"}.items():
        assert upward_axis(upward_evidence(ball.vertices[:, [0, 1, 1]] * 0, ball.faces, suffix)) == up


def test_a_collada_file_tells_its_axis(tmp_path):
    pytest.importorskip("collada")
    for axis in ("Y", "Z"):
        path = tmp_path / f"{axis}.dae"
        path.write_bytes(TOWER.export(file_type="dae").replace(b"Y_UP", f"{axis}_UP".encode()))
        assert (load_mesh(path).up, load_mesh(path).judged) == (axis.lower(), False)


def test_a_format_whose_library_is_missing_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(trimesh, "available_formats", lambda: {"obj"})
    for name, words in {"a.dae": "pip install pycollada", "a.3mf": "pip install lxml networkx"}.items():
        (tmp_path / name).write_text("<COLLADA/>")
        with pytest.raises(InputError, match=words):
            load_mesh(tmp_path / name)


def test_landmarks_beside_a_mesh_tell_its_axis(tmp_path):
    from keyorbit.synthetic.dataset import render_mesh

    TOWER.export(tmp_path / "a.obj")
    nose = [0.6, 0, 1.3]
    told = {"up": "z", "keypoints": {"a": {"nose": nose, "left": None}, "b": {"left": [0, 0, 0], "right": [0, 0, 1]}}}
    (tmp_path / "a.keypoints.json").write_text(json.dumps(told))
    render_mesh(tmp_path / "a.obj", tmp_path / "out", 32, azimuth_deg=90.0)
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert meta["up"] == "z"
    assert meta["keypoint_names"] == ["nose", "left", "right"]
    assert meta["known"] == [True, False, False]
    assert meta["pairs"] == [[1, 2]]
    low, high = TOWER.bounds
    middle, scale = (low + high) / 2, 0.5 / np.linalg.norm(TOWER.vertices - (low + high) / 2, axis=1).max()
    x, y, z = (nose - middle) * scale
    np.testing.assert_allclose(meta["keypoints_3d"][0], [y, -x, z], atol=1e-6)  # seen from the left
    assert [flags[0] for flags in meta["visible"]].count(True) >= 4
    # The input camera looks along −x at a distance that shows the whole sphere; the nose points to the left of it.
    assert meta["keypoints_2d"][0][0][0] < 0.5
