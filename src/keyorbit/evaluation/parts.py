"""The objects that are measured, by the arguments that they were given by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from keyorbit.objects.dataset import ObjectViews


@dataclass(frozen=True)
class Part:
    """The objects of one argument.

    Attributes:
        name: objects, fit or moved.
        count: of them.
        read: reads one, by its number.
        names: of those whose names are known before they are read; else empty.
        digest: of which they are.
    """

    name: str
    count: int
    read: Callable[[int], ObjectViews]
    names: Sequence[str]
    digest: str

    def named(self, number: int) -> str:
        """What an object is called that cannot be read."""
        return self.names[number] if self.names else f"object {number} of {self.name}"


def digest_of(*words: object) -> str:
    """Of which objects these are."""
    return sha256("\0".join(map(str, words)).encode(errors="surrogateescape")).hexdigest()
