"""Twice the same command on the same GPU gives the same bytes: torch's deterministic algorithms, within a block."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

# What cuBLAS may choose its workspace from; it reads this once, when it is first used.
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


@contextmanager
def deterministic_algorithms(wanted: bool = True) -> Iterator[None]:
    """Within the ``with`` block, torch takes no algorithm that adds up in another order each time.

    The same work, twice on the same device with the same versions, then gives the same bytes; an operation that has no
    such algorithm raises RuntimeError. On the CPU that is so without this. Enter it before anything is put on a GPU.
    With ``wanted=False`` nothing is changed.
    """
    if not wanted:
        yield
        return
    import torch

    # Outlives the block: cuBLAS has read it by then.
    os.environ.setdefault(*_WORKSPACE)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
