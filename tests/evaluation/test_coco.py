"""COCO files as CVAT, Label Studio, Roboflow and people write them: read right, or answered by one sentence."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.pictures import blocks, exif, stored_for
from keyorbit.errors import InputError
from keyorbit.evaluation.readers import read_dataset
from keyorbit.evaluation.readers.coco_files import annotation_file

CATEGORY = {"id": 1, "name": "chair", "keypoints": ["seat", "left_leg", "right_leg"], "skeleton": [[1, 2]]}
POINTS = [10, 6, 2, 30, 18, 1, 0, 0, 0]
MARKED = {"id": 7, "image_id": 1, "category_id": 1, "keypoints": POINTS, "bbox": [8, 4, 24, 16], "iscrowd": 0}


def picture(path):
    """One of 40 x 24 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(blocks()).save(path)


def write(path, annotations=(MARKED,), categories=(CATEGORY,), **image):
    """The annotations of one picture, which is given a place to lie at by ``file_name``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": 1, "file_name": "a.png", "width": 40, "height": 24} | image]
    data = {"images": images, "annotations": list(annotations), "categories": list(categories)}
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def landmarks(thing, count=3):
    return thing.truth.keypoints_2d[0, :count]


def around(left, top, right, bottom):
    """The square about a box, a tenth wider on each side."""
    x, y, half = (left + right) / 2, (top + bottom) / 2, 0.6 * max(right - left, bottom - top)
    return x - half, y - half, x + half, y + half


def expected(crop, points=((10, 6), (30, 18))):
    """Places in the unit square of a crop, which is cut at whole pixels."""
    left, top, right, bottom = (round(side) for side in crop)
    return torch.tensor([((x - left) / (right - left), (y - top) / (bottom - top)) for x, y in points])


AS_BOXED = expected(around(8, 4, 32, 20))

# Where the annotations are, what names the picture there, and where it lies.
LAYOUTS = {
    "COCO": ("annotations/person_keypoints_val2017.json", "a.png", "val2017/a.png"),
    "CVAT": ("annotations/person_keypoints_default.json", "a.png", "images/default/a.png"),
    "older CVAT": ("annotations/person_keypoints_default.json", "a.png", "images/a.png"),
    "CVAT, a subset with folders": ("annotations/person_keypoints_test.json", "s 1/ä.png", "images/test/s 1/ä.png"),
    "Roboflow": ("test/_annotations.coco.json", "a.png", "test/a.png"),
    "Roboflow without a test": ("valid/_annotations.coco.json", "a.png", "valid/a.png"),
    "Label Studio": ("result.json", "images/0a1b2c3d-a.png", "images/0a1b2c3d-a.png"),
    "Label Studio on Windows": ("result.json", "images\\0a1b2c3d-a.png", "images/0a1b2c3d-a.png"),
    "Label Studio 1.16": ("result.json", "..\\..\\ls\\media\\upload\\4\\0a1b2c3d-a.png", "images/0a1b2c3d-a.png"),
    "Label Studio, own pictures": ("result.json", "images/0a1b2c3d-a.png", "images/a.png"),
    "Label Studio's storage": ("result.json", "data/local-files/?d=x/a.png", "images/a.png"),
    "an absolute path": ("annotations/test.json", "/data/set/a.png", "images/a.png"),
    "an address": ("a.json", "https://example.org/x/a.png", "a.png"),
    "Label Studio's storage, quoted": ("result.json", "data/local-files/?d=x/my%20%C3%A4.png", "images/my ä.png"),
    "a signed address": ("a.json", "https://example.org/x/a.png?Expires=1&Signature=b", "a.png"),
    "composed accents": ("annotations/person_keypoints_default.json", "\u00e4.png", "images/default/a\u0308.png"),
    "accents apart": ("annotations/person_keypoints_default.json", "a\u0308.png", "images/default/\u00e4.png"),
    "AP-10K": ("annotations/ap10k-test-split1.json", "a.png", "data/a.png"),
}


def test_annotations_without_an_id_are_named_by_their_place(tmp_path):
    nameless = {name: value for name, value in MARKED.items() if name != "id"}
    picture(tmp_path / "a.png")
    things = read_dataset("coco", write(tmp_path / "a.json", [MARKED, nameless]), "test")
    assert [thing.name for thing in things] == ["a_7", "a_1"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folders_of_other_programs(layout, tmp_path):
    told, name, lies = LAYOUTS[layout]
    write(tmp_path / told, file_name=name)
    picture(tmp_path / lies)
    for given in (tmp_path, tmp_path / told):
        (thing,) = read_dataset("coco", given)
        torch.testing.assert_close(landmarks(thing, 2), AS_BOXED)
        assert thing.truth.known.tolist() == [True, True, False]
        assert thing.truth.names == ("seat", "left_leg", "right_leg")
        torch.testing.assert_close(thing.truth.boxes, torch.tensor([[24 / 28, 16 / 28]]), atol=0.02, rtol=0)


def test_which_of_several_files(tmp_path):
    for name in ("annotations/person_keypoints_val2017.json", "annotations/person_keypoints_train2017.json"):
        write(tmp_path / name)
    assert annotation_file(tmp_path, "train").name == "person_keypoints_train2017.json"
    (tmp_path / "annotations/person_keypoints_val2017.json").unlink()
    with pytest.raises(InputError, match=r"lacks person_keypoints_val2017\.json"):  # training's is no test
        annotation_file(tmp_path, "test")
    for name in ("person_keypoints_Train.json", "person_keypoints_Validation.json"):  # subsets in CVAT have any name
        write(tmp_path / "cvat" / "annotations" / name)
    found = [annotation_file(tmp_path / "cvat", split).name for split in ("train", "test")]
    assert found == ["person_keypoints_Train.json", "person_keypoints_Validation.json"]
    write(tmp_path / "boxes" / "annotations" / "instances_default.json", [], [{"id": 1, "name": "chair"}])
    with pytest.raises(InputError, match=r"instances_default\.json: no category has keypoints .*export COCO keypoints"):
        read_dataset("coco", tmp_path / "boxes")
    for name in ("a.json", "b.json"):
        write(tmp_path / "own" / name)
    with pytest.raises(InputError, match=r"several files of annotations \(a\.json, b\.json\): give one of them"):
        annotation_file(tmp_path / "own", "test")


def test_what_is_no_object_is_counted(tmp_path, caplog):
    picture(tmp_path / "a.png")
    boxed = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    unmarked = MARKED | {"keypoints": [0] * 9, "num_keypoints": 0, "bbox": [0, 0, 0, 0]}
    tracked = MARKED | {"keypoints": [], "num_keypoints": 0, "bbox": [0, 0, 0, 0]}  # a track in CVAT
    outlined = boxed | {"category_id": 2, "segmentation": [[1, 1, 5, 1, 5, 5]]}
    categories = (CATEGORY, {"id": 2, "name": "glue", "supercategory": "none"}, {"id": 3, "name": "x", "keypoints": []})
    rows = [boxed, unmarked, tracked, outlined, MARKED | {"iscrowd": 1}]
    path = write(tmp_path / "a.json", [*rows, MARKED], categories)
    assert len(read_dataset("coco", path)) == 1
    said = "3 without keypoints, 1 whose keypoints are all unmarked, 1 of groups (iscrowd)"
    assert caplog.messages == [f"{path}: skipped 5 of 6 annotations: {said}"]
    write(path, rows, categories)
    with pytest.raises(InputError, match=r"a\.json has no annotation that can be read: 3 without keypoints"):
        read_dataset("coco", path)
    write(path, rows, categories[1:])
    with pytest.raises(InputError, match=r"no category has keypoints \(there are: glue, x\); .*export COCO keypoints"):
        read_dataset("coco", path)


def test_categories_are_chosen_or_all_are_read(tmp_path):
    picture(tmp_path / "a.png")
    table = {"id": 0, "name": "table", "keypoints": ["left_edge", "right_edge"]}
    other = MARKED | {"id": 8, "category_id": "0", "keypoints": [20, 12, 2, 0, 0, 0]}
    path = write(tmp_path / "a.json", [MARKED, other], [CATEGORY, table, {"id": 5, "name": "glue"}])
    chair, desk = read_dataset("coco", path)
    names = ("chair: seat", "chair: left_leg", "chair: right_leg", "table: left_edge", "table: right_edge")
    assert chair.truth.names == desk.truth.names == names
    assert chair.truth.pairs == ((1, 2), (3, 4))
    assert chair.truth.known.tolist() == [True, True, False, False, False]
    assert desk.truth.known.tolist() == [False, False, False, True, False]
    torch.testing.assert_close(desk.truth.keypoints_2d[0, 3:4], expected(around(8, 4, 32, 20), [(20, 12)]))
    (desk,) = read_dataset("coco/table", path)
    assert (desk.name, desk.truth.names) == ("a_8", ("left_edge", "right_edge"))
    with pytest.raises(InputError, match=r"no category 'lamp' .*: chair \(3 keypoints\), table \(2 keypoints\)"):
        read_dataset("coco/lamp", path)
    # Two that share their list are of one kind.
    write(path, [MARKED, MARKED | {"id": 8, "category_id": 2}], [CATEGORY, CATEGORY | {"id": 2, "name": "stool"}])
    assert [thing.truth.names for thing in read_dataset("coco", path)] == [("seat", "left_leg", "right_leg")] * 2
    assert len(read_dataset("coco/stool", path)) == 1
    write(path, [MARKED | {"category_id": 9}], [CATEGORY, table])
    with pytest.raises(InputError, match=r"annotations\[0\]\.category_id cannot be 9; it must be the id of a category"):
        read_dataset("coco", path)


def test_a_box_and_a_skeleton_in_a_group_are_one_object(tmp_path):
    """CVAT exports the skeleton's keypoints with the box's category, which has none."""
    picture(tmp_path / "a.png")
    box = {"id": 1, "name": "box", "supercategory": "", "keypoints": [], "skeleton": []}
    path = write(tmp_path / "a.json", [MARKED], [box, CATEGORY | {"id": 2}])
    for name in ("coco", "coco/chair"):
        (thing,) = read_dataset(name, path)
        torch.testing.assert_close(landmarks(thing, 2), AS_BOXED)


def test_single_points_beside_skeletons_are_counted(tmp_path, caplog):
    """CVAT exports points that belong to no skeleton with a category that lists no keypoints."""
    picture(tmp_path / "a.png")
    points = MARKED | {"id": 8, "category_id": 2, "keypoints": [1, 2, 2]}
    path = write(tmp_path / "a.json", [MARKED, points], [CATEGORY, {"id": 2, "name": "point", "keypoints": []}])
    (thing,) = read_dataset("coco", path)
    torch.testing.assert_close(landmarks(thing, 2), AS_BOXED)
    assert caplog.messages == [f"{path}: skipped 1 of 2 annotations: 1 of categories that list no keypoints"]


def test_keypoints_that_no_category_names_have_numbers(tmp_path):
    """So MMPose writes 300-W, WFLW and others: a category "face" without names, and annotations with all points."""
    picture(tmp_path / "a.png")
    face = {"supercategory": "person", "id": 1, "name": "face", "keypoints": [], "skeleton": []}
    path = write(tmp_path / "a.json", [MARKED, MARKED | {"id": 8, "keypoints": []}], [face])
    for name in ("coco", "coco/face"):
        (thing,) = read_dataset(name, path)
        assert thing.truth.names == ("landmark 0", "landmark 1", "landmark 2")
        torch.testing.assert_close(landmarks(thing, 2), AS_BOXED)
    for points in ([1, 2, 2], POINTS[:6]):  # a single point is no skeleton, and two lengths are no list
        rows = [MARKED | {"keypoints": points}] if len(points) == 3 else [MARKED, MARKED | {"keypoints": points}]
        with pytest.raises(InputError, match="no category has keypoints"):
            read_dataset("coco", write(path, rows, [face]))


def test_shares_of_the_picture_are_no_pixels(tmp_path):
    picture(tmp_path / "a.png")
    path = write(tmp_path / "a.json", [MARKED | {"keypoints": [0.25, 0.25, 2, 0.75, 0.75, 1, 0, 0, 0]}])
    with pytest.raises(InputError, match=r"annotations\[0\]\.keypoints look like shares of the picture's width"):
        read_dataset("coco", path)


@pytest.mark.parametrize("ids", [(1, 1.0), ("1", 1), (1.0, "1"), ("a", "a"), (0, 0)])
def test_ids_are_numbers_or_words(ids, tmp_path):
    picture(tmp_path / "a.png")
    path = write(tmp_path / "a.json", [MARKED | {"image_id": ids[1]}], id=ids[0])
    assert len(read_dataset("coco", path)) == 1


@pytest.mark.parametrize("box", [None, [0, 0, 0, 0], [10, 6, 0, 12]])
def test_an_empty_box_is_that_of_the_landmarks(box, tmp_path):
    picture(tmp_path / "a.png")
    path = write(tmp_path / "a.json", [MARKED | {"bbox": box}])
    (thing,) = read_dataset("coco", path)
    torch.testing.assert_close(landmarks(thing, 2), expected(around(10, 6, 30, 18)))
    torch.testing.assert_close(thing.truth.boxes, torch.tensor([[20 / 24, 12 / 24]]))
    # One landmark has no extent: the whole picture, and no size to measure by.
    path = write(tmp_path / "a.json", [MARKED | {"bbox": box, "keypoints": [10, 6, 2, *[0] * 6]}])
    if box != [10, 6, 0, 12]:
        (thing,) = read_dataset("coco", path)
        torch.testing.assert_close(landmarks(thing, 1), torch.tensor([[10 / 40, 6 / 24]]))
        assert thing.truth.boxes is None


@pytest.mark.parametrize("factor", [0.5, 3])
def test_resized_pictures_have_scaled_annotations(factor, tmp_path):
    path = write(tmp_path / "a.json")
    Image.fromarray(blocks()).resize((int(40 * factor), int(24 * factor))).save(tmp_path / "a.png")
    (thing,) = read_dataset("coco", path)
    left, top, right, bottom = (round(side * factor) for side in around(8, 4, 32, 20))
    place = [(10 * factor - left) / (right - left), (6 * factor - top) / (bottom - top)]
    torch.testing.assert_close(landmarks(thing, 1), torch.tensor([place]))
    torch.testing.assert_close(thing.truth.boxes, torch.tensor([[24.0, 16.0]]) * factor / (right - left))
    Image.fromarray(blocks()).resize((24, 24)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="has 24x24 pixels, and its annotations are for 40x24, another shape"):
        list(read_dataset("coco", path))


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("orientation", [6, 8])
def test_a_size_says_whether_a_picture_was_upright(orientation, small, tmp_path):
    """CVAT shows pictures upright, and writes the size that it shows; COCO's own count stored pixels."""
    stored = Image.fromarray(np.ascontiguousarray(stored_for(blocks(), orientation)))
    stored = stored.resize((12, 20)) if small else stored
    stored.save(tmp_path / "a.png", exif=exif(orientation))
    whole = MARKED | {"bbox": [0, 0, 40, 24]}
    (shown,) = read_dataset("coco", write(tmp_path / "a.json", [whole]))
    (laid,) = read_dataset("coco", write(tmp_path / "b.json", [whole | {"bbox": [0, 0, 24, 40]}], width=24, height=40))
    # The square about the box is the same one, and the picture lies on its side in it.
    turned = Image.Transpose.ROTATE_270 if orientation == 6 else Image.Transpose.ROTATE_90
    difference = np.abs(np.asarray(laid.input_image.transpose(turned), int) - np.asarray(shown.input_image, int))
    assert np.median(difference) < 8
    assert np.median(np.abs(np.asarray(laid.input_image, int) - np.asarray(shown.input_image, int))) > 8


