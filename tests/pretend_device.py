"""Importing this makes the device "pretend": the CPU under another name.

As a GPU does, it refuses operations on its own and the CPU's tensors together, numpy, and the CPU's random generators.
It is built once (half a minute, with a C++ compiler and ninja) into TORCH_EXTENSIONS_DIR.
"""

from pathlib import Path

import torch
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend
from torch.utils.cpp_extension import load

NAME = "pretend"


class _Module(_DummyBackendModule):
    """What torch asks a device for."""

    def get_amp_supported_dtype(self):
        return [torch.float16, torch.bfloat16]

    def manual_seed_all(self, seed):
        pass

    def _is_in_bad_fork(self):
        return False

    def synchronize(self, device=None):
        pass

    def reset_peak_memory_stats(self, device=None):
        pass

    def max_memory_allocated(self, device=None):
        return 0


_setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
load("pretend_device_ext", [str(Path(__file__).with_suffix(".cpp"))], extra_cflags=["-O0"], verbose=False)
