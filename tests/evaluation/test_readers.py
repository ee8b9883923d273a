"""Readers find pictures and landmarks in the published layouts, and name what a folder lacks."""

import json
import pickle
import shutil

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from helpers import layouts
from keyorbit.errors import InputError
from keyorbit.evaluation.readers import DATASETS, read_dataset
from keyorbit.output.coco import coco_dict
from keyorbit.output.pictured import Pictured

WRITERS = {
    "celeba-aligned": layouts.write_celeba,
    "celeba-wild": layouts.write_celeba,
    "cub-001": layouts.write_cub,
    "cub-aligned": layouts.write_cub,
    "deepfashion": layouts.write_deepfashion,
    "taichi": layouts.write_taichi,
    "human3.6m": layouts.write_human36m,
    "unaligned-human3.6m": layouts.write_human36m_frames,
    "spair-71k/cat": layouts.write_spair,
    "coco": layouts.write_coco,
    "keypointnet/chair": layouts.write_keypointnet,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder in each data set's layout, written once."""
    made = {}
    for name, write in WRITERS.items():
        root = tmp_path_factory.mktemp(name.replace("/", "_"))
        write(root)
        made[name] = root
    return made


def landmarks(thing):
    return thing.truth.keypoints_2d[0]


def test_celeba_has_five_landmarks_and_mafls_splits(folders):
    aligned = read_dataset("celeba-aligned", folders["celeba-aligned"], "test")
    assert [thing.name for thing in aligned] == ["000003", "000004"]
    assert aligned[0].input_image.size == (20, 20)
    torch.testing.assert_close(landmarks(aligned[0])[1], torch.tensor([2 / 20, 3 / 10]))
    assert aligned[0].truth.keypoints_3d is None
    wild = read_dataset("celeba-wild", folders["celeba-wild"], "test")
    assert [thing.name for thing in wild] == ["000004"]
    torch.testing.assert_close(landmarks(wild[0])[1], torch.tensor([3 / 20, 4 / 10]))
    assert len(read_dataset("celeba-aligned", folders["celeba-aligned"], "train")) == 2


def test_celeba_may_have_its_pictures_as_jpeg(tmp_path):
    layouts.write_celeba(tmp_path)
    old, new = tmp_path / "Img" / "img_align_celeba_png", tmp_path / "Img" / "img_align_celeba"
    new.mkdir()
    for file in old.iterdir():
        Image.open(file).save(new / f"{file.stem}.jpg")
    shutil.rmtree(old)
    assert len(read_dataset("celeba-aligned", tmp_path, "train")) == 2


@pytest.mark.parametrize("write", [layouts.write_cub, layouts.write_cub_mat])
def test_cub_is_cropped_about_the_box(write, tmp_path):
    write(tmp_path)
    (bird,) = read_dataset("cub-001", tmp_path, "test")
    assert bird.name == "b_2"
    assert bird.input_image.mode == "RGB"
    # The square about the pixels 2…10 × 1…7, 5 % wider all round: 2…10 × 0…8, as the published code rounds.
    assert bird.input_image.size == (9, 9)
    torch.testing.assert_close(landmarks(bird)[0], torch.tensor([(2.5 - 2) / 9, (4 / 3 - 0) / 9]))
    assert bird.truth.known.tolist() == [part != 3 for part in range(15)]
    assert [thing.name for thing in read_dataset("cub-all", tmp_path, "test")] == ["b_2", "c_3"]
    assert [thing.name for thing in read_dataset("cub-002", tmp_path, "test")] == ["c_3"]
    (bird,) = read_dataset("cub-aligned", tmp_path, "train")
    # Within the picture: 2…10 × 0…8.
    torch.testing.assert_close(landmarks(bird)[0], torch.tensor([0.5 / 8, (4 / 3) / 8]))


def test_cub_aligned_reads_autolinks_file(tmp_path):
    h5py = pytest.importorskip("h5py")
    places = np.random.default_rng(0).random((3, 15, 2)).astype(np.float32)
    with h5py.File(tmp_path / "cub.h5", "w") as file:
        for split, count in (("train", 3), ("test", 2)):
            file[f"{split}_img"] = np.full((count, 3, 16, 16), 7, np.uint8)
            file[f"{split}_kp"] = places[:count]
            file[f"{split}_vis"] = np.ones((count, 15), np.uint8)
    birds = read_dataset("cub-aligned", tmp_path, "test")
    assert len(birds) == 2
    torch.testing.assert_close(landmarks(birds[1]), torch.from_numpy(places[1][:, ::-1].copy()))


def test_deepfashion_pairs_its_two_lists(folders):
    people = read_dataset("deepfashion", folders["deepfashion"], "test")
    assert [thing.name for thing in people] == ["test_0", "test_1"]
    torch.testing.assert_close(landmarks(people[1])[2], torch.tensor([17 / 256, 32 / 256]))


def test_taichi_takes_zeros_for_unknown(folders):
    people = read_dataset("taichi", folders["taichi"], "train")
    assert people[0].truth.known.tolist() == [True] * 17 + [False]
    torch.testing.assert_close(landmarks(people[1])[3], torch.tensor([31 / 256, 17 / 256]))


def test_a_pickle_is_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was loaded",))

    (tmp_path / "landmark").mkdir()
    (tmp_path / "landmark" / "taichi_test_gt.pkl").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputError, match=r"is a pickle.*to_json"):
        read_dataset("taichi", tmp_path, "test")


