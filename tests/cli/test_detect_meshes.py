"""``keyorbit detect`` and ``evaluate`` on meshes: as on the objects rendered of them, and on their surfaces."""

import json
import shutil

import numpy as np
import pytest
import trimesh
from PIL import Image

from helpers.hostile import answer
from helpers.meshes import POINTS, chair, write_chair, write_keypointnet
from keyorbit.app.calls import EXAMPLES
from keyorbit.cli.inputs import run_and_pictures
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.objects.paths import without_meshes
from keyorbit.synthetic.meshes.views import load_meshes


@pytest.fixture(scope="module")
def run(tmp_path_factory, backend):
    """Three untrained tokens of a small model."""
    folder = tmp_path_factory.mktemp("run")
    untrained(backend, DiscoverConfig(num_tokens=3, num_candidates=3)).save(folder / "tokens.safetensors")
    return folder


def read(path):
    return json.loads(path.read_text())


@pytest.fixture
def small(monkeypatch):
    """Views of 32 pixels: those of `dataset render` take seconds."""
    monkeypatch.setattr("keyorbit.cli.work.several.MESH_SIDE", 32)


def test_a_mesh_is_read_as_the_object_that_would_be_rendered_of_it(small, tmp_path):
    path = write_chair(tmp_path / "cups" / "armchair.ply", 20, (3, 0, 1))
    call = ["detect", EXAMPLES / "tokens.safetensors", "--noises", "1", "--up", "y", "--out"]
    assert answer(*call, tmp_path / "mesh", path).status == 0
    rendered = tmp_path / "armchair"
    assert answer("dataset", "render", path, "--size", "32", "--up", "y", "--out", rendered).status == 0
    assert answer(*call, tmp_path / "object", rendered).status == 0
    found, other = (read(tmp_path / name / "keypoints.json") for name in ("mesh", "object"))
    assert found["photograph"].pop("file") is None
    assert other["photograph"].pop("file") == str(rendered / "cond.png")
    assert found == other
    assert not (tmp_path / "object" / "keypointnet.json").exists()
    (model,) = read(tmp_path / "mesh" / "keypointnet.json")
    assert (model["class_id"], model["model_id"]) == ("cups", "armchair")
    kept = [point for point in found["keypoints"] if point["score"] > 0]
    assert [point["semantic_id"] for point in model["keypoints"]] == [point["index"] for point in kept] != []
    # What is on the mesh is the nearest to what was found, back in the file's axes and unit; and it opens again.
    (placed,) = load_meshes(path, up="y", size=8)
    on = placed.mesh.nearest(np.array([point["xyz"] for point in kept]))
    places = np.array([point["xyz"] for point in model["keypoints"]])
    assert places == pytest.approx(on.places, abs=0.01)
    shutil.copy(tmp_path / "mesh" / "keypointnet.json", path.with_name("armchair.keypoints.json"))
    (opened,) = load_meshes(path, up="y", size=8)
    assert opened.mesh.to_file(opened.truth.keypoints_3d.double().numpy()) == pytest.approx(places, abs=1e-4)


