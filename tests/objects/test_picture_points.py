"""Points that annotation tools export: read right, or answered by one sentence."""

import json
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from helpers.pictures import blocks
from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.picture_marks import marks_on, shown_pictures, view_file
from keyorbit.objects.points.point import PicturePoint, plain_names
from keyorbit.objects.points.read import read_points

SKELETON = """<skeleton label="chair" source="manual" z_order="0">
  <points label="seat" source="manual" outside="0" occluded="0" points="20.00,6.00"><attribute name="a">b</attribute>
  </points>
  <points label="left leg" source="manual" outside="0" occluded="1" points="30.00,18.00"></points>
  <points label="right leg" source="manual" outside="1" occluded="0" points="1.00,1.00"></points>
</skeleton>"""
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><id>7</id><mode>annotation</mode><labels><label><name>chair</name>
<type>skeleton</type></label></labels></task></meta>
<image id="0" name="a/view_1.png" subset="default" task_id="7" width="40" height="24">{}</image></annotations>"""
LOOSE = """<points label="nose" source="manual" occluded="0" points="4.0,12.0" z_order="0"></points>
<points label="ear" occluded="0" points="2.0,3.0;40.1,24.0" z_order="0"></points>
<box label="whole" xtl="0" ytl="0" xbr="3" ybr="3"></box>"""


def result(name, x, y, kind="keypointlabels", **other):
    value = {"x": x, "y": y, "width": 0.7} | ({kind: [name]} if kind != "keypoint" else {})
    return {"id": name, "type": kind, "value": value, "original_width": 40, "original_height": 24} | other


def task(*results, picture="/data/upload/3/0a1b2c3d-a_view_1.png", **other):
    return {"id": 4, "data": {"image": picture}, "annotations": [{"id": 9, "result": list(results)}]} | other


def coco(keypoints, names=("seat", "left leg", "right leg"), annotation=None, **image):
    data = {"images": [{"id": 1, "file_name": "a_view_1.png", "width": 40, "height": 24} | image]}
    data |= {"categories": [{"id": 3, "name": "chair", "keypoints": list(names), "skeleton": [[1, 2]]}]}
    marked = {"id": 1, "image_id": 1, "category_id": 3, "keypoints": keypoints, "iscrowd": 0} | (annotation or {})
    return data | {"annotations": [marked]}


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


BOTH = {"seat": (0.5, 0.25), "left leg": (0.75, 0.75)}
SEAT = result("seat", 50.0, 25.0)
CASES = {
    "CVAT's skeleton": (CVAT.format(SKELETON), BOTH),
    "CVAT's loose points": (CVAT.format(LOOSE), {"nose": (0.1, 0.5), "ear 1": (0.05, 0.125), "ear 2": (1.0, 1.0)}),
    "Label Studio": ([task(SEAT, result("left leg", 75, 75.0))], BOTH),
    "several annotations": (
        [task() | {"annotations": [{"result": [result("old", 1, 1)]}, {"result": [SEAT]}]}],
        {"seat": (0.5, 0.25)},
    ),
    "a cancelled one": (
        [task() | {"annotations": [{"result": [SEAT]}, {"result": [result("x", 1, 1)], "was_cancelled": True}]}],
        {"seat": (0.5, 0.25)},
    ),
    "predictions beside": ([task(SEAT, predictions=[{"result": [result("x", 1, 1)]}])], {"seat": (0.5, 0.25)}),
    "a point and its label apart": (
        [task(result("seat", 50, 25, "keypoint"), result("seat", 50, 25, "labels"))],
        {"seat": (0.5, 0.25)},
    ),
    "boxes beside": (
        [task(SEAT, {"id": "b", "type": "rectanglelabels", "value": {"x": 1, "y": 1, "width": 2, "height": 3}})],
        {"seat": (0.5, 0.25)},
    ),
    "JSON-MIN": (
        [{"image": "/data/upload/3/0a1b2c3d-a_view_1.png", "id": 4, "label": [SEAT["value"]], "annotator": 1}],
        {"seat": (0.5, 0.25)},
    ),
    "COCO": (coco([20, 6, 2, 30, 18, 1, 0, 0, 0]), BOTH),
    "CVAT's single points in COCO": (coco([20, 6, 2], names=()), {"chair": (0.5, 0.25)}),
    "Label Studio's COCO": (
        coco([20, 6, 2, 30, 18, 2, 0, 0, 0], file_name="images\\0a1b2c3d-a_view_1.png", id=1.0),
        BOTH,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_exports_are_read_right(case, tmp_path):
    content, expected = CASES[case]
    points = read_points(written(tmp_path / "exported.txt", content))
    assert {point.name: pytest.approx(point.xy) for point in points} == expected
    things = [ObjectViews(name, Image.fromarray(blocks())) for name in "ab"]
    marks = {(m.object, m.view, m.name): m.xy for m in marks_on(points, things, 6)}
    assert marks == {("a", 1, name): pytest.approx(xy) for name, xy in expected.items()}
    hidden = {point.name for point in points if point.hidden}
    assert hidden == ({"left leg"} if case in ("CVAT's skeleton", "COCO") else set())


@pytest.mark.parametrize("inside", ["annotations.xml", "annotations/person_keypoints_default.json", "result.json"])
def test_an_exported_folder_and_its_archive(inside, tmp_path):
    content = CVAT.format(SKELETON) if inside.endswith("xml") else json.dumps(coco([20, 6, 2, 30, 18, 2, 0, 0, 0]))
    (tmp_path / "out" / inside).parent.mkdir(parents=True)
    written(tmp_path / "out" / inside, content)
    with ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.write(tmp_path / "out" / inside, inside)
    assert len(read_points(tmp_path / "out")) == 2
    assert [p.xy for p in read_points(tmp_path / "out.zip")] == [p.xy for p in read_points(tmp_path / "out")]


WRONG = {
    "text": ("hello", "cannot be read as JSON"),
    "broken XML": ("<annotations><image>", "cannot be read as XML"),
    "another XML": ("<svg/>", "outermost tag is <svg>"),
    "an entity": ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotations/>", "document type"),
    "a video": ("<annotations><track id='0' label='a'/></annotations>", "CVAT for images 1.1"),
    "nothing marked in CVAT": (CVAT.format(""), "no points and no skeletons"),
    "two chairs": (CVAT.format(SKELETON * 2), "two skeletons 'chair'"),
    "no numbers": (CVAT.format('<points label="a" points="1"/>'), "cannot be '1'; it must be x,y in pixels"),
    "NaN": (CVAT.format('<points label="a" points="nan,2"/>'), "xy"),
    "beyond CVAT's picture": (CVAT.format('<points label="a" points="60,2"/>'), "xy"),
    "no label": (CVAT.format('<points points="1,2"/>'), "name"),
    "no size": (CVAT.replace('width="40"', "").format(SKELETON), "width cannot be None"),
    "another JSON": ({"points": []}, "is JSON with points"),
    "a file of marks": ({"format": "keyorbit-marks-1", "marks": []}, "is JSON with format"),
    "an empty list": ([], "no keypoints that somebody annotated"),
    "a list of numbers": ([1], "list of tasks"),
    "predictions alone": ([task() | {"annotations": [], "predictions": [{"result": [SEAT]}]}], "predictions are not"),
    "beyond 100 %": ([task(result("a", 120, 5))], r"outside the picture, at \(120"),
    "a turned picture": ([task(SEAT | {"image_rotation": 90})], "turned by 90°"),
    "no picture": ([{"data": {"a": "b"}, "annotations": [{"result": [SEAT]}]}], "does not name its picture"),
    "a wrong result": ([task() | {"annotations": 3}], "annotations cannot be 3"),
    "COCO of boxes": (coco([]), "no keypoints that are marked"),
    "two objects": (coco([20, 6, 2]) | {"annotations": coco([20, 6, 2] * 3)["annotations"] * 2}, "two objects 'chair'"),
    "too few numbers": (coco([20, 6, 2]), "must have 3 for each of the 3 keypoints"),
    "beyond COCO's picture": (coco([90, 6, 2] * 3), r"outside the picture, at \(90, 6\)"),
    "COCO without sizes": (coco([20, 6, 2] * 3, width=None), "width cannot be None"),
    "no such picture": (coco([20, 6, 2] * 3, annotation={"image_id": 5}), "not among the images"),
    "no such category": (
        coco([20, 6, 2] * 3, annotation={"category_id": 8}) | {"categories": []},
        "category_id cannot be 8",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_sentence(case, tmp_path):
    content, words = WRONG[case]
    with pytest.raises(InputError, match=words) as caught:
        read_points(written(tmp_path / "exported.txt", content))
    assert "exported.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_archive_without_annotations(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"a\.zip cannot be read"):
        read_points(tmp_path / "a.zip")
    with ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("x.txt", "x")
    for path in ("b.zip", "."):
        with pytest.raises(InputError, match="has no annotations"):
            read_points(tmp_path / path)


def test_pictures_are_told_by_their_names():
    known = shown_pictures(["Chair", "a:b"], 2)
    names = {
        view_file("Chair", 1): (0, 1),
        "upload/Chair/view_0.jpg": (0, 0),
        "http://host/data/local-files/?d=out%2Fa_b_view_1.png": (1, 1),
        "C:\\pictures\\Chair\\cond.png": (0, None),
        "/data/upload/1/0123abcd-a_b_input.png": (1, None),
        "chair.jpeg": (0, None),
        "view_0.png": None,
    }
    for picture, expected in names.items():
        found = next((known[own] for name in plain_names(picture) if (own := name.casefold()) in known), None)
        assert (found and (found.number, found.view)) == expected, picture
    assert shown_pictures(["Chair"], 2)["view_1"].view == 1


def test_a_whole_picture_becomes_the_square_that_is_shown():
    picture = np.full((40, 80, 3), 255, np.uint8)
    picture[10:30, 25:55] = blocks()[:20, :30]
    thing = ObjectViews("a", Image.fromarray(picture))
    left, top, right, bottom = thing.framing.shown
    (mark,) = marks_on([PicturePoint("a.png", "seat", (40 / 80, 20 / 40))], [thing], 6)
    assert mark.view is None
    assert mark.xy == pytest.approx(((40 - left) / (right - left), (20 - top) / (bottom - top)), abs=1e-6)
    with pytest.raises(InputError, match="outside the square"):
        marks_on([PicturePoint("a.png", "seat", (0.0, 0.5))], [thing], 6)
    with pytest.raises(InputError, match="such are called a_view_0"):
        marks_on([PicturePoint("b.png", "seat", (0.5, 0.5))], [thing, thing], 6)
    with pytest.raises(InputError, match="marked twice"):
        marks_on([PicturePoint("a.png", "seat", (0.5, 0.5))] * 2, [thing], 6)
