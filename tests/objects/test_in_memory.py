"""Pictures in memory: arrays, tensors, bytes and files are the picture that they hold; others are refused by name."""

import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.pictures import blocks
from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectViews, load_dataset
from keyorbit.objects.in_memory import as_object

BLOCKS = blocks()
ALPHA = np.concatenate([BLOCKS, np.full_like(BLOCKS[..., :1], 200)], -1)
AS_TENSOR = torch.from_numpy(BLOCKS.copy()).permute(2, 0, 1)


def png():
    data = io.BytesIO()
    Image.fromarray(BLOCKS).save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (BLOCKS, BLOCKS),
        (BLOCKS[:, ::-1], BLOCKS[:, ::-1]),
        (BLOCKS / 255, BLOCKS),
        ((BLOCKS / 255).astype(np.float32), BLOCKS),
        (ALPHA, ALPHA),
        (BLOCKS[..., 0], BLOCKS[..., 0]),
        (BLOCKS[..., :1], BLOCKS[..., 0]),
        (BLOCKS[..., 0] > 99, (BLOCKS[..., 0] > 99) * np.uint8(255)),
        (AS_TENSOR, BLOCKS),
        (AS_TENSOR / 255, BLOCKS),
        ((AS_TENSOR / 255).requires_grad_(), BLOCKS),
        ((AS_TENSOR / 255).double(), BLOCKS),
        (AS_TENSOR[0], BLOCKS[..., 0]),
        (png(), BLOCKS),
        (bytearray(png()), BLOCKS),
        (memoryview(png()), BLOCKS),
        (io.BytesIO(png()), BLOCKS),
        (Image.fromarray(BLOCKS), BLOCKS),
    ],
)
def test_a_picture_in_memory_is_the_picture_that_it_holds(given, expected):
    assert np.array_equal(np.asarray(as_object(given).input_image), expected)


def test_paths_and_objects_are_taken_as_they_are(tmp_path):
    Image.fromarray(BLOCKS).save(tmp_path / "a.png")
    for path in (tmp_path / "a.png", str(tmp_path / "a.png"), tmp_path):
        assert as_object(path).name == "a"
    thing = ObjectViews("x", Image.fromarray(BLOCKS))
    assert as_object(thing) is thing
    Image.fromarray(BLOCKS).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="holds 2 objects; give them one by one, or as a list"):
        as_object(tmp_path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "photo cannot be None, of type NoneType; give the path"),
        (3, "photo cannot be 3, of type int"),
        ({}, "of type dict"),
        (AS_TENSOR.permute(1, 2, 0), r"give it .permute\(2, 0, 1\)"),
        (BLOCKS.transpose(2, 0, 1), r"give it .transpose\(1, 2, 0\)"),
        (BLOCKS[None], r"photo has shape \[1, .*; one picture is \[height width\]"),
        (BLOCKS[..., :2], "1, 3 or 4 channels or none"),
        (BLOCKS[:0], "photo has shape"),
        (BLOCKS[:4], "a picture needs 8 a side at least"),
        (BLOCKS.astype(np.int64), "values of type int64; they are whole numbers of 8 bits, or floats 0…1"),
        (BLOCKS.astype(float), "photo has values of .* floats are 0…1, and whole numbers 0…255 of type uint8"),
        (np.full((9, 9), np.nan), "not finite"),
        (BLOCKS + 0j, "values of type complex128"),
        (b"", "what photo holds is empty"),
        (b"GIF89a", "what photo holds cannot be read as a picture"),
        (b"<!doctype html>", "web page"),
        (io.StringIO("text"), "opened as text"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(given, words):
    with pytest.raises(InputError, match=words):
        as_object(given, "photo")


def test_a_data_set_can_be_pickled(chairs, tmp_path):
    """For the workers of a loader: of folders, of one picture, and of a slice."""
    Image.fromarray(BLOCKS).save(tmp_path / "a.png")
    for data in (load_dataset(chairs), load_dataset(chairs)[::-1][:2], load_dataset(tmp_path / "a.png")):
        again = pickle.loads(pickle.dumps(data))
        assert [thing.name for thing in again] == [thing.name for thing in data]
        assert again[0].input_image.tobytes() == data[0].input_image.tobytes()
