"""Read published data sets from the folders in which they are published. Nothing is downloaded, and no pickle is read.

Each reader returns objects like :func:`keyorbit.load_dataset`. Its module lists the files that it reads.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from keyorbit.evaluation.choices import DATASETS, check_dataset
from keyorbit.evaluation.readers.celeba import read_celeba_aligned, read_celeba_wild
from keyorbit.evaluation.readers.coco import read_coco
from keyorbit.evaluation.readers.cub import read_cub, read_cub_aligned
from keyorbit.evaluation.readers.deepfashion import read_deepfashion
from keyorbit.evaluation.readers.human36m import read_human36m
from keyorbit.evaluation.readers.human36m_frames import read_human36m_frames
from keyorbit.evaluation.readers.keypointnet import read_keypointnet
from keyorbit.evaluation.readers.spair import read_spair
from keyorbit.evaluation.readers.taichi import read_taichi
from keyorbit.objects.dataset import Objects, load_dataset

Reader = Callable[[Path, str], Objects]
VIEW_SIZE = 256


def _read_own(folder: Path, split: str) -> Objects:
    """Read a folder of our own, which has one split: all objects."""
    return load_dataset(folder)


READERS: dict[str, Reader] = {
    "keyorbit": _read_own,
    "celeba-aligned": read_celeba_aligned,
    "celeba-wild": read_celeba_wild,
    "cub-aligned": read_cub_aligned,
    **{f"cub-{which}": partial(read_cub, which=which) for which in ("001", "002", "003", "all")},
    "deepfashion": read_deepfashion,
    "taichi": read_taichi,
    "human3.6m": read_human36m,
    "unaligned-human3.6m": read_human36m_frames,
    "coco": read_coco,
}


def read_dataset(name: str, folder: str | Path, split: str = "test", size: int = VIEW_SIZE) -> Objects:
    """Read the objects of a published data set, each with its ground truth.

    Args:
        name: one of :data:`DATASETS`, such as ``celeba-aligned``, ``spair-71k/cat``, ``keypointnet/chair`` or ``coco``.
        folder: the data set's folder.
        split: ``train`` or ``test`` (default); SPair-71k and KeypointNet have ``validation`` too.
        size: pixels a side of a view, for data sets that are rendered. Default 256.

    Raises:
        InputError: the name is unknown, or the folder lacks a file, which is named.
    """
    folder = Path(folder)
    check_dataset(name, folder)
    family, _, category = name.partition("/")
    if family == "spair-71k":
        return read_spair(folder, split, category)
    if family == "keypointnet":
        return read_keypointnet(folder, split, category, size)
    if family == "coco":
        return read_coco(folder, split, category)
    return READERS[name](folder, split)


__all__ = ["DATASETS", "read_dataset"]
