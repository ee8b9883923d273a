"""Points that annotation tools export: read right, or answered by one sentence."""

import json
from dataclasses import replace
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.pictures import blocks
from keyorbit.errors import InputError
from keyorbit.geometry.views import Layout
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.picture_marks import Pictures, Shown, marks_on, view_file
from keyorbit.objects.points.point import PicturePoint
from keyorbit.objects.points.read import read_points

LAYOUT = Layout(3, 2)
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


CHAIR = {"id": 3, "name": "chair", "keypoints": ["seat", "left leg", "right leg"], "skeleton": [[1, 2]]}


def coco(keypoints, names=("seat", "left leg", "right leg"), annotation=None, **image):
    data = {"images": [{"id": 1, "file_name": "a_view_1.png", "width": 40, "height": 24} | image]}
    data |= {"categories": [CHAIR | {"keypoints": list(names)}]}
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
    "CVAT's several points in COCO": (
        coco([20, 6, 2, 30, 18, 2], names=()),
        {"chair 1": (0.5, 0.25), "chair 2": (0.75, 0.75)},
    ),
    "a skeleton that CVAT grouped with a box": (
        coco([20, 6, 2, 30, 18, 1, 0, 0, 0], annotation={"category_id": 1})
        | {"categories": [{"id": 1, "name": "box", "keypoints": []}, CHAIR]},
        BOTH,
    ),
    "Label Studio's COCO": (
        coco([20, 6, 2, 30, 18, 2, 0, 0, 0], file_name="images\\0a1b2c3d-a_view_1.png", id=1.0),
        BOTH,
    ),
}
HIDDEN = ("CVAT's skeleton", "COCO", "a skeleton that CVAT grouped with a box")


@pytest.mark.parametrize("case", CASES)
def test_exports_are_read_right(case, tmp_path):
    content, expected = CASES[case]
    points = read_points(written(tmp_path / "exported.txt", content))
    assert {point.name: pytest.approx(point.xy) for point in points} == expected
    things = [ObjectViews(name, Image.fromarray(blocks())) for name in "ab"]
    marks = {(m.object, m.view, m.name): m.xy for m in marks_on(points, things, LAYOUT)}
    assert marks == {("a", 1, name): pytest.approx(xy) for name, xy in expected.items()}
    hidden = {point.name for point in points if point.hidden}
    assert hidden == (
        {"left leg"} if case in ("CVAT's skeleton", "COCO", "a skeleton that CVAT grouped with a box") else set()
    )


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
    "a size of words": (coco([20, 6, 2] * 3, width="x"), "width cannot be 'x'"),
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
    known = Pictures(["Chair", "a:b", "Chair_1", "chair", "e\u0301"], 2)
    names = {
        view_file("Chair", 1): (0, "view", 1),
        "upload/Chair/view_0.jpg": (0, "view", 0),
        "Chair-view_1.png": (0, "view", 1),
        "Chair_1.view_0.png": (2, "view", 0),
        "CHAIR_1/VIEW_0.PNG": (2, "view", 0),
        "chair/grid.png": (3, "grid", None),
        "http://host/data/local-files/?d=out%2Fa_b_view_1.png": (1, "view", 1),
        "C:\\pictures\\Chair\\cond.png": (0, "cond", None),
        "/data/upload/1/0123abcd-a_b_input.png": (1, "input", None),
        "chair.jpeg": (3, "cond", None),
        "\u00e9/view_1.png": (4, "view", 1),
        "Chair/view_2.png": None,
        "view_0.png": None,
    }
    for picture, expected in names.items():
        assert known.shown(picture) == (expected and Shown(*expected)), picture
    assert Pictures(["Chair"], 2).shown("other/view_1.png") == Shown(0, "view", 1)


VIEWS = torch.rand(6, 3, 40, 40, generator=torch.Generator().manual_seed(0))


def thing(name="chair", views=VIEWS):
    return ObjectViews(name, Image.effect_noise((80, 60), 50).convert("RGB"), views, background="keep", recentre=False)


