"""Files for other tools hold the keypoints that were given, by name, colour and place."""

import csv
import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from helpers.worlds import seen_by
from keyorbit.detection.confidence import Confidence
from keyorbit.detection.found import Detection
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.geometry.keypoints import Keypoints2D
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.output.choices import FORMATS, parse_formats, parse_skeleton
from keyorbit.output.coco import coco_dict
from keyorbit.output.formats import keypoints_dict, write_csv
from keyorbit.output.palette import palette
from keyorbit.output.pictured import Pictured
from keyorbit.output.plotting import draw_keypoints, save_figure
from keyorbit.output.write import find_skeleton, write_detection, write_detections
from keyorbit.storage.files import write_json
from keyorbit.storage.outputs import MARKER


@pytest.fixture
def found():
    """Keypoints at known places of space, seen by the six cameras; the last has no score."""
    cameras = zero123plus_cameras("v1.2")
    xyz = torch.tensor([[0.1, 0.2, 0.3], [-0.2, 0.0, 0.1], [0.0, -0.1, -0.2]])
    score = torch.ones(6, 3)
    score[:, 2] = 0
    flat = Keypoints2D(cameras.project(xyz), score, cameras)
    return xyz, flat, flat.triangulate()


def test_json_says_everything_and_can_be_read_back(found, tmp_path):
    xyz, flat, points = found
    names = [f"view_{i}" for i in range(6)]
    write_json(tmp_path / "k.json", keypoints_dict("thing", flat, points, names, pairs=((0, 1),)))
    read = json.loads((tmp_path / "k.json").read_text())
    assert read["object"] == "thing"
    np.testing.assert_allclose([k["xyz"] for k in read["keypoints"][:2]], xyz[:2], atol=1e-4)
    np.testing.assert_allclose(read["views"][3]["xy"], flat.xy[3], atol=1e-5)
    assert read["input"] is None
    assert (read["confidence"], read["withheld"]) == (None, [])
    assert [k["name"] for k in read["keypoints"]] == ["keypoint_00", "keypoint_01", "keypoint_02"]
    assert [k["color"] for k in read["keypoints"]] == palette(3)
    np.testing.assert_allclose(read["keypoints"][0]["covariance"], points.covariance[0], rtol=1e-5)
    assert [view["visible"] for view in read["views"]] == points.visible.tolist()
    assert read["pairs"] == [[0, 1]]
    np.testing.assert_allclose(read["cameras"]["world_to_camera"], flat.cameras.world_to_camera, atol=1e-5)


def test_json_tells_how_far_to_trust_each_keypoint_and_which_are_withheld(found):
    _, flat, points = found
    trust, names = Confidence(0.9, torch.tensor([0.9, 0.25, 0.5])), [f"view_{i}" for i in range(6)]
    told = keypoints_dict("thing", flat, points, names, confidence=trust, withheld=(1,))
    assert [k["confidence"] for k in told["keypoints"]] == [0.9, 0.25, 0.5]
    assert told["confidence"] == {"known": 0.9, "verdict": "known", "words": trust.words}
    assert told["withheld"] == [1]


