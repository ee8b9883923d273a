"""The whole loss of a step as one compiled function: a step of the tiny model is bound by launching its kernels."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def maybe_compiled(loss: Callable[[T], dict[str, Tensor]], compiled: bool) -> Callable[[T], dict[str, Tensor]]:
    """``loss`` as it is, or compiled whole for tensors of always the same shapes, on CUDA with CUDA graphs.

    The first step of each kind takes minutes; a function that cannot be compiled in one piece is an error.
    """
    if not compiled:
        return loss
    found: Callable[[T], dict[str, Tensor]] = torch.compile(loss, fullgraph=True, dynamic=False, mode="reduce-overhead")
    return found
