"""Objects on disk: what is written is what is read, and what contradicts itself is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from keyorbit.errors import InputError
from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.geometry.views import Layout, merge_views
from keyorbit.objects.dataset import load_dataset, load_object, stack_truths, write_object
from keyorbit.objects.pictures import load_image, to_tensor

LAYOUT = Layout(3, 2)


def meta(cameras=None):
    cameras = cameras or zero123plus_cameras("v1.2")
    return {
        "cameras": cameras.to_dict(),
        "caption": "a chair",
        "input_elevation_deg": 12.5,
        "keypoint_names": ["left", "right", "top"],
        "pairs": [[0, 1]],
        "keypoints_3d": [[-0.1, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.0, 0.2]],
        "known": [True, True, False],
        "keypoints_2d": [[[0.5, 0.5]] * 3] * 7,
        "visible": [[True, False, True]] * 7,
    }


def pictures(size=16):
    """Views of one plain colour each, transparent in their upper half, and the grid of them."""
    views = torch.zeros(4, 6, size, size, dtype=torch.uint8)
    for i in range(6):
        views[0, i] = 40 * i
    views[3, :, size // 2 :] = 255
    grid = merge_views(views, LAYOUT)
    return views, Image.fromarray(grid.permute(1, 2, 0).numpy(), "RGBA")


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "data" / "thing"
    _, grid = pictures()
    write_object(path, Image.new("RGB", (32, 24), "red"), grid, LAYOUT, meta())
    return path


def test_an_object_comes_back_as_it_was_written(folder):
    thing = load_object(folder)
    views, _ = pictures()
    assert thing.name == "thing"
    assert thing.caption == "a chair"
    assert thing.input_elevation_deg == 12.5
    assert thing.input_image.size == (32, 24)
    # Lower halves are opaque and keep their colour, upper halves show the grey behind them.
    torch.testing.assert_close(thing.views[:, :, 8:], views[:3].movedim(1, 0)[:, :, 8:].float() / 255)
    torch.testing.assert_close(thing.views[:, :, :8], torch.full((6, 3, 8, 16), 127 / 255))
    assert torch.equal(thing.masks, views[3] > 127)
    torch.testing.assert_close(thing.cameras.world_to_camera, zero123plus_cameras("v1.2").world_to_camera)
    assert thing.truth.names == ("left", "right", "top")
    assert thing.truth.pairs == ((0, 1),)
    assert thing.truth.known.tolist() == [True, True, False]
    assert thing.truth.keypoints_2d.shape == (7, 3, 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"keypoints_2d": [[[8.0, 8.0]] * 3] * 7}, r"keypoints_2d look like pixels \(up to 8\)"),
        (
            {"keypoints_2d": [[[float("nan"), 0.5]] * 3] * 7},
            r"keypoints_2d\[0\]\[0\]\[0\] cannot be nan; it must be a number",
        ),
        (
            {"input_elevation_deg": 120.0},
            "input_elevation_deg cannot be 120.0; it must be a number >= -90 and <= 90",
        ),
        ({"input_elevation_deg": float("nan")}, "input_elevation_deg cannot be nan"),
    ],
)
def test_numbers_in_another_unit_are_told(change, words, folder):
    (folder / "meta.json").write_text(json.dumps({"format": "keyorbit-object-1", "layout": [3, 2], **meta(), **change}))
    with pytest.raises(InputError, match=words):
        load_object(folder)


def test_landmarks_that_are_not_seen_may_be_anywhere(folder):
    places = [[[0.5, 0.5], [80.0, 80.0], [float("nan"), 80.0]]] * 7  # the second is hidden, the third unknown
    content = {"format": "keyorbit-object-1", "layout": [3, 2], **meta(), "keypoints_2d": places}
    (folder / "meta.json").write_text(json.dumps(content))
    assert load_object(folder).truth.keypoints_2d[:, 1].max() == 80


ALONE = {"cameras": zero123plus_cameras("v1.2").to_dict(), "keypoints_3d": [[-0.1, 0, 0], [0.1, 0.2, 0], [0, 0, 9]]}


def read(folder, **content):
    (folder / "meta.json").write_text(json.dumps({"format": "keyorbit-object-1", "layout": [3, 2], **content}))
    return load_object(folder)


def test_points_in_space_alone_are_ground_truth(folder):
    """Names, flags, places and visibility follow; the third point is above all pictures."""
    front = orbit_cameras([0.0], [12.5])
    thing = read(folder, **ALONE, input_camera=front.to_dict())
    truth, points = thing.truth, torch.tensor(ALONE["keypoints_3d"], dtype=torch.float32)
    assert truth.names == ("0", "1", "2")
    assert truth.known.tolist() == [True] * 3
    torch.testing.assert_close(truth.keypoints_3d, points)
    torch.testing.assert_close(truth.keypoints_2d, front.join(zero123plus_cameras("v1.2")).project(points))
    assert truth.visible.tolist() == [[True, True, False]] * 7
    assert (truth.boxes, thing.symmetry) == (None, 1)
    assert stack_truths([thing, thing])[1] is thing.truth


def test_without_an_input_camera_nothing_counts_on_the_input_picture(folder):
    truth = read(folder, **ALONE, symmetry="round", keypoint_names=["a", "b", "c"], visible=[[1, 0, 1]] * 7).truth
    assert truth.names == ("a", "b", "c")
    assert truth.visible.tolist() == [[False] * 3] + [[True, False, False]] * 6
    truth = read(folder, keypoints_3d=ALONE["keypoints_3d"]).truth  # the cameras are the model's own
    assert (truth.visible.tolist(), truth.keypoints_3d.shape) == ([[False] * 3], (3, 3))


@pytest.mark.parametrize("unknown", [None, [float("nan")] * 3, [0.0, float("inf"), 0.0]])
def test_a_point_that_is_no_number_is_unknown(folder, unknown):
    truth = read(folder, **ALONE | {"keypoints_3d": [[0, 0, 0], unknown]}).truth
    assert truth.known.tolist() == [True, False]
    assert truth.keypoints_3d.isfinite().all()
    assert not truth.visible[:, 1].any()
    with pytest.raises(InputError, match=r"keypoints_3d\[1\](\[.\])? cannot be (None|nan|inf); it must be"):
        read(folder, **ALONE | {"keypoints_3d": [[0, 0, 0], unknown]}, known=[True, True])


def test_places_in_pictures_alone_are_ground_truth(folder):
    truth = read(folder, keypoints_2d=[[[0.25, 0.5], None, [1.2, 0.5]]]).truth
    assert truth.visible.tolist() == [[True, False, False]]
    assert truth.known.all()
    assert truth.keypoints_3d is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"keypoints_3d": [[0, 40, 0]]}, "keypoints_3d are outside of every view; they must be in the world of the"),
        ({"keypoint_names": ["a"]}, "keypoints_3d has 3 entries for the 1 landmarks in keypoint_names"),
        ({"known": [True]}, "known has 1 entries for the 3 landmarks in keypoints_3d"),
        ({"visible": [[True] * 3] * 6}, "visible has 6 entries for the input view and the 6 views"),
        ({"boxes": [[1, 1]]}, "boxes has 1 entries for the input view"),
        ({"input_camera": {}}, "input_camera lacks world_to_camera"),
        ({"input_camera": ALONE["cameras"]}, "input_camera has 6 views; it must have one"),
        ({"pairs": [[0, 3]]}, "the 3 landmarks are counted from 0"),
    ],
)
def test_points_in_space_that_contradict_something_are_told(folder, change, says):
    with pytest.raises(InputError, match=says):
        read(folder, **ALONE | change)


def test_separate_views_read_like_a_grid(folder):
    expected = load_object(folder)
    views, _ = pictures()
    (folder / "grid.png").unlink()
    for i in range(6):
        Image.fromarray(views[:, i].permute(1, 2, 0).numpy(), "RGBA").save(folder / f"view_{i}.png")
    found = load_object(folder)
    assert torch.equal(found.views, expected.views)
    assert torch.equal(found.masks, expected.masks)
    Image.new("RGB", (16, 20)).save(folder / "view_3.png")
    with pytest.raises(InputError, match="differ in size"):
        load_object(folder)


def test_what_a_path_may_be(folder, tmp_path):
    data = folder.parent
    assert [thing.name for thing in load_dataset(data)] == ["thing"]
    assert [thing.name for thing in load_dataset(folder)] == ["thing"]
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("b.png", "a.jpg", "notes.txt"):
        (plain / name).write_text("x") if name.endswith("txt") else Image.new("RGB", (9, 9)).save(plain / name)
    found = load_dataset(plain)
    assert [thing.name for thing in found] == ["a", "b"]
    assert [thing.name for thing in found[1:]] == ["b"]
    assert found[0].views is None
    assert [thing.name for thing in load_dataset(plain / "b.png")] == ["b"]
    with pytest.raises(InputError, match=r"notes\.txt"):
        load_dataset(plain / "notes.txt")
    with pytest.raises(InputError, match="no file or folder"):
        load_dataset(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "other"}, "format"),
        ({"layout": [3]}, r"layout cannot be \[3\]; it must be a list of length 2"),
        ({"layout": [2, 2]}, "cameras"),
        ({"keypoints_2d": []}, "landmarks need keypoint_names, keypoints_3d and keypoints_2d not empty, or left out"),
        ({"symmetry": 0}, "symmetry cannot be 0; it must be a whole number >= 1 and <= 360 or 'round'"),
        ({"symmetry": "square"}, "symmetry cannot be 'square'"),
        ({"input_elevation_deg": "high"}, "input_elevation_deg cannot be 'high'"),
    ],
)
def test_a_contradictory_description_is_refused(folder, change, says):
    path = folder / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=says):
        load_object(folder)


def test_damaged_files_are_named(folder):
    (folder / "meta.json").write_text("{")
    with pytest.raises(InputError, match=r"meta\.json"):
        load_object(folder)


def test_a_missing_input_picture_is_named(folder):
    (folder / "cond.png").unlink()
    with pytest.raises(InputError, match=r"cond\.png"):
        load_object(folder)


def test_writing_leaves_the_old_object_when_it_fails(folder, monkeypatch):
    before = (folder / "meta.json").read_text()
    monkeypatch.setattr(Image.Image, "save", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(InputError, match="disk full"):
        write_object(folder, Image.new("RGB", (8, 8)), Image.new("RGB", (16, 24)), LAYOUT, meta(), overwrite=True)
    assert (folder / "meta.json").read_text() == before
    assert [path.name for path in folder.parent.iterdir()] == ["thing"]


def test_transparency_of_every_kind_gives_a_silhouette():
    alpha = np.zeros((8, 8), np.uint8)
    alpha[2:5] = 255
    rgba = Image.merge("RGBA", [*Image.new("RGB", (8, 8), "white").split(), Image.fromarray(alpha)])
    grey_alpha = Image.merge("LA", [Image.new("L", (8, 8), 255), Image.fromarray(alpha)])
    for image in (rgba, grey_alpha):
        picture, mask = to_tensor(image)
        assert torch.equal(mask, torch.from_numpy(alpha > 0))
        assert picture[:, mask].eq(1).all()
        torch.testing.assert_close(picture[:, ~mask], torch.full_like(picture[:, ~mask], 127 / 255))
    assert to_tensor(Image.new("L", (8, 8)))[1] is None


def test_a_picture_of_the_least_size_is_read(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    assert load_image(tmp_path / "small.png").size == (8, 8)
    Image.new("RGB", (8, 7)).save(tmp_path / "smaller.png")
    with pytest.raises(InputError, match="8x7"):
        load_image(tmp_path / "smaller.png")


def test_truth_is_asked_for_by_name(folder):
    thing = load_object(folder)
    assert stack_truths([thing])[0] is thing.truth
    (plain,) = load_dataset(folder / "cond.png")
    with pytest.raises(InputError, match="cond has no ground truth"):
        stack_truths([thing, plain])
