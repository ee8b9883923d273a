"""``keyorbit dataset render``: one mesh, many, folders and patterns."""

import json

import pytest
import trimesh

from helpers.hostile import answer
from keyorbit.errors import InputError
from keyorbit.objects.paths import mesh_names, mesh_paths
from keyorbit.synthetic.meshes.jobs import MeshView
from keyorbit.synthetic.meshes.objects import render_meshes
from keyorbit.synthetic.meshes.plan import planned


@pytest.fixture
def folder(tmp_path):
    """Two meshes of one name in two folders, another one, and one that is broken."""
    box = trimesh.creation.box((1, 2, 1))
    for name in ("cars/a.glb", "cars/deep/b.ply", "planes/a.glb"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        box.export(tmp_path / "in" / name)
    (tmp_path / "in" / "cars" / "broken.obj").write_text("v 0 0 0\nf 1 2 3\n")
    (tmp_path / "in" / "cars" / "._a.glb").write_bytes(b"hidden")
    (tmp_path / "in" / "read me.txt").write_text("text")
    return tmp_path / "in"


def names_in(out):
    return sorted(path.parent.name for path in out.glob("*/meta.json"))


def test_a_folder_becomes_an_object_for_each_mesh(folder, tmp_path, capsys):
    out = tmp_path / "out"
    found = answer("dataset", "render", folder, "--out", out, "--size", 8)
    assert found.sentence
    assert "1 of 4 meshes are left out" in found.said
    assert "broken.obj" in found.said
    assert names_in(out) == ["b", "in_cars_a", "in_planes_a"]
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*")}
    (out / "b" / "meta.json").unlink()  # as if it had been interrupted there
    for path in (out / "b").iterdir():
        path.unlink()
    (folder / "cars" / "broken.obj").unlink()
    assert answer("dataset", "render", folder, "--out", out, "--size", 8).status == 0
    after = {path: path.stat().st_mtime_ns for path in out.glob("*/*")}
    assert {path for path in before if before[path] == after[path]} == {p for p in before if p.parent.name != "b"}
    other = answer("dataset", "render", folder, "--out", out, "--size", 16)
    assert other.sentence
    assert "seen otherwise: replace it (--overwrite)" in other.said
    assert answer("dataset", "render", folder, "--out", out, "--size", 16, "--overwrite").status == 0


def test_strict_stops_at_the_first_that_is_wrong(folder, tmp_path):
    out = tmp_path / "out"
    found = answer("dataset", "render", folder, "--out", out, "--size", 8, "--strict")
    assert found.sentence
    assert "broken.obj" in found.said
    assert "what was finished is kept" in found.said
    assert "in_planes_a" not in names_in(out)


def test_landmarks_that_came_later_are_told(folder, tmp_path):
    out, told = tmp_path / "out", folder / "cars.keypoints.json"
    call = ("dataset", "render", folder / "cars" / "a.glb", folder / "planes", "--out", out, "--size", 8)
    assert answer(*call).status == 0
    told.write_text('{"keypoints": {"a": {"top": [0, 1, 0]}}}')
    later = answer(*call)
    assert later.sentence
    assert "holds the object with other landmarks: replace it (--overwrite)" in later.said
    assert answer(*call, "--overwrite").status == answer(*call).status == 0
    told.write_text('{"keypoints": {"a": {"top": [0, 0.9, 0]}}}')
    assert answer(*call).sentence
    path = out / "cars_a" / "meta.json"
    meta = json.loads(path.read_text())
    del meta["landmarks_sha256"]  # as folders of before it was kept
    path.write_text(json.dumps(meta))
    jobs = planned(mesh_paths([folder / "cars" / "a.glb"]), [path.parent], MeshView(8))
    assert [one.there for one in render_meshes(jobs)] == [True]


def test_one_file_is_one_object(folder, tmp_path):
    assert answer("dataset", "render", folder / "cars" / "a.glb", "--out", tmp_path / "out", "--size", 8).status == 0
    assert (tmp_path / "out" / "meta.json").is_file()
    again = answer("dataset", "render", folder / "cars" / "a.glb", "--out", tmp_path / "out", "--size", 8)
    assert again.sentence
    assert "--overwrite" in again.said


def test_what_names_no_mesh_is_refused_before_anything_is_written(folder, tmp_path):
    (folder / "other.json").write_text('{"keypoints": {"nobody": {"head": [0, 0, 0]}}}')
    for words, said in {
        ("gone.glb",): "no mesh file at",
        ("read me.txt",): "suffixes .glb",
        ("*.stl",): "nothing matches",
        ("cars", "gone.glb"): "no mesh file at",
        ("cars", "--landmarks", folder / "gone.json"): "there is no file",
        ("cars", "--up", "w"): "--up is auto or x or y",
        ("cars", "--landmarks", "other.json"): "has landmarks of none of the meshes",
    }.items():
        given = [word if str(word).startswith("--") or word in ("w",) else folder / word for word in words]
        found = answer("dataset", "render", *given, "--out", tmp_path / "out", "--size", 8)
        assert found.sentence, words
        assert said in found.said
        assert not (tmp_path / "out").exists()


def test_patterns_and_doubled_files(folder):
    found = mesh_paths([folder / "*" / "a.glb", folder / "cars" / "a.glb", folder / "cars" / "deep"])
    assert [path.relative_to(folder).as_posix() for path, _ in found] == [
        "cars/a.glb",
        "planes/a.glb",
        "cars/deep/b.ply",
    ]
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="holds no mesh files"):
        mesh_paths([folder / "e*"])


def test_names_are_kept_apart_by_folder_and_kind(tmp_path):
    meshes = [("x/1/m.obj", "x"), ("x/2/m.obj", "x"), ("x/2/m.stl", "x"), ("x/n.obj", "x")]
    found = mesh_names([(tmp_path / mesh, tmp_path / folder) for mesh, folder in meshes])
    assert found == ["x_1_m", "x_2_m_obj", "x_2_m_stl", "n"]


def test_files_of_one_kind_stand_alike(tmp_path):
    """Two of three were drawn with z up; the third would be judged otherwise, had it come alone."""
    foot = trimesh.creation.box((1, 1, 0.1), trimesh.transformations.translation_matrix((0, 0, 0.05)))
    mast = trimesh.util.concatenate([foot, trimesh.creation.box((0.1, 0.1, 2)).apply_translation((0, 0, 1))])
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        mast.export(tmp_path / "in" / f"{name}.ply")
    lying = trimesh.Trimesh(mast.vertices[:, [1, 2, 0]], mast.faces, process=False)
    lying.export(tmp_path / "in" / "lying.ply")
    for given, up in (("in", "z"), ("in/lying.ply", "y")):
        out = tmp_path / up
        assert answer("dataset", "render", tmp_path / given, "--out", out, "--size", 8).status == 0
        place = out / "lying" if given == "in" else out
        assert json.loads((place / "meta.json").read_text())["up"] == up
