"""Counts of what a GPU would be asked to do: kernels, and places where the program waits for it."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# These compute nothing, whatever their schema says.
_FREE = {
    *("detach", "alias", "_unsafe_view", "lift_fresh", "_local_scalar_dense", "promote_types"),
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
}
# These need the device's numbers to go on.
_WAITING = {
    *("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique_dim", "_unique2"),
    *("_linalg_eigh", "linalg_eig", "_linalg_svd"),
}


class Counted(TorchDispatchMode):
    """Within the block: ``kernels``, operations that compute or copy, by name; ``waits``, those that stop the program.

    Copies between devices wait in both directions, since what they copy from is not pinned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        tensors = [x for x in tree_leaves((args, kwargs, found)) if isinstance(x, torch.Tensor)]
        devices = {x.device.type for x in tensors}
        if func.namespace == "aten" and not func.is_view and name not in _FREE:
            self.kernels[name] += 1
        if (name in _WAITING and devices != {"cpu"}) or (len(devices) > 1 and "copy" in name):
            self.waits[name] += 1
        return found


def counted(work: Callable[[], Any]) -> Counted:
    """What the work asks for."""
    with Counted() as count:
        work()
    return count
