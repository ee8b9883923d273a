"""Small folders in the layouts in which data sets are published, written from what their own loaders read."""

import csv
import json

import h5py
import numpy as np
import scipy.io
import trimesh
from PIL import Image

CELEBA = [f"{i:06d}" for i in range(1, 5)]
CHAIR = "03001627"


def picture(path, width=20, height=10, mode="RGB", seed=0):
    """A picture of noise, so that no two are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def write_celeba(root):
    """Pictures 1 and 2 for training, 3 and 4 for testing; the face of 3 is small in the wild picture."""
    for folder in ("Anno", "MAFL"):
        (root / folder).mkdir(parents=True)
    columns = (
        "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    )
    for name, shift in (("align_", 0), ("", 1)):
        rows = [f"{n}.jpg  {' '.join(str(j + shift) for j in range(10))}" for n in CELEBA]
        (root / "Anno" / f"list_landmarks_{name}celeba.txt").write_text("\n".join([str(len(rows)), columns, *rows]))
    boxes = [f"{n}.jpg  0 0 {1 if n == CELEBA[2] else 18} 9" for n in CELEBA]
    (root / "Anno" / "list_bbox_celeba.txt").write_text("\n".join(["4", "image_id x_1 y_1 width height", *boxes]))
    (root / "MAFL" / "training.txt").write_text("".join(f"{n}.jpg\n" for n in CELEBA[:2]))
    (root / "MAFL" / "testing.txt").write_text("".join(f"{n}.jpg\n" for n in CELEBA[2:]))
    for i, n in enumerate(CELEBA):
        picture(root / "Img" / "img_align_celeba_png" / f"{n}.png", seed=i)
        picture(root / "Img" / "img_celeba" / f"{n}.jpg", seed=i)


BIRDS = ("001.Black_footed_Albatross/a_1", "001.Black_footed_Albatross/b_2", "002.Laysan_Albatross/c_3")


def write_cub(root):
    """Caltech's text files: a is for training, b and c are for testing; box 2, 1, 8 × 6 of 20 × 10 pixels."""
    root = root / "CUB_200_2011"
    (root / "parts").mkdir(parents=True)
    for i, bird in enumerate(BIRDS):
        picture(root / "images" / f"{bird}.jpg", seed=i, mode="L" if i == 1 else "RGB")
    lines = {
        "images.txt": [f"{i} {bird}.jpg" for i, bird in enumerate(BIRDS, 1)],
        "image_class_labels.txt": ["1 1", "2 1", "3 2"],
        "train_test_split.txt": ["1 1", "2 0", "3 0"],
        "bounding_boxes.txt": [f"{i} 2.0 1.0 8.0 6.0" for i in (1, 2, 3)],
        "parts/parts.txt": [f"{p} part{p}" for p in range(1, 16)],
        "parts/part_locs.txt": [
            f"{i} {p} 0.0 0.0 0" if p == 4 else f"{i} {p} {2.0 + p / 2} {1.0 + p / 3} 1"
            for i in (1, 2, 3)
            for p in range(1, 16)
        ],
    }
    for name, rows in lines.items():
        (root / name).write_text("\n".join(rows) + "\n")


def write_cub_mat(root):
    """CMR's cleaned annotations beside the pictures: counted from 1, as MATLAB does."""
    write_cub(root)
    folder = root / "CUB_200_2011" / "cachedir" / "cub" / "data"
    folder.mkdir(parents=True)
    parts = np.array([[3.0 + p / 2 for p in range(1, 16)], [2.0 + p / 3 for p in range(1, 16)], np.ones(15)])
    parts[2, 3] = 0
    for split, chosen in (("train", BIRDS[:1]), ("test", BIRDS[1:])):
        images = np.zeros(len(chosen), dtype=[("rel_path", object), ("bbox", object), ("parts", object)])
        for i, bird in enumerate(chosen):
            images[i]["rel_path"] = f"{bird}.jpg"
            images[i]["bbox"] = {"x1": 3.0, "y1": 2.0, "x2": 11.0, "y2": 8.0}
            images[i]["parts"] = parts
        scipy.io.savemat(folder / f"{split}_cub_cleaned.mat", {"images": images})


