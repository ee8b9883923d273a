"""What can be chosen of a discovery, and what it writes. It imports no library: the command line reads it."""

from pathlib import Path
from typing import Literal, get_args

from keyorbit.diffusion.choices import full_name
from keyorbit.errors import InputError
from keyorbit.storage.outputs import OutputKind, check_output

Method = Literal["constellation", "consistency"]
NUM_TOKENS = 16
# The sets of settings that have a name: ours, and StableKeypoints' as its authors published them.
Preset = Literal["keyorbit", "stablekeypoints"]
# What is done as StableKeypoints published it, and not in our way; see DiscoverConfig.published.
Published = Literal["start", "rate", "draws", "ranking", "pair", "pixels", "votes", "reading"]
# Types that a cache's queries can be kept in.
StoredType = Literal["float32", "bfloat16", "float16"]
STORED_TYPES = get_args(StoredType)

CHECKPOINT, SETTINGS, LOSSES = "checkpoint.safetensors", "discover.toml", "losses.jsonl"
RUN = OutputKind(
    "discovery run",
    # Of the commands discover, evaluate and report.
    (CHECKPOINT, "tokens.safetensors", SETTINGS, LOSSES, "run.json", "scores.json", "report.html", "cutouts/*.png"),
    CHECKPOINT,
)
# The marks as they were given, and where they are: what 'keyorbit mark' writes besides a run's tokens.
MARKS, PLACED = "points.json", "placed.json"
MARKED_RUN = OutputKind(RUN.name, (*RUN.files, MARKS, PLACED), words="run")
CACHE_INDEX = "index.json"
CACHE = OutputKind("query cache", (CACHE_INDEX, "model.safetensors", f"shard_{'[0-9]' * 5}*.safetensors"))


def check_stored(given: str) -> str:
    """The type that queries are kept in, given its name, or a short one such as ``bf16``.

    Raises:
        InputError: they cannot be kept in that type.
    """
    name = full_name(given)
    if name not in STORED_TYPES:
        raise InputError(f"queries are stored as {', '.join(STORED_TYPES)}, not {given!r}")
    return name


def check_cache_place(folder: Path) -> None:
    """Whether a cache can be built or gone on with in a folder: one that has an index, ours by its marker, or empty.

    Raises:
        InputError: it holds other files.
    """
    if not (folder / CACHE_INDEX).is_file():
        check_output(folder, CACHE, overwrite=True)  # a build that was killed may have left its marker


def index_file(folder: Path) -> Path:
    """The file in a cache's folder that tells what the cache holds.

    Raises:
        InputError: there is none.
    """
    path = folder / CACHE_INDEX
    if not path.is_file():
        raise InputError(f"{folder} is no query cache: it has no index.json; make one with 'keyorbit cache'")
    return path