def test_json_refuses_what_is_not_finite_and_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "k.json", {"a": 1})
    with pytest.raises(InputError, match="not finite"):
        write_json(tmp_path / "k.json", {"a": float("nan")})
    assert json.loads((tmp_path / "k.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["k.json"]


def test_coco_counts_pixels_from_the_corner():
    xy = torch.tensor([[0.25, 0.5], [0.75, 0.125], [0.9, 0.9]])
    coco = coco_dict([Pictured.detected("a.png", 80, 40, xy, torch.tensor([1.0, 0.5, 0.0]))], 3)
    (annotation,) = coco["annotations"]
    assert annotation["keypoints"] == [20.0, 20.0, 2, 60.0, 5.0, 2, 0, 0, 0]
    assert annotation["num_keypoints"] == 2
    assert annotation["bbox"] == [20.0, 5.0, 40.0, 15.0]
    assert annotation["area"] == 600.0
    assert coco["images"] == [{"id": 1, "file_name": "a.png", "width": 80, "height": 40}]
    assert coco["categories"][0]["keypoints"] == ["keypoint_00", "keypoint_01", "keypoint_02"]
    assert annotation["score"] == 0.75


@pytest.mark.parametrize(
    ("xy", "box"),
    [
        ([[0.5, 0.5]], [39.5, 19.5, 1, 1]),
        ([[0.0, 1.0]], [0, 39, 1, 1]),
        ([[0.25, 0.5], [0.75, 0.5]], [20, 19.5, 40, 1]),
        ([[0.0, 0.0], [1.0, 1.0]], [0, 0, 80, 40]),
    ],
)
def test_coco_has_no_empty_box(xy, box):
    silent = Pictured.detected("b.png", 80, 40, torch.tensor(xy), torch.zeros(len(xy)))
    coco = coco_dict([silent, replace(silent, file="a.png", score=silent.score + 1, found=~silent.found)], len(xy))
    (annotation,) = coco["annotations"]
    assert [image["file_name"] for image in coco["images"]] == ["b.png", "a.png"]
    assert (annotation["id"], annotation["image_id"], annotation["segmentation"]) == (2, 2, [])
    assert (annotation["bbox"], annotation["area"]) == (box, box[2] * box[3])


def test_coco_has_every_part_of_a_keypoint_file():
    """What pycocotools and COCO's data format page ask of a file with keypoints."""
    items = [Pictured.detected(f"{i}.png", 64, 48, torch.rand(5, 2), torch.rand(5)) for i in range(3)]
    coco = json.loads(json.dumps(coco_dict(items, 5, skeleton=[(0, 4), (2, 3)])))
    assert set(coco) == {"info", "licenses", "images", "annotations", "categories"}
    (category,) = coco["categories"]
    assert category.keys() >= {"id", "name", "supercategory", "keypoints", "skeleton"}
    assert category["keypoints"] == [f"keypoint_{k:02d}" for k in range(5)]
    assert category["skeleton"] == [[1, 5], [3, 4]]
    assert category["keypoint_colors"] == palette(5)
    images = {image["id"]: image for image in coco["images"]}
    assert len(images) == len({annotation["id"] for annotation in coco["annotations"]}) == 3
    for annotation in coco["annotations"]:
        image = images[annotation["image_id"]]
        assert annotation["category_id"] == category["id"]
        triples = np.reshape(annotation["keypoints"], (5, 3))
        labelled = triples[triples[:, 2] > 0]
        assert set(triples[:, 2]) <= {0, 1, 2}
        assert (triples[triples[:, 2] == 0] == 0).all()
        assert annotation["num_keypoints"] == len(labelled)
        x, y, width, height = annotation["bbox"]
        assert 0 <= x <= x + width <= image["width"]
        assert 0 <= y <= y + height <= image["height"]
        assert (labelled[:, :2] >= np.array([x, y]) - 1e-3).all()
        assert (labelled[:, :2] <= np.array([x + width, y + height]) + 2e-3).all()
        assert annotation["area"] == pytest.approx(width * height, abs=0.2)
        assert annotation["iscrowd"] == 0
        assert 0 <= annotation["score"] <= 1
    with pytest.raises(InputError, match="0-5"):
        coco_dict(items, 5, skeleton=[(0, 5)])


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_row_for_each_view_and_keypoint(found, tmp_path):
    _, flat, points = found
    flat = Keypoints2D(flat.xy, flat.score, flat.cameras, torch.rand(3, 2), torch.rand(3))
    names = [f"view_{i}" for i in range(6)]
    write_csv(tmp_path, 'chair, "old"', flat, points, names)
    rows = read_csv(tmp_path / "keypoints_2d.csv")
    assert list(rows[0]) == ["object", "view", "keypoint", "x", "y", "score"]
    assert [(row["view"], row["keypoint"]) for row in rows] == [
        (v, str(k)) for v in ["input", *names] for k in range(3)
    ]
    assert {row["object"] for row in rows} == {'chair, "old"'}
    xy = np.array([[float(row["x"]), float(row["y"])] for row in rows]).reshape(7, 3, 2)
    np.testing.assert_allclose(xy, torch.cat([flat.input_xy[None], flat.xy]), atol=1e-6)
    rows = read_csv(tmp_path / "keypoints_3d.csv")
    assert list(rows[0]) == ["object", "keypoint", "x", "y", "z", "score", "reprojection_error"]
    np.testing.assert_allclose([[float(row[c]) for c in "xyz"] for row in rows], points.xyz, atol=1e-6)
    np.testing.assert_allclose([float(row["score"]) for row in rows], points.score, atol=1e-6)
    np.testing.assert_allclose([float(r["reprojection_error"]) for r in rows], points.reprojection_error, atol=1e-6)


def test_csv_of_a_single_view_has_no_3d(found, tmp_path):
    _, flat, _ = found
    write_csv(tmp_path, "a", Keypoints2D(flat.xy[:1], flat.score[:1]), None, ["view_0"])
    assert [path.name for path in tmp_path.iterdir()] == ["keypoints_2d.csv"]


@pytest.fixture
def detection(found):
    _, flat, points = found
    flat = Keypoints2D(flat.xy, flat.score, flat.cameras, torch.rand(3, 2), torch.ones(3))
    grey = Image.new("RGB", (20, 24), "grey")
    return Detection(
        "thing", grey, torch.rand(6, 3, 16, 16), torch.ones(6, 16, 16) > 0, torch.rand(6, 3, 8, 8), flat, points
    )


PICTURES = {"overlay.png", "input.png", *(f"view_{i}.png" for i in range(6))}
FILES = {
    "json": {"keypoints.json"},
    "coco": {"coco.json"},
    "glb": {"points.glb"},
    "ply": {"points.ply"},
    "colmap": {"colmap"},
    "csv": {"keypoints_2d.csv", "keypoints_3d.csv"},
    "rrd": {"keypoints.rrd"},
    "cvat": {"cvat.xml", "cvat_labels.json"},
    "labelstudio": {"label_studio.json", "label_studio.xml"},
    "keypointnet": set(),  # of an object that was rendered from a mesh: tests/output/test_on_mesh.py
}


@pytest.fixture
def rerun():
    return pytest.importorskip("rerun", reason="rerun is an extra: pip install 'keyorbit[rerun]'")


@pytest.mark.usefixtures("rerun")
@pytest.mark.parametrize("name", FORMATS)
def test_each_format_brings_its_files(name, detection, tmp_path):
    write_detection(tmp_path / "new" / "out", detection, [name], [(0, 1)])
    assert {path.name for path in (tmp_path / "new" / "out").iterdir()} == PICTURES | FILES[name] | {MARKER}
    colmap = tmp_path / "new" / "out" / "colmap"
    if name == "colmap":
        assert {path.name for path in colmap.iterdir()} == {"cameras.txt", "images.txt", "points3D.txt"}


@pytest.mark.usefixtures("rerun")
def test_a_second_detection_leaves_no_file_of_the_first(detection, tmp_path):
    out = tmp_path / "out"
    write_detection(out, detection, FORMATS)
    write_detection(out, replace(detection, name="other"), ["json"], overwrite=True)
    assert {path.name for path in out.iterdir()} == PICTURES | FILES["json"] | {MARKER}
    assert json.loads((out / "keypoints.json").read_text())["object"] == "other"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_several_detections_have_a_folder_each_and_go_together(detection, tmp_path):
    both = [detection, replace(detection, name="Thing")]
    assert write_detections(tmp_path / "out", both, ["csv"]) == [tmp_path / "out" / n for n in ("thing", "Thing_2")]
    for name, said in (("thing", "thing"), ("Thing_2", "Thing")):
        folder = tmp_path / "out" / name
        assert {path.name for path in folder.iterdir()} == PICTURES | FILES["csv"]
        assert read_csv(folder / "keypoints_2d.csv")[0]["object"] == said
    assert write_detections(tmp_path / "out", both[:1], ["csv"], overwrite=True) == [tmp_path / "out"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == PICTURES | FILES["csv"] | {MARKER}


def test_results_can_go_where_one_stands(detection, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_detection(Path(), detection, ["json"])
    assert (tmp_path / "here" / "keypoints.json").is_file()


def test_a_full_disk_leaves_nothing_behind(detection, tmp_path, monkeypatch):
    """The disk is full after so many files: JSON, CSV (2), GLB, PLY, COLMAP (3), pictures, COCO."""
    left = [0]

    def fsync(_):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    def refused(writes=0):
        for folder in (kept, tmp_path / "new" / "out"):
            left[0] = writes
            with pytest.raises(InputError, match="No space left"):
                write_detection(folder, detection, FORMATS, overwrite=True)
        assert {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == before
        assert [path.name for path in tmp_path.iterdir()] == ["kept"]

    kept = tmp_path / "kept"
    write_detection(kept, detection, FORMATS)
    before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        for writes in range(9):
            refused(writes)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    for owner, name in ((Image.Image, "save"), (Figure, "savefig"), (Path, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            refused()


def test_words_become_formats_and_edges():
    assert parse_formats("json, PLY") == ("json", "ply")
    for bad in ("json,obj", "", ","):
        with pytest.raises(InputError, match="json, coco, glb, ply, colmap, csv, rrd"):
            parse_formats(bad)
    assert parse_skeleton("0-3, 3-5") == [(0, 3), (3, 5)]
    assert parse_skeleton("") == []
    assert parse_skeleton("auto") is None
    for bad in ("0", "0-1-2", "a-b", "0:1"):
        with pytest.raises(InputError, match="0-3,3-5"):
            parse_skeleton(bad)


def test_the_skeleton_of_detections_leaves_out_what_has_no_score(detection):
    assert find_skeleton([detection, detection]) == [(0, 1)]


def test_a_figure_is_saved_or_the_file_that_cannot_be_is_named(tmp_path):
    figure = draw_keypoints([np.zeros((16, 24, 3), np.uint8)], [torch.rand(2, 2)], [torch.rand(2)])
    save_figure(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0
    with pytest.raises(InputError, match="cannot write"):
        save_figure(figure, tmp_path / "none" / "a.png")


def test_crosses_are_drawn_on_the_first_picture_only():
    pictures = [np.zeros((16, 16, 3), np.uint8)] * 2
    crosses = torch.tensor([[0.25, 0.75], [0.5, 0.125]])
    figure = draw_keypoints(pictures, [torch.rand(2, 2)] * 2, crosses=crosses)
    drawn = [[line.get_xydata()[0].tolist() for line in axes.lines if line.get_marker() == "x"] for axes in figure.axes]
    assert drawn == [crosses.tolist(), []]


def test_json_holds_the_camera_of_the_input_picture(tmp_path):
    views = zero123plus_cameras("v1.2")
    xyz = 0.5 * torch.rand(8, 3, generator=torch.Generator().manual_seed(0)) - 0.25
    camera = orbit_cameras(0.0, 35.0)
    flat = Keypoints2D(views.project(xyz), torch.ones(6, 8), views, camera.project(xyz)[0], torch.ones(8))
    points = flat.triangulate()
    found = seen_by(flat, points)
    write_json(
        tmp_path / "k.json", keypoints_dict("thing", flat, points, [f"view_{i}" for i in range(6)], input_camera=found)
    )
    read = json.loads((tmp_path / "k.json").read_text())["input_camera"]
    assert read["elevation_deg"] == pytest.approx(35.0, abs=0.1)
    np.testing.assert_allclose(read["world_to_camera"], camera.world_to_camera[0], atol=1e-2)
    assert max(read["residual"]) < 1e-3


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        *((name, f"'{name}") for name in ("=1+1", "+1", "-1", "@a", "＝1", "－1")),
        *((name, name) for name in ("a-1", "1=1", " =1")),
        *(("\t=1", " =1"), ("\r=1", " =1"), ("a\n=1", "a =1")),
    ],
)
def test_a_name_starts_no_formula(name, shown, found, tmp_path):
    _, flat, points = found
    write_csv(tmp_path, name, flat, points, [f"view_{i}" for i in range(6)])
    for path in tmp_path.iterdir():
        rows = read_csv(path)
        assert {row["object"] for row in rows} == {shown}
        # Numbers stay numbers, also negative ones.
        assert all(float(row["score"]) <= 1 for row in rows)
    assert any(row["y"].startswith("-") for row in read_csv(tmp_path / "keypoints_3d.csv"))
