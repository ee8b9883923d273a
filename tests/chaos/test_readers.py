"""Published data sets with a damaged file are read, or answered by one sentence that names a file in their folder."""

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import layouts
from helpers.damage import damaged, damages
from keyorbit.errors import InputError
from keyorbit.evaluation.readers import read_dataset


def write_h5(root):
    with h5py.File(root / "cub.h5", "w") as file:
        file["test_img"] = np.full((2, 3, 16, 16), 7, np.uint8)
        file["test_kp"] = np.random.default_rng(0).random((2, 15, 2)).astype(np.float32)
        file["test_vis"] = np.ones((2, 15), np.uint8)


SETS = {
    "celeba-aligned": ("celeba-aligned", layouts.write_celeba),
    "celeba-wild": ("celeba-wild", layouts.write_celeba),
    "cub-001": ("cub-001", layouts.write_cub),
    "cub-aligned": ("cub-aligned", layouts.write_cub),
    "cub.mat": ("cub-all", layouts.write_cub_mat),
    "cub.h5": ("cub-aligned", write_h5),
    "deepfashion": ("deepfashion", layouts.write_deepfashion),
    "taichi": ("taichi", layouts.write_taichi),
    "human3.6m": ("human3.6m", layouts.write_human36m),
    "annot.h5": ("unaligned-human3.6m", layouts.write_human36m_frames),
    "spair-71k": ("spair-71k/cat", layouts.write_spair),
    "coco": ("coco", layouts.write_coco),
    "keypointnet": ("keypointnet/chair", layouts.write_keypointnet),
}


@pytest.mark.parametrize("which", SETS)
def test_a_damaged_file_is_read_or_named(which, tmp_path_factory, tally):
    name, write = SETS[which]
    root = tmp_path_factory.mktemp("published")
    write(root)
    # First what is not a picture: there are many of these, and Pillow's errors are tested elsewhere.
    files = sorted(
        (path for path in root.rglob("*") if path.is_file()), key=lambda p: (p.suffix in (".jpg", ".png"), p)
    )
    texts = [path for path in files if path.suffix not in (".jpg", ".png")]

    splits = ("test",) if which in ("coco", "cub.h5") else ("test", "train")
    assert all(len(read_dataset(name, root, split)) for split in splits)  # as they were, they are good

    @given(st.sampled_from([*texts, files]), st.randoms(use_true_random=False), damages())
    def tried(path, random, damage):
        path = random.choice(path) if isinstance(path, list) else path
        said = None
        with damaged(path, damage):
            try:
                for split in splits:
                    for thing in read_dataset(name, root, split, size=8):
                        assert thing.truth.keypoints_2d[0][thing.truth.known].isfinite().all()
            except InputError as error:
                said = str(error)
        assert said is None or (str(root) in said and "\n" not in said)
        tally["readers", which, "one sentence" if said else "accepted"] += 1

    tried()
