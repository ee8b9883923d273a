"""What becomes of one of many objects."""

from collections.abc import Callable
from dataclasses import dataclass

from keyorbit.detection.found import Detection
from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectViews

# Reads an object when it is its turn.
Read = Callable[[], ObjectViews]


@dataclass(frozen=True, eq=False)
class Attempt:
    """What became of one object.

    Attributes:
        number: of the object among all.
        thing: the object; None where it cannot be read.
        detection: what was found; None where there is a problem.
        problem: why nothing was found. Default None: something was.
    """

    number: int
    thing: ObjectViews | None
    detection: Detection | None
    problem: InputError | None = None