def test_human36m_keeps_the_six_actions_and_blacks_out_the_background(folders):
    people = read_dataset("human3.6m", folders["human3.6m"], "train")
    assert [thing.name for thing in people] == [f"S{i}_Directions_1_0001" for i in (1, 5, 6, 7, 8, 9)]
    pixels = np.asarray(people[0].input_image)
    assert pixels[:, 9:].max() == 0
    assert pixels[:, :7].max() > 0
    torch.testing.assert_close(landmarks(people[0])[0], torch.tensor([0.0, 1.0]))
    assert (1, 6) in people[0].truth.pairs
    assert len(read_dataset("human3.6m", folders["human3.6m"], "test")) == 1


def test_human36ms_frames_are_cut_out_about_the_joints(folders, tmp_path):
    people = read_dataset("unaligned-human3.6m", folders["unaligned-human3.6m"], "train")
    assert [thing.name for thing in people][:2] == ["S1_Directions_54138969_000001", "S1_Directions_54138969_000006"]
    assert len(people) == 12
    # Joints from 40 to 71 across, 50 to 60 down: a side of 31. A picture of 90 x 80 leaves margins of 59 and 49, so
    # that all of it is within the square.
    assert people[0].input_image.size == (90, 90)
    torch.testing.assert_close(landmarks(people[0])[0], torch.tensor([40 / 90, 50 / 80]))
    torch.testing.assert_close(landmarks(people[1])[31], torch.tensor([76 / 90, 65 / 80]))
    # Of a large picture it is the square with a margin of 100.
    layouts.write_human36m_frames(tmp_path)
    place = tmp_path / "S11" / "Directions" / "imageSequence" / "54138969" / "img_000001.jpg"
    layouts.picture(place, 1000, 1000)
    with h5py.File(tmp_path / "S11" / "Directions" / "annot.h5", "r+") as file:
        file["pose/2d"][0] = np.stack([np.linspace(400, 500, 32), np.linspace(300, 600, 32)], 1)
    (person, _) = read_dataset("unaligned-human3.6m", tmp_path, "test")
    assert person.input_image.size == (500, 500)  # 300 + 2 x 100, from (200, 200)
    torch.testing.assert_close(landmarks(person)[31], torch.tensor([300 / 500, 400 / 500]))
    place.rename(place.with_name("img_000002.jpg"))
    with pytest.raises(InputError, match=r"annot\.h5 lacks frame 000002 of camera 54138969"):
        read_dataset("unaligned-human3.6m", tmp_path, "test")
    with h5py.File(tmp_path / "S11" / "Directions" / "annot.h5", "r+") as file:
        file["frame"][:] = 2
    with pytest.raises(InputError, match="twice"):
        read_dataset("unaligned-human3.6m", tmp_path, "test")
    with h5py.File(tmp_path / "S11" / "Directions" / "annot.h5", "r+") as file:
        file.move("pose", "other")
        file["pose"] = h5py.ExternalLink("S11/Directions/annot.h5", "other")
    with pytest.raises(InputError, match="no array in this file itself"):
        read_dataset("unaligned-human3.6m", tmp_path, "test")


def test_spair_knows_its_landmarks_and_boxes(folders):
    cats = read_dataset("spair-71k/cat", folders["spair-71k/cat"], "test")
    assert [thing.name for thing in cats] == ["2008_002", "2008_003"]
    truth = cats[0].truth
    assert truth.known.tolist() == [j < 15 and j != 3 for j in range(30)]
    torch.testing.assert_close(truth.keypoints_2d[0, 4], torch.tensor([4 / 20, 2 / 10]))
    torch.testing.assert_close(truth.boxes, torch.tensor([[0.8, 0.8]]))
    assert len(read_dataset("spair-71k/cat", folders["spair-71k/cat"], "validation")) == 2


