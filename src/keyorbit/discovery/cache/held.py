"""A cache on disk for a device that is not the CPU: what was read once stays there, or in the computer's memory."""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

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
        size = sum(x.nbytes for x in read)
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
        return [x.pin_memory() if torch.cuda.is_available() else x.clone() for x in read]


def free_host_bytes() -> int:
    """Memory that nobody uses, bytes; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


def free_device_bytes(device: torch.device, host_bytes: int) -> int:
    """The same of a device: a GPU that torch.cuda drives has memory of its own, others share the computer's."""
    own = torch.empty(0, device=device).is_cuda
    return torch.cuda.mem_get_info(device)[0] if own else host_bytes
