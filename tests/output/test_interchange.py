"""Other tools' own readers take the files: pycocotools COCO, Datumaro CVAT's, Label Studio its tasks, rerun its own."""

import contextlib
import io
import json
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.pictures import blocks
from keyorbit.errors import InputError
from keyorbit.geometry.keypoints import Keypoints2D
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.objects.points.read import read_points
from keyorbit.output.annotations import write_annotations
from keyorbit.output.coco import coco_dict
from keyorbit.output.palette import palette, rgb
from keyorbit.output.pictured import Pictured
from keyorbit.output.rerun_log import write_rerun
from keyorbit.storage.files import write_json


@pytest.fixture
def found(generator):
    cameras = zero123plus_cameras("v1.2")
    xyz = torch.rand(5, 3, generator=generator) * 0.6 - 0.3
    score = torch.rand(6, 5, generator=generator) * 0.8 + 0.2
    score[:, 1] = 0
    return Keypoints2D(cameras.project(xyz), score, cameras)


def test_pycocotools_reads_and_scores_coco(found, tmp_path):
    coco_module = pytest.importorskip("pycocotools.coco", reason="pycocotools comes with [dev]")
    from pycocotools.cocoeval import COCOeval

    items = [Pictured.detected(f"view_{i}.png", 64, 64, found.xy[i], found.score[i]) for i in range(6)]
    write_json(tmp_path / "coco.json", coco_dict(items, 5, skeleton=[(0, 2), (2, 4)]))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_module.COCO(tmp_path / "coco.json")
        guess = truth.loadRes([a | {"category_id": 1} for a in truth.dataset["annotations"]])
        run = COCOeval(truth, guess, "keypoints")
        run.params.kpt_oks_sigmas = np.full(5, 0.05)
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        run.evaluate()
        run.accumulate()
    assert truth.loadCats([1])[0]["keypoints"][3] == "keypoint_03"
    assert truth.loadCats([1])[0]["skeleton"] == [[1, 3], [3, 5]]
    assert [a["num_keypoints"] for a in truth.loadAnns(truth.getAnnIds())] == [4] * 6
    precision = run.eval["precision"]
    assert precision.size
    np.testing.assert_array_equal(precision, 1)


def test_rerun_reads_points_cameras_and_pictures(found, tmp_path):
    pytest.importorskip("rerun", reason="rerun is an extra: pip install 'keyorbit[rerun]'")
    from rerun.chunk import RrdReader

    pictures = [np.full((16, 16, 3), i, np.uint8) for i in range(6)]
    points = found.triangulate()
    write_rerun(tmp_path / "keypoints.rrd", found, points, pictures, [(0, 2)])
    assert [path.name for path in tmp_path.iterdir()] == ["keypoints.rrd"]
    seen = {}
    for chunk in RrdReader(tmp_path / "keypoints.rrd").stream():
        table = chunk.to_record_batch().to_pydict()
        seen.setdefault(chunk.entity_path, {}).update({k.split(":")[-1]: v for k, v in table.items()})
    views = {f"/world/view_{i}" for i in range(6)}
    expected = {"/world", "/world/keypoints", "/world/skeleton"} | views | {f"{v}/image" for v in views}
    assert set(seen) == expected | {f"{v}/image/keypoints" for v in views}
    entry = seen["/world/keypoints"]
    kept = [0, 2, 3, 4]
    np.testing.assert_allclose(entry["positions"][0], points.xyz[kept], atol=1e-6)
    assert entry["labels"][0] == [f"keypoint_{k:02d}" for k in kept]
    assert entry["colors"][0] == [int("".join(f"{v:02x}" for v in rgb(palette(5)[k])) + "ff", 16) for k in kept]


