"""Which device the work is done on, where the user leaves that open: the one module that knows devices by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

# The command line reads this before it checks its arguments: torch is imported where a device is looked for.
if TYPE_CHECKING:
    import torch

AUTO, CPU = "auto", "cpu"


def resolve_device(name: str = AUTO, processes: int = 1) -> str:
    """The device that ``auto`` stands for here: ``cuda`` if torch sees a GPU, else ``mps`` (Apple's), else ``cpu``.

    Any other name is returned as it is. ``cuda`` has no number: where several ``processes`` do one job, each has a GPU
    of its own (:func:`keyorbit.ranks.start_ranks`). On Apple's GPU they could not talk to each other, and several
    share the CPU.
    """
    if name != AUTO:
        return name
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if processes < 2 and torch.backends.mps.is_available() else "cpu"


def usable_device(name: str = AUTO, processes: int = 1) -> "torch.device":
    """The torch device of that name, on which something was computed; ``auto``: see :func:`resolve_device`.

    Raises:
        InputError: it is not to be had here; the message names those that are.
    """
    import torch

    with named_device(name):
        device = torch.device(resolve_device(name, processes))
        torch.zeros(1, device=device).cpu()
    return device


@contextmanager
def named_device(name: Any) -> Iterator[None]:
    """Where something is moved to a device: what torch says of one that is not there becomes an InputError."""
    try:
        yield
    except (RuntimeError, AssertionError, NotImplementedError, ImportError, TypeError) as error:
        if isinstance(error, TypeError) and isinstance(name, str):  # not because of the device
            raise
        # Here, since all that knows "auto" would lie above it otherwise.
        from keyorbit.errors import InputError, first_line, memory_shortage

        if memory_shortage(error):
            raise
        there = " and ".join(map(str, known_devices()))
        # For a name that it does not know torch lists all devices that there may be anywhere.
        bare = isinstance(error, TypeError) or "device string" in str(error)
        reason = "" if bare else f": {first_line(error).partition('. ')[0].rstrip('.')[:200]}"
        raise InputError(f"device {str(name)!r} is not to be had here{reason}; torch has {there}") from error


def float_type(name: Any) -> "torch.dtype | None":
    """A torch type of floats, or the one of that name, such as ``float16``; None for None.

    Raises:
        InputError: it is no such type.
    """
    if name is None:
        return None
    import torch

    found = getattr(torch, name, None) if isinstance(name, str) else name
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        from keyorbit.errors import InputError  # as above

        raise InputError(f"dtype {str(name)!r} is no type of floats: give float16, bfloat16, float32 or float64")
    return found


def device_words(device: "torch.device") -> str:
    """A device as a line of text shows it: ``cuda:0 (NVIDIA H100 80GB HBM3)``, ``mps``, ``cpu``."""
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def has_bfloat16(device: "torch.device") -> bool:
    """Whether the device itself computes in bfloat16. NVIDIA GPUs before Ampere emulate it; some of Apple's lack it."""
    import torch

    if device.type != "cuda":
        return device.type != "mps"
    with torch.cuda.device(device):
        try:
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        except TypeError:  # versions of torch that count no emulation
            return bool(torch.cuda.is_bf16_supported())


def known_devices() -> "list[torch.device]":
    """All devices that torch sees here, those that ``auto`` prefers first."""
    import torch

    found = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    found += [torch.device("mps")] if torch.backends.mps.is_available() else []
    return [*found, torch.device("cpu")]
