"""Which objects a made dataset holds, checked before anything is rendered; it needs no torch."""

from pathlib import Path

from keyorbit.errors import InputError
from keyorbit.storage.outputs import OBJECT, check_output
from keyorbit.synthetic.objects import CATEGORIES

MAX_OBJECTS = 10**6


def planned_objects(
    out: Path, category: str, objects: int, seed: int, size: int, shard: tuple[int, int], overwrite: bool
) -> dict[int, Path]:
    """The folder of every object of a shard, by the object's number; arguments as for ``make_dataset``.

    Raises:
        InputError: the category is unknown, a number is out of range, or in an object's place is something else.
    """
    if category not in CATEGORIES:
        raise InputError(f"no category '{category}'; known are: {', '.join(CATEGORIES)}")
    if not 1 <= objects <= MAX_OBJECTS or not 0 <= seed < 1000 or size < 8:
        raise InputError("a dataset has 1 to 1,000,000 objects, a seed of 0 to 999, and views of 8 pixels or more")
    first, step = shard
    if not 0 <= first < step:
        raise InputError(f"there is no shard {first} of {step}: they are numbered 0 to {step - 1}")
    folders = {i: out / f"{category}_{seed}_{i:05d}" for i in range(first, objects, step)}
    for folder in folders.values():
        check_output(folder, OBJECT, overwrite)
    return folders
