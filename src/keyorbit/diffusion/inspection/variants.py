"""The ways of running both passes that are compared, and what each of them costs."""

import statistics
from dataclasses import dataclass
from typing import Literal

Variant = Literal["bare", "isolated", "joint", "stored", "unfused"]
CAPTURES: tuple[Variant, ...] = ("bare", "isolated", "joint")


VARIANTS: tuple[Variant, ...] = (*CAPTURES, "stored", "unfused")
MEANING: dict[Variant, str] = {
    "bare": "text rows only, nothing recorded",
    "isolated": "tokens beside the image branch, their columns recorded",
    "joint": "tokens in the softmax, their columns recorded",
    "stored": "tokens in the softmax, every column of every cross-attention layer stored",
    "unfused": "as stored, and self-attention not fused either",
}


@dataclass(frozen=True)
class Cost:
    """One way's cost: seconds of each round, peak bytes of the process (on a GPU: of its allocations) if known."""

    variant: Variant
    seconds: tuple[float, ...]
    peak_bytes: int | None

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    def slower_than(self, other: "Cost") -> float:
        """The median over rounds of this way's time divided by the other's in the same round."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.seconds, other.seconds, strict=True))
