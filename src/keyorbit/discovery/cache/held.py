"""A cache on disk for a device that is not the CPU: what was read once stays there, or in the computer's memory."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.budget import free_device_bytes, free_host_bytes
from keyorbit.diffusion.maps import LayerMaps
from keyorbit.diffusion.model_facts import ModelFacts
from keyorbit.diffusion.prepare import Shown
from keyorbit.diffusion.queries import QueryCache

if TYPE_CHECKING:
    from keyorbit.discovery.cache.disk import DiskCache


class HeldCache:
    """A :class:`keyorbit.discovery.source.Source` of an opened cache.

    Objects stay on the device in the type that they are stored in while there is room, then in the computer's memory.
    The others are read by a thread while the step before them is computed, so that the disk is what limits the speed.

    Args:
        cache: the cache.
        device_bytes: room on the device; default half of what is free there.
        host_bytes: room in memory; default half of what is free there.
    """

    def __init__(self, cache: "DiskCache", device_bytes: int | None = None, host_bytes: int | None = None) -> None:
        self.cache = cache
        free = free_host_bytes()
        self.device_room = free_device_bytes(cache.device, free) // 2 if device_bytes is None else device_bytes
        self.host_room = free // 2 if host_bytes is None else host_bytes
        self.on_device: dict[int, QueryCache] = {}
        self.in_memory: dict[int, list[Tensor]] = {}
        self._coming: dict[int, Future[list[Tensor]]] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="keyorbit-cache")

    @property
    def facts(self) -> ModelFacts:
        return self.cache.facts

    @property
    def versions(self) -> int:
        return self.cache.versions

    @property
    def device(self) -> torch.device:
        return self.cache.device

    @property
    def mark(self) -> str:
        return self.cache.mark

    def __len__(self) -> int:
        return len(self.cache)

    def shown(self, number: int) -> Shown:
        return self.cache.shown(number)

    def ahead(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            if not any(number in place for place in (self.on_device, self.in_memory, self._coming)):
                self._coming[number] = self._reader.submit(self._read, number)

    def maps(self, number: int, tokens: Float[Tensor, "token width"]) -> list[LayerMaps]:
        return self.queries(number).maps(tokens, slice(None), self.cache.index.maps)

    def queries(self, number: int) -> QueryCache:
        """One object's queries, on the device."""
        if number in self.on_device:
            return self.on_device[number]
        if number in self.in_memory:
            read = self.in_memory[number]
        else:
            coming = self._coming.pop(number, None)
            read = self._read(number) if coming is None else coming.result()
        size = sum(_rounded(x.nbytes) for x in read)
        found = self.cache.assembled([x.to(self.device, non_blocking=True) for x in read])
        if size <= self.device_room:
            self.device_room -= size
            self.on_device[number] = found
        elif number not in self.in_memory and size <= self.host_room:
            self.host_room -= size
            self.in_memory[number] = read
        return found

    def _read(self, number: int) -> list[Tensor]:
        """An object's tensors in memory: pinned, from where a GPU copies without being waited for."""
        read = self.cache.stored(number)
        if torch.cuda.is_available():
            # Where no more can be pinned, copies wait.
            with suppress(RuntimeError):
                return [x.pin_memory() for x in read]
        return [x.clone() for x in read]


def _rounded(count: int) -> int:
    """Bytes that pinned memory takes: torch rounds up to a power of two."""
    return 1 << (count - 1).bit_length() if torch.cuda.is_available() else count
