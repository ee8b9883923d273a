"""Which of many objects one of several processes does."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from keyorbit.ranks import Ranks

T = TypeVar("T")


def shared(things: Sequence[T], paths: Sequence[Path], ranks: Ranks) -> Sequence[T]:
    """One process's share of objects at paths: where several have one path, a run, so that each reads few."""
    if len(set(paths)) == len(paths):
        return things[ranks.index :: ranks.count]
    first, last = (len(things) * end // ranks.count for end in (ranks.index, ranks.index + 1))
    return things[first:last]
