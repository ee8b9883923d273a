"""Marks from COCO's keypoints: pictures by their names, pixels as shares of the view, visibility as it is."""

import json

import pytest
import torch
from PIL import Image

from keyorbit.errors import InputError
from keyorbit.evaluation.readers.coco_marks import read_coco_marks
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.marks import Mark

VIEWS = torch.rand(6, 3, 40, 40, generator=torch.Generator().manual_seed(0))


def thing(name, size=(80, 60)):
    return ObjectViews(name, Image.effect_noise(size, 50).convert("RGB"), VIEWS, background="keep", recentre=False)


def written(tmp_path, pictures, names=("seat", "left foot")):
    """A COCO file of pictures: file name, size, numbers."""
    images, annotations = [], []
    for i, (file, size, numbers) in enumerate(pictures, 1):
        told = {} if size is None else {"width": size[0], "height": size[1]}
        images.append({"id": i, "file_name": file} | told)
        annotations.append({"id": i, "image_id": i, "category_id": 1, "keypoints": numbers, "bbox": [0, 0, 9, 9]})
    path = tmp_path / "coco.json"
    category = {"id": 1, "name": "chair", "keypoints": list(names), "skeleton": []}
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}))
    return path


@pytest.mark.parametrize(
    ("file", "size", "view", "xy"),
    [
        ("chair/view_3.png", (40, 40), 3, (0.25, 0.5)),
        ("chair/view_3.png", (80, 40), 3, (0.125, 0.5)),  # annotated at another size
        ("chair/view_3.png", None, 3, (0.25, 0.5)),
        ("images\\default\\chair\\view_0.png", (40, 40), 0, (0.25, 0.5)),
        ("/data/upload/1/0a1b2c3d-chair_view_5.png", (40, 40), 5, (0.25, 0.5)),
        ("view_1.png", (40, 40), 1, (0.25, 0.5)),
        ("chair/input.png", (40, 40), None, (0.25, 0.5)),
        ("chair/grid.png", (80, 120), 0, (0.25, 0.5)),
        ("chair/cond.png", (80, 60), None, (0.0, 1 / 3)),  # the middle square begins at 10 pixels
        ("chair.jpg", (80, 60), None, (0.0, 1 / 3)),
    ],
)
def test_a_picture_is_a_view_or_the_input_by_its_name(file, size, view, xy, tmp_path):
    path = written(tmp_path, [(file, size, [10, 20, 2, 0, 0, 0])])
    (found,) = read_coco_marks(path, [thing("chair")])
    assert (found.name, found.object, found.view, found.hidden) == ("seat", "chair", view, False)
    assert found.xy == pytest.approx(xy)


def test_an_exported_picture_has_the_name_of_a_folder_that_any_system_allows(tmp_path):
    path = written(tmp_path, [("St\u00fchl 1__view_2.png", (40, 40), [10, 20, 2, 0, 0, 0])])
    (found,) = read_coco_marks(path, [thing("other"), thing("St\u00fchl 1?")])
    assert (found.object, found.view) == ("St\u00fchl 1?", 2)


def test_a_place_in_the_grid_is_in_the_tile_that_shows_it(tmp_path):
    path = written(tmp_path, [("chair/grid.png", (80, 120), [50, 100, 2, 10, 45, 1])])
    first, second = read_coco_marks(path, [thing("chair")])
    assert (first.view, first.xy) == (5, pytest.approx((0.25, 0.5)))
    assert (second.view, second.xy, second.hidden) == (2, pytest.approx((0.25, 0.125)), True)


def test_several_objects_are_told_apart_and_the_longest_name_wins(tmp_path):
    pictures = [("chair_1_view_0.png", (40, 40), [10, 20, 2, 0, 0, 0]), ("chair-view_2.png", None, [0, 0, 0, 1, 1, 2])]
    first, second = read_coco_marks(written(tmp_path, pictures), [thing("chair"), thing("chair_1")])
    assert first == Mark("seat", "chair_1", 0, (0.25, 0.5))
    assert (second.name, second.object, second.view) == ("left foot", "chair", 2)


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        (
            [("stool/view_0.png", (40, 40), [1, 1, 2, 0, 0, 0])],
            "'stool/view_0.png', which is no picture of the obj",
        ),
        ([("a/view_0.png", (40, 40), [41, 1, 2, 0, 0, 0])], r"annotations\[0\]: 'seat' is outside the picture"),
        ([("a/view_0.png", (40, 40), [1, 1, 0, 0, 0, 0])], "has no keypoint that is marked"),
        ([("a/view_0.png", (40, 40), [1, 1, 2])], r"keypoints has 3 numbers; it must have 3 for each of 2"),
        ([("a/view_0.png", (40, 40), [1, 1, 2, 0, 0, 0])] * 2, r"annotations\[1\] and annotations\[0\] are both of"),
        ([("a/view_0.png", None, [1, 1, 2, 0, 0, 0]), ("a_view_0.png", None, [1, 1, 2, 0, 0, 0])], "two equal names"),
    ],
)
def test_what_is_no_mark(pictures, words, tmp_path):
    with pytest.raises(InputError, match=words):
        read_coco_marks(written(tmp_path, pictures), [thing("a"), thing("b")])
