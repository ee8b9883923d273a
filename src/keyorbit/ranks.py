"""One process or many: which part of the work is ours, and sums over all of them (Accelerate, torch.distributed)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from keyorbit.devices import AUTO, resolve_device
from keyorbit.errors import InputError

# The command line asks at its start which process it is: torch is imported where processes talk to each other.
if TYPE_CHECKING:
    import torch

# What torchrun and accelerate set, and the MPIs that accelerate starts with --mpirun_hostfile.
_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_INDICES = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


@dataclass(frozen=True)
class Ranks:
    """This process among ``count`` that do one job together; without a launcher it is the only one.

    A process that dies ends the others as soon as they wait for it.
    """

    index: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and reports what all share."""
        return self.index == 0

    def owns(self, number: int) -> bool:
        """Whether item ``number`` is ours: items go round."""
        return number % self.count == self.index

    def wait(self) -> None:
        """Until all processes are here.

        Raises:
            InputError: one of them is gone.
        """
        if self.count > 1:
            import torch.distributed

            with named_failure():
                torch.distributed.barrier()

    def sum(self, tensor: "torch.Tensor") -> "torch.Tensor":
        """The sum over all processes, the same on each. Where all but one give zeros it is exact.

        Raises:
            InputError: one of them is gone.
        """
        if self.count == 1:
            return tensor
        import torch.distributed

        total = tensor.detach().clone()
        with named_failure():
            torch.distributed.all_reduce(total)
        return total


def launched() -> int:
    """How many processes ``accelerate launch``, ``torchrun`` or ``mpirun`` started for this job; 1 without them."""
    return next((int(os.environ[name]) for name in _COUNTS if name in os.environ), 1)


def first_launched() -> bool:
    """Whether this is the first of those processes, or the only one."""
    return next((os.environ[name] for name in _INDICES if name in os.environ), "0") == "0"


def start_ranks(device: str = AUTO) -> Ranks:
    """This process's place among those that a launcher started; the only one without it.

    On the CPU they talk over gloo, on GPUs over what Accelerate chooses for them. To be called before anything is put
    on ``cuda``: from here on that is this process's own GPU. ``auto``: see :func:`keyorbit.devices.resolve_device`.

    Raises:
        InputError: they do not find each other, or have no way to talk on this kind of device.
    """
    count = launched()
    if count < 2:
        return Ranks()
    import torch
    from accelerate import PartialState

    on_cpu = torch.device(resolve_device(device, count)).type == "cpu"
    # A process that dies closes its connections, which is noticed at once; one that is slow may take hours.
    patience = timedelta(days=7)
    try:
        with named_failure():
            state = (
                PartialState(cpu=True, backend="gloo", timeout=patience) if on_cpu else PartialState(timeout=patience)
            )
    except ValueError as error:
        raise InputError(f"the {count} processes of this run do not find each other: {error}") from error
    if state.num_processes != count:  # each would do the whole job, and write over the others
        raise InputError(f"{count} processes were started, but on {device} here they cannot work together")
    return Ranks(state.process_index, state.num_processes)


@contextmanager
def named_failure() -> Iterator[None]:
    """Where processes wait for each other: what torch says of one that is gone becomes an InputError."""
    try:
        yield
    except RuntimeError as error:
        raise InputError(
            "another process of this run is gone or cannot be reached; what was finished is kept: "
            "start it again ('discover' and 'train' with --resume)"
        ) from error
