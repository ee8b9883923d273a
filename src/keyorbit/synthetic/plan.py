"""Which objects a made dataset holds, checked before anything is rendered. It needs no torch."""

from dataclasses import dataclass
from pathlib import Path

from keyorbit.errors import InputError
from keyorbit.storage.outputs import OBJECT, check_output
from keyorbit.synthetic.choices import Degrees, Objects, ObjectSeed, Shard, Side
from keyorbit.synthetic.objects import CATEGORIES
from keyorbit.values import check_fields


@dataclass(frozen=True)
class DatasetSpec:
    """Which procedural objects a dataset holds; the same spec always gives the same files.

    Attributes:
        category: one of :data:`~keyorbit.synthetic.objects.CATEGORIES`.
        objects: how many, 1 to 1,000,000.
        seed: 0 to 999, default 0. Another seed gives other objects. Seeds in this range give object seeds below 10⁹,
            none of which the tiny model was trained on.
        size: pixels a side of a view, 8 or more, default 64.
        turn_deg: degrees by which the input view stands further round the object, default 0. With it the same objects
            are seen after a known motion.
        shard: (i, n) for one of n machines: every n-th object from the i-th on. Default (0, 1): all objects. Names and
            files are those that a single machine would write.

    Raises:
        InputError: the category is unknown, or a number is out of range.
    """

    category: str
    objects: Objects
    seed: ObjectSeed = 0
    size: Side = 64
    turn_deg: Degrees = 0.0
    shard: Shard = (0, 1)

    def __post_init__(self) -> None:
        if self.category not in CATEGORIES:
            raise InputError(f"no category '{self.category}'; known are: {', '.join(CATEGORIES)}")
        check_fields(self)
        first, step = self.shard
        if not 0 <= first < step:
            raise InputError(f"there is no shard {first} of {step}: they are numbered 0 to {step - 1}")

    def folders(self, out: Path, overwrite: bool) -> dict[int, Path]:
        """Return the folder of every object of the shard below ``out``, by the object's number.

        Raises:
            InputError: one of them holds an object and ``overwrite`` is False, or holds something else.
        """
        first, step = self.shard
        folders = {i: out / f"{self.category}_{self.seed}_{i:05d}" for i in range(first, self.objects, step)}
        for folder in folders.values():
            check_output(folder, OBJECT, overwrite)
        return folders