def test_coco_cuts_out_every_marked_object(folders):
    (person,) = read_dataset("coco", folders["coco"], "test")
    assert person.name == "000000000001_7"
    assert person.truth.known.tolist() == [True, False, True]
    # The box 3…13 × 2…8, as a square 12 pixels wide, from (2, -1).
    torch.testing.assert_close(landmarks(person)[0], torch.tensor([(4 - 2) / 12, (3 + 1) / 12]))
    assert person.truth.pairs == ((1, 2),)


VIEWS = {"view.png": [1.0, 1.0], "input.png": [0.0, 1.0], "view_0.png": [0.0, 0.0]}


def test_coco_reads_what_detection_writes(tmp_path):
    xy = torch.tensor([[0.25, 0.5], [0.75, 0.25]])
    for name in VIEWS:
        layouts.picture(tmp_path / name, 16, 16)
    data = coco_dict([Pictured.detected(name, 16, 16, xy, torch.tensor(score)) for name, score in VIEWS.items()], 2)
    (tmp_path / "coco.json").write_text(json.dumps(data))
    both, one = read_dataset("coco", tmp_path / "coco.json")
    assert both.truth.known.all()
    # The keypoints' box is 8 x 4 pixels from (4, 4); its square, a tenth wider, is cut at whole pixels.
    torch.testing.assert_close(landmarks(both), torch.tensor([[0.1, 0.7], [0.9, 0.3]]))
    assert one.truth.known.tolist() == [False, True]


def test_keypointnet_is_rendered_with_truth_in_2d_and_3d(folders):
    chairs = read_dataset("keypointnet/chair", folders["keypointnet/chair"], "train", size=32)
    mesh, cloud = chairs
    assert mesh.truth.names == ("semantic 0", "semantic 4", "semantic 7")
    assert cloud.truth.known.tolist() == [True, True, False]
    for thing in (mesh, cloud):
        assert thing.views.shape == (6, 3, 32, 32)
        front, top = thing.truth.keypoints_3d[:2]
        # ShapeNet's front (−z) is our +x and its top (+y) our +z; the box fits the sphere of radius 0.5.
        scale = 0.5 / np.linalg.norm([0.2, 0.4, 0.3])
        torch.testing.assert_close(front, torch.tensor([0.3 * scale, 0.0, 0.0]).float(), atol=0.02, rtol=0)
        torch.testing.assert_close(top, torch.tensor([0.0, 0.0, 0.4 * scale]).float(), atol=0.02, rtol=0)
        torch.testing.assert_close(thing.truth.keypoints_2d[1:], thing.cameras.project(thing.truth.keypoints_3d))
        # The front of the object is seen by the camera in front of it and by none behind.
        assert thing.truth.visible[0, 0]
        assert not thing.truth.visible[4, 0]
        assert thing.masks.float().mean() > 0.1
        assert thing.views[:, 0][thing.masks].mean() > 3 * thing.views[:, 1][thing.masks].mean()
    right = mesh.truth.keypoints_3d[2]
    torch.testing.assert_close(right, torch.tensor([0.0, -0.2 * scale, 0.0]).float())
    assert mesh.truth.surface.shape == (2048, 3)


