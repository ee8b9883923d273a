"""Memory: what there is, and one sentence where a request would need more, before any of it is allocated."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from keyorbit.errors import InputError
from keyorbit.ranks import launched

if TYPE_CHECKING:
    import torch

# Limits of a control group, what it uses, and of that what the kernel gives back when it is wanted: files that were
# read. In either version of Linux's interface.
_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
        "total_inactive_file",
    ),
)


def check_budget(needed: Mapping[str, tuple[int, str]], device: "torch.device | None" = None) -> None:
    """Raise an error where a request needs more memory than is free. Nothing is allocated.

    Args:
        needed: bytes by what takes them, in words, each with what helps.
        device: where the memory is taken. Default None: in the computer's own. Where the system tells of no limit,
            nothing is refused.

    Raises:
        InputError: they need more together; the message names the largest, the numbers and the remedy.
    """
    host = free_host_bytes()
    free = host if device is None else free_device_bytes(device, host)
    total = sum(size for size, _ in needed.values())
    if not 0 < free < total:
        return
    largest = max(needed, key=lambda name: needed[name][0])
    raise InputError(
        f"this would take about {_words(total)} of memory, {_words(needed[largest][0])} of it for {largest}, and "
        f"{_words(free)} are free: {needed[largest][1]}"
    )


def free_host_bytes() -> int:
    """Memory that this process may take, bytes; 0 where the system does not tell.

    Of what the kernel calls available, of what the limit of a container or batch job leaves, and of what this process
    may address (``ulimit -v``): the share of each of the processes that work here together.
    """
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return 0
    for name, used, details, cached in _LIMITS:
        with suppress(OSError, ValueError):  # the file says "max" where there is no limit
            left = int(Path(name).read_text(encoding="utf-8")) - int(Path(used).read_text(encoding="utf-8"))
            given_back = dict(line.split() for line in Path(details).read_text(encoding="utf-8").splitlines()).get(
                cached, 0
            )
            free = min(free, left + int(given_back))
    return max(1, min(free // launched(), _addressable()))


def free_device_bytes(device: "torch.device", host_bytes: int) -> int:
    """The same of a device: a GPU that torch.cuda drives has memory of its own, others share the computer's."""
    import torch

    probe = torch.empty(0, device=device)  # whose device has a number
    return torch.cuda.mem_get_info(probe.device)[0] if probe.is_cuda else host_bytes


def _addressable() -> int:
    """What the limit on a process's addresses leaves, bytes."""
    try:
        import resource  # not on Windows

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    except (ImportError, OSError, ValueError):
        return 2**63
    return 2**63 if limit == resource.RLIM_INFINITY else max(0, limit - used)


def _words(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"