def write_deepfashion(root):
    """Two people a split, 16 landmarks in a square of 256."""
    for split in ("train", "test"):
        names = [f"{split}_{i}.jpg" for i in range(2)]
        with (root / f"data_{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["", "filename"], *[[i, n] for i, n in enumerate(names)]])
        places = [{"keypoints": [[8 * j + i, 16 * j] for j in range(16)]} for i in range(2)]
        (root / f"data_{split}.json").write_text(json.dumps(places))
        for i, name in enumerate(names):
            picture(root / "img" / name, 256, 256, seed=i)


def write_taichi(root):
    """Two frames a split with 18 landmarks of which the last is unknown."""
    (root / "landmark").mkdir()
    for split in ("train", "test"):
        rows = []
        for i in range(2):
            value = [[float(10 * j + 1), float(5 * j + 2)] for j in range(17)] + [[0.0, 0.0]]
            rows.append({"value": value, "file_name": f"{split}_{i}.png"})
            picture(root / "eval_images" / "taichi-256" / split / f"{split}_{i}.png", 256, 256, seed=i)
        (root / "landmark" / f"taichi_{split}_gt.json").write_text(json.dumps(rows))


def write_human36m(root):
    """One frame of one action for each subject; the mask keeps the left half."""
    for subject in (1, 5, 6, 7, 8, 9, 11):
        for action in ("Directions 1", "Eating"):
            base = root / f"S{subject}"
            picture(base / "WithBackground" / action / "0001.jpg", 16, 16, seed=subject)
            mask = np.zeros((16, 16), np.uint8)
            mask[:, :8] = 1
            (base / "BackgroudMask" / action).mkdir(parents=True)
            Image.fromarray(mask).save(base / "BackgroudMask" / action / "0001.png")
            (base / "Landmarks" / action).mkdir(parents=True)
            xy = np.stack([np.linspace(0, 1, 32), np.linspace(1, 0, 32)], 1)
            scipy.io.savemat(base / "Landmarks" / action / "0001.mat", {"keypoints_2d": xy})


def write_human36m_frames(root):
    """Two frames of one camera for each subject; joints between 40 and 71, a picture of 90 x 80."""
    for subject in (1, 5, 6, 7, 8, 9, 11):
        for action in ("Directions", "Eating"):
            base = root / f"S{subject}" / action
            for frame in (1, 6):
                picture(base / "imageSequence" / "54138969" / f"img_{frame:06d}.jpg", 90, 80, seed=frame)
            with h5py.File(base / "annot.h5", "w") as file:
                file["camera"] = np.full(2, 54138969)
                file["frame"] = np.array([1, 6])
                xy = np.stack([np.linspace(40, 71, 32), np.linspace(50, 60, 32)], 1)
                file["pose/2d"] = np.stack([xy, xy + 5])


def write_spair(root):
    """Three cats and a dog; the pair of the test split joins cats 2 and 3, that of training 1 and 2."""
    (root / "Layout" / "large").mkdir(parents=True)
    lists = {
        "trn": ["000001-2008_001-2008_002:cat"],
        "val": ["000001-2008_001-2008_003:cat"],
        "test": ["000001-2008_002-2008_003:cat", "000002-2008_009-2008_009:dog"],
    }
    for name, rows in lists.items():
        (root / "Layout" / "large" / f"{name}.txt").write_text("\n".join(rows) + "\n")
    for i, (category, stem) in enumerate([*(("cat", f"2008_00{n}") for n in (1, 2, 3)), ("dog", "2008_009")]):
        picture(root / "JPEGImages" / category / f"{stem}.jpg", seed=i)
        kps = {str(j): [j, j // 2] if j < 15 and j != 3 else None for j in range(30)}
        (root / "ImageAnnotation" / category).mkdir(parents=True, exist_ok=True)
        told = {"filename": f"{stem}.jpg", "category": category, "bndbox": [2, 1, 18, 9], "kps": kps, "pose": "Left"}
        (root / "ImageAnnotation" / category / f"{stem}.json").write_text(json.dumps(told))


def write_coco(root):
    """A val2017 of one picture with a person, a person without landmarks, and a crowd."""
    picture(root / "val2017" / "000000000001.jpg")
    (root / "annotations").mkdir()
    points = [4, 3, 2, 0, 0, 0, 12, 7, 1]
    data = {
        "images": [{"id": 1, "file_name": "000000000001.jpg", "width": 20, "height": 10}],
        "categories": [{"id": 1, "name": "person", "keypoints": ["nose", "left_eye", "right_eye"]}],
        "annotations": [
            {"id": 7, "image_id": 1, "category_id": 1, "keypoints": points, "bbox": [3, 2, 10, 6], "iscrowd": 0},
            {"id": 8, "image_id": 1, "category_id": 1, "keypoints": [0] * 9, "bbox": [3, 2, 10, 6], "iscrowd": 0},
            {"id": 9, "image_id": 1, "category_id": 1, "keypoints": points, "bbox": [3, 2, 10, 6], "iscrowd": 1},
        ],
    }
    (root / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(data))


def write_keypointnet(root):
    """Chair a has a mesh, chair b points only; b lacks the third landmark. ShapeNet: y up, looking along −z."""
    for folder in ("annotations", f"ShapeNetCore.v2.ply/{CHAIR}", f"pcds/{CHAIR}", "splits"):
        (root / folder).mkdir(parents=True)
    box = trimesh.creation.box((0.4, 0.8, 0.6))
    box.visual.vertex_colors = np.tile([255, 0, 0, 255], (len(box.vertices), 1))
    box.export(root / "ShapeNetCore.v2.ply" / CHAIR / "a.ply")
    points = trimesh.sample.sample_surface(box, 400, seed=0)[0]
    header = "VERSION .7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F U\nCOUNT 1 1 1 1\nWIDTH 400\nHEIGHT 1\n"
    header += "VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 400\nDATA ascii\n"
    rows = "\n".join(f"{x:.6f} {y:.6f} {z:.6f} {255 << 16}" for x, y, z in points)
    (root / "pcds" / CHAIR / "b.pcd").write_text(header + rows + "\n")

    def keypoint(semantic, xyz):
        on_mesh = {"face_index": 0, "face_uv": [0.2, 0.4, 0.4]}
        pcd = {"point_index": 0}
        return {"xyz": xyz, "rgb": [255, 0, 0], "semantic_id": semantic, "pcd_info": pcd, "mesh_info": on_mesh}

    front, top, right = [0.0, 0.0, -0.3], [0.0, 0.4, 0.0], [0.2, 0.0, 0.0]
    circle = {"kp_indexes": [0, 1], "is_circle": False, "circle": {}}
    symmetries = {"symmetries": {"reflection": [{"kp_indexes": [0, 1]}], "rotation": [circle]}}
    told = [
        {"class_id": CHAIR, "model_id": "a", "keypoints": [keypoint(0, front), keypoint(4, top), keypoint(7, right)]},
        {"class_id": CHAIR, "model_id": "b", "keypoints": [keypoint(0, front), keypoint(4, top)]} | symmetries,
    ]
    (root / "annotations" / "chair.json").write_text(json.dumps(told))
    for name, models in (("train", "ab"), ("val", "a"), ("test", "b")):
        rows = [f"{CHAIR}-{model}" for model in models] + ["02691156-elsewhere"]
        (root / "splits" / f"{name}.txt").write_text("\n".join(rows) + "\n")