def test_what_stands_for_meshes(chairs, tmp_path):
    for name in ("meshes/a.glb", "meshes/deep/b.PLY", "both/a.obj", "c.stl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("not read here")
    (tmp_path / "both" / "texture.png").write_text("not read here")
    thing = sorted(chairs.iterdir())[0]
    given = [tmp_path / "meshes", thing, tmp_path / "both", tmp_path / "both" / "*.o*", tmp_path / "*.stl", chairs]
    others, meshes = without_meshes(given)
    assert others == [thing, tmp_path / "both", chairs]
    assert meshes == [tmp_path / "meshes", tmp_path / "both" / "a.obj", tmp_path / "c.stl"]
    # Without a run, they are read by the tokens that ship.
    for first in (tmp_path / "c.stl", tmp_path / "meshes"):
        assert run_and_pictures(first, [thing], named=False) == (None, [first, thing])
    for name, stands in (("a.zip", True), ("a.tar.gz", True), ("a.fbx", True), ("a.png", False), ("a.tar", False)):
        assert bool(without_meshes([tmp_path / name])[1]) == stands, name


BAD = {
    "none.glb": (None, "no mesh file at"),
    "empty.ply": (b"", "is an empty file, not a mesh"),
    "cut.glb": (chair().export(file_type="glb")[:300], "cannot be read as a mesh|glb"),
    "text.stl": (b"hello", "cannot be read as a mesh|no triangles"),
    "points.ply": (trimesh.PointCloud(np.eye(3)).export(file_type="ply"), "holds no triangles"),
    "points.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "cannot be read|no triangles"),
    "nan.obj": (b"v 0 0 0\nv 1 nan 0\nv 0 1 0\nf 1 2 3\n", "coordinate nan; it must be finite"),
    "flat.off": (b"OFF\n3 1 0\n0 0 0\n0 0 0\n0 0 0\n3 0 1 2\n", "has an extent of 0"),
    "index.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "index.obj"),
    "scene.fbx": (b"Kaydara FBX Binary", "one of the suffixes .glb, .gltf, .obj, .off, .ply or .stl"),
    "broken.zip": (b"PK", "it is damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_mesh_is_told_in_a_sentence_and_nothing_is_written(name, run, tmp_path):
    content, words = BAD[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    calls = [["detect", run, tmp_path / name, "--out", tmp_path / "out"]]
    if name in ("none.glb", "points.ply"):
        calls.append(["evaluate", run, tmp_path / name, "--json", tmp_path / "out"])
    for call in calls:
        said = answer(*call)
        assert said.sentence, (said.said, said.escaped)
        assert name in said.said
        assert any(one in said.said for one in words.split("|")), said.said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["@.ply", "--mask", "@.png"], "--mask is for pictures: meshes are rendered without a background"),
        (["@.ply", "--views", "@", "--cameras", "@.json"], "is a mesh: leave one out"),
        (["@.ply", "--up", "w"], "--up is auto or x or y or z"),
        (["@/*.glb"], "nothing matches"),
        (["@/nothing"], "holds no object folders (with meta.json) and no pictures"),
    ],
)
def test_options_that_do_not_go_with_meshes(words, said, run, tmp_path):
    write_chair(tmp_path / "a.ply")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a" / "nothing").mkdir(parents=True)
    told = answer("detect", run, *(word.replace("@", str(tmp_path / "a")) for word in words), "--out", tmp_path / "out")
    assert told.sentence, told.said
    assert said in told.said
    assert not (tmp_path / "out").exists()


def test_a_run_is_evaluated_on_meshes_with_landmarks_beside_them(run, small, tmp_path):
    scales = {"a": 1.0, "b": 40.0, "c": 0.2}
    for name, scale in scales.items():
        write_chair(tmp_path / "in" / f"{name}.ply", scale)
    told = {n: {k: (np.array(p) * s).tolist() for k, p in enumerate(POINTS.values())} for n, s in scales.items()}
    write_keypointnet(tmp_path / "in.keypoints.json", {name: told[name] for name in "ab"})
    call = ["evaluate", run, tmp_path / "in", "--up", "y", "--json", tmp_path / "scores.json", "--no-baseline"]
    assert answer(*call).status == 0
    scores = read(tmp_path / "scores.json")["discovered"]
    assert [row["name"] for row in scores["objects"]] == ["a", "b"]
    curves = scores["keypointnet"]
    assert curves["thresholds"] == pytest.approx([0.01 * i for i in range(1, 11)])
    for name in ("iou", "pck", "map"):
        # More is near within more; and the same number is in both places.
        assert all(a <= b for a, b in zip(curves[name], curves[name][1:], strict=False))
        assert curves[name][-1] == scores["measures"][f"keypointnet_mesh_{name}_0.1"]
    # Meshes of which nothing is known are measured without a truth.
    (tmp_path / "in.keypoints.json").unlink()
    assert answer(*call[:-3], "--limit", "1", *call[-3:]).status == 0
    assert "keypointnet" not in read(tmp_path / "scores.json")["discovered"]
