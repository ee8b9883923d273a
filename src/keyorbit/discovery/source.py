"""What a discovery reads: maps of each object from tokens, and what is known of the object and its model.

Recordings in memory, the UNet itself in joint mode (:mod:`keyorbit.discovery.memory`) and a cache on disk
(:mod:`keyorbit.discovery.cache.disk`) give the same.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.diffusion.maps import LayerMaps
from keyorbit.diffusion.model_facts import ModelFacts
from keyorbit.diffusion.prepare import Shown
from keyorbit.errors import InputError
from keyorbit.ranks import Ranks


@runtime_checkable
class Source(Protocol):
    """Objects as a discovery sees them. Only those that this process owns can be asked for."""

    @property
    def facts(self) -> ModelFacts:
        """Of the model."""

    @property
    def versions(self) -> int:
        """How many there are of each object."""

    @property
    def device(self) -> torch.device:
        """Where maps are computed."""

    @property
    def mark(self) -> str:
        """A short hash of what the model is shown of the objects, in order; empty where they are not known yet."""

    def __len__(self) -> int:
        """How many objects there are, here and in other processes."""

    def shown(self, number: int) -> Shown:
        """What there is to know of an object besides its queries."""

    def ahead(self, numbers: Sequence[int]) -> None:
        """What the next step will ask for: time to read it from a disk."""

    def maps(self, number: int, tokens: Float[Tensor, "token width"]) -> list[LayerMaps]:
        """The layers' maps of all versions of an object, differentiable in the tokens; see :meth:`QueryCache.maps`."""


def check_shares(count: int, ranks: Ranks) -> None:
    """Raise InputError unless there is an object for every process."""
    if not count:
        raise InputError("there are no objects to work on")
    if count < ranks.count:
        raise InputError(f"{count} objects cannot be shared by {ranks.count} processes; start fewer")