def test_without_rerun_a_sentence_says_what_to_install(found, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(InputError, match=r"keyorbit\[rerun\]"):
        write_rerun(tmp_path / "keypoints.rrd", found, None, [])
    assert list(tmp_path.iterdir()) == []


NAMES = ["seat", 'a "left" <leg>', "Fuß & Bein"]


@pytest.fixture
def pictured(tmp_path):
    """Three keypoints on two pictures, the last of them hidden on the first and not found on the second."""
    xy = np.array([[0.25, 0.5], [0.5, 0.75], [1.0, 0.125]])
    rows = [([1, 1, 1], [0, 0, 1]), ([1, 1, 0], [0, 0, 0])]
    found = [
        Pictured(f"view_{i}.png", 40, 24, xy, np.full(3, 0.5), np.array(seen, bool), np.array(hidden, bool), i == 0)
        for i, (seen, hidden) in enumerate(rows)
    ]
    (tmp_path / "images").mkdir()
    for item in found:
        Image.fromarray(blocks()).save(tmp_path / "images" / item.file)
    write_annotations(tmp_path, found, ("cvat", "labelstudio"), NAMES, [(0, 2)])
    return found


def test_what_tools_import_is_read_back(pictured, tmp_path):
    seen = [("view_0.png", 0), ("view_0.png", 1), ("view_0.png", 2), ("view_1.png", 0), ("view_1.png", 1)]
    for file, read in (("cvat.xml", seen), ("label_studio.json", seen[:3])):  # predictions are nobody's marks
        points = read_points(tmp_path / file)
        assert [(plain_last(p.picture), NAMES.index(p.name)) for p in points] == read
        np.testing.assert_allclose([p.xy for p in points], [pictured[0].xy[k] for _, k in read], atol=1e-5)
        assert [p.hidden for p in points if p.hidden] == ([True] if file == "cvat.xml" else [])
    (label,) = json.loads((tmp_path / "cvat_labels.json").read_text())
    assert (label["type"], [part["name"] for part in label["sublabels"]]) == ("skeleton", NAMES)
    drawing = ElementTree.fromstring(f"<svg>{label['svg']}</svg>")
    assert [node.get("data-label-name") for node in drawing.findall("circle")] == NAMES
    assert [(e.get("data-node-from"), e.get("data-node-to")) for e in drawing.findall("line")] == [("1", "3")]


def plain_last(picture):
    return picture.rpartition("=")[2].rpartition("/")[2]


def test_datumaro_reads_the_points_of_cvat(pictured, tmp_path):
    datumaro = pytest.importorskip("datumaro", reason="pip install datumaro")
    (tmp_path / "label_studio.xml").unlink()  # it would be read as CVAT's, too
    read = datumaro.Dataset.import_from(str(tmp_path), "cvat")
    labels = read.categories()[datumaro.AnnotationType.label]
    items = {item.id: item for item in read}
    for item in pictured:
        points = {labels[a.label].name: a for a in items[item.file.removesuffix(".png")].annotations}
        assert list(points) == NAMES
        for name, xy, hidden in zip(NAMES, item.pixels, item.hidden, strict=True):
            np.testing.assert_allclose(points[name].points, xy, atol=0.005)
            assert points[name].attributes["occluded"] == hidden


def test_label_studio_takes_the_tasks_and_the_interface(pictured, tmp_path):
    sdk = pytest.importorskip("label_studio_sdk.label_interface", reason="pip install label-studio-sdk")
    interface = sdk.LabelInterface((tmp_path / "label_studio.xml").read_text(encoding="utf-8"))
    interface.validate()
    first, second = json.loads((tmp_path / "label_studio.json").read_text(encoding="utf-8"))
    assert interface.validate_annotation(first["annotations"][0])
    assert interface.validate_prediction(second["predictions"][0], return_errors=True) == []
    assert [label.value for label in interface.labels for label in label.values()] == NAMES


def test_label_studio_exports_coco_of_its_own_that_is_read(pictured, tmp_path):
    converter = pytest.importorskip("label_studio_sdk.converter", reason="pip install label-studio-sdk")
    tasks = json.loads((tmp_path / "label_studio.json").read_text(encoding="utf-8"))
    (tmp_path / "tasks.json").write_text(json.dumps(tasks[:1]), encoding="utf-8")
    config = (tmp_path / "label_studio.xml").read_text(encoding="utf-8")
    made = converter.Converter(config, str(tmp_path), download_resources=False)
    made.convert_to_coco(str(tmp_path / "tasks.json"), str(tmp_path / "out"), is_dir=False)
    points = read_points(tmp_path / "out")
    assert [p.name for p in points] == NAMES
    np.testing.assert_allclose([p.xy for p in points], pictured[0].xy, atol=0.5 / 24)
