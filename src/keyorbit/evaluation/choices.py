"""Published data sets and protocols by name. It imports no library: the command line reads it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from keyorbit.discovery.choices import Preset
from keyorbit.discovery.ranges import Rate
from keyorbit.discovery.weights import Strategy, Subjects
from keyorbit.errors import InputError
from keyorbit.objects.shards.places import is_elsewhere
from keyorbit.storage.outputs import OutputKind
from keyorbit.values import Amount, Count, Seed, check_fields

# The folder of an evaluation: a file of each object, the figures, and what was left out.
SCORES, LEFT_OUT = "scores.json", "left_out.jsonl"
_KEPT = tuple(f"{part}/*.{suffix}" for part in ("objects", "fit", "moved") for suffix in ("safetensors", "json"))
EVALUATION = OutputKind("evaluation", (SCORES, LEFT_OUT, *_KEPT))
# Pixels.
ProtocolMapSide = Annotated[int, Meta(ge=2, le=8192)]

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
    "unaligned-human3.6m",
    "coco",
)
# These have a category behind a slash, such as spair-71k/cat; of COCO's files it may be left out.
CATEGORY_DATASETS = ("spair-71k", "keypointnet", "coco")
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
    "unaligned-human3.6m",
)


@dataclass(frozen=True)
class ProtocolConfig:
    """The protocol's settings. The defaults are the original's.

    Attributes:
        preset: ``stablekeypoints``, all as published; or ``keyorbit``, the same numbers with our choices: the UNet
            reads the empty prompt, so that it runs once on each picture. Default ``stablekeypoints``.
        keypoints: number of tokens that are kept. Default 10.
        tokens: number of tokens that are optimised. Default 500.
        steps: of the optimisation. Default 500.
        batch: pictures in a step. Default 4.
        rate: learning rate. Default 0.005.
        pictures: number of train pictures on which the tokens are optimised. Default None: all, but 100 by
            ``keyorbit``, which keeps what the UNet computes of each.
        subjects: how many things of the kind a picture shows. Default 1.
        strategy: how tokens are ranked, see :class:`keyorbit.SingleViewWeights`. Default ``gaussian``.
        fit: largest number of train pictures for the regression. Default 50,000.
        test: number of test pictures. Default None: all.
        augmentations: warped versions of each picture over which a detection is averaged. Default 10.
        map_size: side of the maps, pixels. Default 128.
        seed: all random numbers follow from it. Default 0.

    Raises:
        InputError: a value is out of its range.
    """

    keypoints: Count = 10
    tokens: Count = 500
    steps: Amount = 500
    batch: Count = 4
    rate: Rate = 5e-3
    pictures: Count | None = None
    fit: Count = 50_000
    test: Count | None = None
    augmentations: Amount = 10
    map_size: ProtocolMapSide = 128
    seed: Seed = 0
    preset: Preset = "stablekeypoints"
    subjects: Subjects = 1
    strategy: Strategy = "gaussian"

    def __post_init__(self) -> None:
        check_fields(self)


def check_dataset(name: str, folder: Path) -> None:
    """Raise an error unless a data set may be read from a folder.

    Raises:
        InputError: the name is none of :data:`DATASETS`, or there is no such folder.
    """
    family, _, category = name.partition("/")
    if name not in PLAIN_DATASETS and (family not in CATEGORY_DATASETS or not category):
        raise InputError(f"no data set {name!r}; known are {', '.join(DATASETS)}")
    if not folder.exists() and not (name == "keyorbit" and is_elsewhere(folder)):
        raise InputError(f"there is no folder at {folder}")
