"""Data sets' pictures and masks are taken as they are stored, of any depth."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import layouts
from helpers.pictures import blocks, exif, photograph
from keyorbit.evaluation.readers import read_dataset
from keyorbit.evaluation.readers.base import Annotation, annotated_objects
from keyorbit.objects.pictures import (
    on_grey,
)


def lay_down(path):
    """Gives a picture file an orientation that its data set does not know of."""
    if path.suffix == ".jpg":
        tags = exif(6).tobytes()
        segment = b"\xff\xe1" + (len(tags) + 2).to_bytes(2, "big") + tags
        path.write_bytes(b"\xff\xd8" + segment + path.read_bytes()[2:])
    else:
        Image.open(path).save(path, exif=exif(6))
    with Image.open(path) as file:
        assert file.getexif()[274] == 6


@pytest.mark.parametrize(
    ("name", "write"),
    [("coco", layouts.write_coco), ("cub-aligned", layouts.write_cub), ("celeba-wild", layouts.write_celeba)],
)
def test_data_sets_count_stored_pixels(name, write, tmp_path):
    write(tmp_path)
    before = list(read_dataset(name, tmp_path, "test"))
    files = [path for path in Path(tmp_path).rglob("*") if path.suffix in (".jpg", ".png")]
    for path in files:
        lay_down(path)
    after = list(read_dataset(name, tmp_path, "test"))
    assert [thing.name for thing in after] == [thing.name for thing in before]
    assert before
    for old, new in zip(before, after, strict=True):
        assert np.array_equal(np.asarray(old.input_image), np.asarray(new.input_image))
        assert np.array_equal(np.asarray(on_grey(new.input_image)), np.asarray(on_grey(old.input_image)))
        assert torch.equal(old.truth.keypoints_2d, new.truth.keypoints_2d)


@pytest.mark.parametrize(
    ("kind", "one"), [(np.uint8, 1), (np.uint8, 255), (np.uint16, 1), (np.uint16, 65535), (np.int32, 1), (bool, True)]
)
def test_masks_of_any_depth_keep_what_they_show(kind, one, tmp_path):
    shown = np.zeros((24, 40), bool)
    shown[4:12, 6:30] = True
    photograph(tmp_path / "a.png")
    Image.fromarray(np.where(shown, kind(one), kind(0))).save(tmp_path / "mask.tif")
    xy, seen = np.zeros((1, 2)), np.ones(1, bool)
    listed = [Annotation("a", tmp_path / "a.png", xy, seen, mask=tmp_path / "mask.tif", crop=(0.0, 0.0, 24.0, 24.0))]
    (found,) = annotated_objects(listed, ("tip",), (), "a set")
    assert np.array_equal(np.asarray(found.input_image), (blocks() * shown[..., None])[:, :24])


def test_a_data_set_of_sixteen_bits_is_not_white(tmp_path):
    Image.fromarray(np.full((24, 24), 32768, np.uint16)).save(tmp_path / "a.png")
    (found,) = annotated_objects(
        [Annotation("a", tmp_path / "a.png", np.zeros((1, 2)), np.ones(1, bool))], ("tip",), (), "a set"
    )
    assert found.input_image.getextrema() == ((128, 128),) * 3
