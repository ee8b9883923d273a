"""Published data sets and protocols by name. It imports no library: the command line reads it."""

from dataclasses import dataclass
from pathlib import Path

from keyorbit.errors import InputError

# Those of evaluation/readers; the first is a dataset folder of our own.
PLAIN_DATASETS = (
    "keyorbit",
    "celeba-aligned",
    "celeba-wild",
    "cub-aligned",
    "cub-001",
    "cub-002",
    "cub-003",
    "cub-all",
    "deepfashion",
    "taichi",
    "human3.6m",
    "coco",
)
# These have a category behind a slash, such as spair-71k/cat.
CATEGORY_DATASETS = ("spair-71k", "keypointnet")
DATASETS = (*PLAIN_DATASETS, *(f"{name}/CATEGORY" for name in CATEGORY_DATASETS))
# Those that StableKeypoints' protocol is for.
PROTOCOL_DATASETS = (
    "celeba-aligned",
    "celeba-wild",
    "cub-aligned",
    "cub-001",
    "cub-002",
    "cub-003",
    "cub-all",
    "taichi",
    "deepfashion",
    "human3.6m",
)


@dataclass(frozen=True)
class ProtocolConfig:
    """The protocol's settings; the defaults are the original's.

    tokens optimised, of which ``keypoints`` are kept; pictures: how many train pictures they are optimised on; fit:
    train pictures that the regression sees at most; test: test pictures scored, None for all; augmentations: warped
    versions of each that are averaged; map_size: side of the maps in pixels.
    """

    keypoints: int = 10
    tokens: int = 500
    steps: int = 500
    batch: int = 4
    rate: float = 5e-3
    pictures: int = 100
    fit: int = 50_000
    test: int | None = None
    augmentations: int = 10
    map_size: int = 128
    seed: int = 0


def check_dataset(name: str, folder: Path) -> None:
    """Whether a data set can be read from a folder.

    Raises:
        InputError: the name is none of :data:`DATASETS`, or there is no such folder.
    """
    family, _, category = name.partition("/")
    if name not in PLAIN_DATASETS and (family not in CATEGORY_DATASETS or not category):
        raise InputError(f"no data set {name!r}; known are {', '.join(DATASETS)}")
    if not folder.exists():
        raise InputError(f"there is no folder at {folder}")
