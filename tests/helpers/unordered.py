"""Finds, without a GPU, the operations that torch refuses there under ``torch.use_deterministic_algorithms(True)``."""

import re
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# By the names under which they reach a device: what the documentation of use_deterministic_algorithms lists as
# raising. interpolate's bilinear mode is not here: on a GPU torch then computes it from indices.
REFUSED = re.compile(
    r"(_?adaptive_avg_pool[23]d|avg_pool3d|adaptive_max_pool2d|fractional_max_pool[23]d|grid_sampler_[23]d|"
    r"reflection_pad[123]d|upsample_(linear1d|bicubic2d|trilinear3d)|_upsample_bi(linear|cubic)2d_aa|_?ctc_loss)_backward"
    r"|max_unpool[23]d|nll_loss(2d)?_forward|put_?|histc|(nan)?median\.dim|scatter_reduce|cumsum"
)
INTEGERS = (torch.int32, torch.int64, torch.bool)  # of which sums have no rounding


class Refused(TorchDispatchMode):
    """Within the ``with`` block, counts the operations that would be refused, forward and backward, by name."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.device, self.found = device, Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func).removeprefix("aten.")
        tensors = [x for x in args if isinstance(x, torch.Tensor) and x.device.type == self.device]
        exact = name.startswith("cumsum") and tensors and tensors[0].dtype in INTEGERS
        if tensors and not exact and REFUSED.match(name):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))
