"""What a call costs on any device: the operations that it launches, and the waits for a number or a copy."""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# What only looks at a tensor in another way: it launches nothing.
VIEWS = {
    *("alias", "as_strided", "detach", "diagonal", "expand", "permute", "select", "slice", "split"),
    *("split_with_sizes", "squeeze", "t", "transpose", "unbind", "unfold", "unsqueeze", "view", "_unsafe_view"),
    *("_reshape_alias", "lift_fresh"),
}
# The host waits for the device: a value is read, or the size of a result depends on values.
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal"}


class Counting(TorchDispatchMode):
    """Counts within its ``with`` block: ``operations`` by name, ``waits``, and ``copies`` between devices."""

    def __init__(self):
        super().__init__()
        self.operations, self.waits, self.copies = Counter(), Counter(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, result = func.overloadpacket.__name__, func(*args, **(kwargs or {}))
        if name in WAITS:
            self.waits[name] += 1
        # Numbers of no dimension are the schedulers', which keep them on the CPU.
        works = result is None or isinstance(result, torch.Tensor | tuple)  # None: in place, of lists of tensors
        if name not in VIEWS and works and getattr(result, "ndim", 1):
            self.operations[name] += 1
        tensors = [x for x in (*args, result) if isinstance(x, torch.Tensor)]
        if name in ("_to_copy", "copy_") and len({x.device.type for x in tensors}) > 1:
            self.copies += 1
        return result


def a_step_of(run, few=3):
    """Operations and waits of one more step; ``run`` is called with a number of steps."""
    counts = []
    for steps in (few, few + 1):
        with Counting() as count:
            run(steps)
        counts.append(count)
    fewer, more = counts
    return (
        more.operations - fewer.operations,
        sum(more.waits.values()) - sum(fewer.waits.values()),
        more.copies - fewer.copies,
    )
