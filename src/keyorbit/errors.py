"""The errors a user can put right."""

import re
from collections.abc import Sequence

# How torch says that memory ran out: on GPUs ("CUDA out of memory", "MPS backend out of memory", and in the libraries
# below it, CUBLAS_STATUS_ALLOC_FAILED), and on the CPU.
_FULL = ("out of memory", "_ALLOC_FAILED")
_MAIN_FULL = ("DefaultCPUAllocator", "can't allocate memory", "not enough memory")
_WANTED = re.compile(r"to allocate ([\d.]+ [KMGTP]i?B)")


class InputError(ValueError):
    """Something given to keyorbit cannot be used; the message names the thing and the remedy.

    The command line prints the message alone and exits with status 2.
    """


def one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Check a choice.

    Raises:
        InputError: the value is none of the known ones; the message names the option or setting.
    """
    if value not in known:
        raise InputError(f"{name} is {' or '.join(known)}, not '{value}'")


def first_line(error: BaseException) -> str:
    """The first line of what an exception of a library says, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def memory_shortage(error: BaseException) -> str | None:
    """Which memory ran out, and how much more was wanted if the error says so; None for every other error.

    Told by the text, where torch raises RuntimeError: it has a class of its own for some devices only, and imported it
    need not be. numpy and Python raise MemoryError.
    """
    text = str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(x in text for x in _MAIN_FULL)):
        where = "main memory"
    elif isinstance(error, RuntimeError) and any(x in text for x in _FULL):
        where = "the device's memory"
    else:
        return None
    wanted = _WANTED.search(text)
    return where + (f" ({wanted[1]} more were wanted)" if wanted else "")