FORMATS = {
    "labelme's own format": {"version": "5.0", "shapes": [], "imagePath": "a.png", "imageData": None},
    "Datumaro's own format": {"info": {}, "categories": {"label": {}}, "items": []},
    "VIA's own format": {"_via_settings": {}, "_via_img_metadata": {}},
    "Label Studio's own format": [{"id": 1, "data": {"image": "/data/upload/a.png"}, "annotations": []}],
    "a list of results, without pictures": [{"image_id": 1, "category_id": 1, "keypoints": POINTS, "score": 0.9}],
}


@pytest.mark.parametrize("words", FORMATS)
def test_other_formats_are_named(words, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(FORMATS[words]), encoding="utf-8")
    with pytest.raises(InputError, match=rf"a\.json is {words}.*convert it to COCO keypoints"):
        read_dataset("coco", path)


def test_two_pictures_are_not_confused(tmp_path):
    picture(tmp_path / "images" / "a.png")
    path = write(tmp_path / "a.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    data["images"] = [{"id": i, "file_name": f"cat_{i}/a.png"} for i in (1, 2)]
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(InputError, match=r"images\[1\] and another one are both .*a\.png: keep the folders"):
        read_dataset("coco", path)
    for i in (1, 2):
        picture(tmp_path / f"cat_{i}" / "a.png")
    assert len(read_dataset("coco", path)) == 1
    data["images"][1]["id"] = 1
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(InputError, match=r"images\[1\]\.id cannot be 1; another picture has it"):
        read_dataset("coco", path)


def test_missing_pictures_are_counted(tmp_path):
    write(tmp_path / "annotations" / "person_keypoints_default.json", [MARKED, MARKED | {"id": 8}])
    with pytest.raises(InputError, match=r"2 of 2 pictures are missing, such as .*a\.png"):
        read_dataset("coco", tmp_path)
