"""Importing this makes the device "pretend": the CPU under another name.

As a GPU does, it refuses operations on its own and the CPU's tensors together, numpy, and the CPU's random generators;
and as MPS does, float64.
`reads` counts what would make the host wait for a GPU.
It is built once (half a minute, with a C++ compiler and ninja) into TORCH_EXTENSIONS_DIR.

Whoever has a real device runs the same tests on that: `KEYORBIT_TEST_DEVICE=cuda CUDA_VISIBLE_DEVICES=0 pytest
tests/other_device/device_*.py`. Nothing is built then, and what counts operations is skipped.
"""

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend
from torch.utils.cpp_extension import load

NAME = os.environ.get("KEYORBIT_TEST_DEVICE", "pretend")


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


@dataclass
class Traffic:
    """What went between the host and the device in a block of `reads`, by the names of the operations."""

    # The host waits: `.item()`, `bool(tensor)`, `.cpu()`, `.tolist()`, `nonzero`, `x[mask]`, `torch.equal`.
    reads: list[str] = field(default_factory=list)
    # Copied from the host, which waits too unless its memory is pinned: `.to(device)`, `torch.tensor(…, device=…)`.
    writes: list[str] = field(default_factory=list)
    # Ran on the device: about the kernels that a GPU would launch.
    operations: int = 0


@contextmanager
def reads(refused=False):
    """Counts in its block what the host reads of the device, and writes to it; the counts are there after the block.

    With ``refused`` a read raises where it happens, whose traceback says which line it is.
    """
    if NAME != "pretend":
        pytest.skip("counted on the stand-in")
    traffic = Traffic()
    reads, writes, operations = _device.traffic()
    outer = _device.refuse_reads(refused)
    try:
        yield traffic
    finally:
        _device.refuse_reads(outer)
        all_reads, all_writes, all_operations = _device.traffic()
        traffic.reads = all_reads[len(reads) :]
        traffic.writes = all_writes[len(writes) :]
        traffic.operations = all_operations - operations


if NAME == "pretend":
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    _device = load("pretend_device_ext", [str(Path(__file__).with_suffix(".cpp"))], extra_cflags=["-O1"], verbose=False)