MISSING = [
    ("celeba-aligned", "Anno/list_landmarks_align_celeba.txt", "list_landmarks_align_celeba.txt"),
    ("celeba-aligned", "MAFL/testing.txt", "testing.txt"),
    ("celeba-aligned", "Img/img_align_celeba_png", "img_align_celeba_png"),
    ("celeba-aligned", "Img/img_align_celeba_png/000003.png", "000003.png"),
    ("celeba-wild", "Anno/list_bbox_celeba.txt", "list_bbox_celeba.txt"),
    ("celeba-wild", "Img/img_celeba", "img_celeba"),
    ("cub-001", "CUB_200_2011", "CUB_200_2011"),
    ("cub-001", "CUB_200_2011/parts/part_locs.txt", "part_locs.txt"),
    ("cub-001", "CUB_200_2011/bounding_boxes.txt", "bounding_boxes.txt"),
    ("cub-001", f"CUB_200_2011/images/{layouts.BIRDS[1]}.jpg", "b_2.jpg"),
    ("cub-aligned", f"CUB_200_2011/images/{layouts.BIRDS[1]}.jpg", "b_2.jpg"),
    ("deepfashion", "data_test.csv", "data_test.csv"),
    ("deepfashion", "data_test.json", "data_test.json"),
    ("deepfashion", "img/test_1.jpg", "test_1.jpg"),
    ("taichi", "landmark/taichi_test_gt.json", "taichi_test_gt.json"),
    ("taichi", "eval_images/taichi-256/test", "test"),
    ("human3.6m", "S11", "S11"),
    ("human3.6m", "S11/Landmarks/Directions 1/0001.mat", "0001.mat"),
    ("human3.6m", "S11/BackgroudMask/Directions 1/0001.png", "0001.png"),
    ("unaligned-human3.6m", "S11", "S11"),
    ("unaligned-human3.6m", "S11/Directions/annot.h5", "annot.h5"),
    ("unaligned-human3.6m", "S11/Directions/imageSequence", "imageSequence"),
    ("spair-71k/cat", "Layout/large/test.txt", "test.txt"),
    ("spair-71k/cat", "ImageAnnotation/cat/2008_003.json", "2008_003.json"),
    ("spair-71k/cat", "JPEGImages/cat", "cat"),
    ("coco", "annotations/person_keypoints_val2017.json", "person_keypoints_val2017.json"),
    ("coco", "val2017", "val2017"),
    ("keypointnet/chair", "annotations/chair.json", "chair.json"),
    ("keypointnet/chair", "splits/test.txt", "test.txt"),
    ("keypointnet/chair", f"pcds/{layouts.CHAIR}/b.pcd", "b.pcd"),
]


@pytest.mark.parametrize(("name", "piece", "named"), MISSING)
def test_a_missing_piece_is_named(name, piece, named, tmp_path):
    WRITERS[name](tmp_path)
    gone = tmp_path / piece
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(InputError) as caught:
        read_dataset(name, tmp_path, "test")
    assert named in str(caught.value)


DAMAGED = [
    ("celeba-aligned", "Anno/list_landmarks_align_celeba.txt"),
    ("cub-001", "CUB_200_2011/parts/part_locs.txt"),
    ("deepfashion", "data_test.json"),
    ("taichi", "landmark/taichi_test_gt.json"),
    ("human3.6m", "S11/Landmarks/Directions 1/0001.mat"),
    ("unaligned-human3.6m", "S11/Directions/annot.h5"),
    ("spair-71k/cat", "ImageAnnotation/cat/2008_003.json"),
    ("spair-71k/cat", "Layout/large/test.txt"),
    ("coco", "annotations/person_keypoints_val2017.json"),
    ("keypointnet/chair", "annotations/chair.json"),
]


@pytest.mark.parametrize(("name", "piece"), DAMAGED)
@pytest.mark.parametrize("content", ["1\n2\nnonsense here\n", '{"a": 1}', "[1]"])
def test_a_damaged_piece_is_named(name, piece, content, tmp_path):
    WRITERS[name](tmp_path)
    (tmp_path / piece).write_text(content)
    with pytest.raises(InputError) as caught:
        read_dataset(name, tmp_path, "test")
    assert (tmp_path / piece).name in str(caught.value)


def test_a_damaged_cloud_is_named(tmp_path):
    layouts.write_keypointnet(tmp_path)
    (tmp_path / "pcds" / layouts.CHAIR / "b.pcd").write_text("DATA binary")
    with pytest.raises(InputError, match=r"b\.pcd"):
        read_dataset("keypointnet/chair", tmp_path, "test")[0]


@pytest.mark.parametrize("name", ["nope", "spair-71k", "spair-71k/unicorn", "keypointnet/unicorn"])
def test_an_unknown_data_set_is_told_the_known_ones(name, folders):
    folder = folders["spair-71k/cat"] if name.startswith("spair") else folders["keypointnet/chair"]
    with pytest.raises(InputError, match=r"known are|has cat"):
        read_dataset(name, folder)


def test_an_unknown_split_and_a_missing_folder_are_told(folders, tmp_path):
    with pytest.raises(InputError, match="splits train, test"):
        read_dataset("taichi", folders["taichi"], "half")
    with pytest.raises(InputError, match="no folder"):
        read_dataset("taichi", tmp_path / "nowhere")


def test_a_slice_reads_no_more_than_it_must(folders):
    aligned = read_dataset("celeba-aligned", folders["celeba-aligned"], "train")
    assert [thing.name for thing in aligned[1:]] == ["000002"]
    assert aligned[-1].name == "000002"
    with pytest.raises(IndexError):
        aligned[2]


def test_every_reader_is_in_the_list():
    assert {"keyorbit", "celeba-aligned", "cub-all", "spair-71k/CATEGORY", "keypointnet/CATEGORY"} <= set(DATASETS)