@pytest.mark.parametrize(
    ("file", "size", "view", "xy"),
    [
        ("chair/view_3.png", (40, 40), 3, (0.25, 0.5)),
        ("chair/view_3.png", (80, 40), 3, (0.125, 0.5)),  # annotated at another size
        ("chair/view_3.png", None, 3, (0.25, 0.5)),
        ("images\\default\\chair\\view_0.png", (40, 40), 0, (0.25, 0.5)),
        ("chair/input.png", None, None, (10 / 60, 20 / 60)),
        ("chair/grid.png", (80, 120), 0, (0.25, 0.5)),
        ("chair/grid.png", (120, 80), 0, (0.25, 0.5)),
        ("chair/grid.png", (8, 12), 5, (1.0, 1.0)),
        ("chair/grid.png", (12, 8), 5, (1.0, 1.0)),
        ("chair/grid.png", None, 0, (0.25, 0.5)),
        ("chair/cond.png", (80, 60), None, (0.0, 1 / 3)),  # the middle square begins at 10 pixels
        ("chair.jpg", None, None, (0.0, 1 / 3)),
    ],
)
def test_pixels_become_shares_of_the_view(file, size, view, xy, tmp_path):
    width, height = size or (None, None)
    place = [10, 20] if size is None or width >= 40 else [width, height]
    content = coco([*place, 1, 0, 0, 0, 0, 0, 0], file_name=file, width=width, height=height)
    (mark,) = marks_on(read_points(written(tmp_path / "a.json", content)), [thing()], LAYOUT)
    assert (mark.name, mark.object, mark.view, mark.hidden) == ("seat", "chair", view, True)
    assert mark.xy == pytest.approx(xy)


def test_a_place_in_the_grid_is_in_the_tile_that_shows_it():
    shares = [PicturePoint("grid.png", "a", (50 / 80, 100 / 120)), PicturePoint("grid.png", "b", (10 / 80, 45 / 120))]
    first, second = marks_on(shares, [thing()], LAYOUT)
    assert (first.view, first.xy) == (5, pytest.approx((0.25, 0.5)))
    assert (second.view, second.xy) == (2, pytest.approx((0.25, 0.125)))


def test_a_whole_picture_becomes_the_square_that_is_shown():
    picture = np.full((40, 80, 3), 255, np.uint8)
    picture[10:30, 25:55] = blocks()[:20, :30]
    thing = ObjectViews("a", Image.fromarray(picture))
    left, top, right, bottom = thing.framing.shown
    (mark,) = marks_on([PicturePoint("a.png", "seat", (40 / 80, 20 / 40))], [thing], LAYOUT)
    assert mark.view is None
    assert mark.xy == pytest.approx(((40 - left) / (right - left), (20 - top) / (bottom - top)), abs=1e-6)


SEEN = PicturePoint("a.png", "seat", (0.5, 0.5))


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([replace(SEEN, xy=(0.0, 0.5))], r"marks\.json: .*outside the square"),
        (
            [SEEN, replace(SEEN, picture="stool/view_0.png")],
            r"marks\.json: pictures of none .*: stool/view_0\.png; keep names such as a_view_0\.png",
        ),
        ([SEEN, replace(SEEN, picture="a/view_6.png")], "objects: a/view_6.png; keep"),
        ([SEEN, replace(SEEN, name=" Seat")], "' Seat' is marked twice on a.png"),
        ([replace(SEEN, picture="a/view_0.png", xy=(41.0, 1.0), in_pixels=True)], r"at \(41, 1\) of 40 x 40"),
        ([replace(SEEN, picture="b/view_0.png", in_pixels=True)], "the size of b/view_0.png is not told"),
    ],
)
def test_what_is_no_mark(points, words):
    things = [thing("a"), thing("b", views=None)]
    with pytest.raises(InputError, match=words):
        marks_on(points, things, LAYOUT, "marks.json")


def test_pictures_of_other_objects_may_be_among_them():
    stranger = replace(SEEN, picture="stool/view_0.png")
    things = [thing("a"), thing("b")]
    assert [mark.object for mark in marks_on([stranger, SEEN], things, LAYOUT, others=True)] == ["a"]
    with pytest.raises(InputError, match="the annotations: pictures of none of these objects: stool/"):
        marks_on([stranger], things, LAYOUT, others=True)
