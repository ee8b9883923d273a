"""Out of memory, said in one sentence that names the options with which a command needs less of it."""

from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from keyorbit.errors import InputError, memory_shortage

# What helps, by the option's name, in the order in which it is offered.
_ADVICE = {
    "checkpointing": "--checkpointing",
    "dtype": "--dtype float16",
    "precision": "--precision bf16",
    "batch": "a smaller --batch",
    "noises": "fewer --noises",
    "warps": "fewer --warps",
    "layers": "fewer --layers",
    "map_size": "a smaller --map-size",
    "workers": "fewer --workers",
    "tokens": "fewer --tokens",
    "device": "--device cpu",
    "cpu": "--cpu",
}
# Values with which there is nothing left to gain.
_USED_UP: dict[str, tuple[Any, ...]] = {
    "checkpointing": (True,),
    "dtype": ("float16", "bfloat16"),
    "precision": ("fp16", "bf16"),
    "batch": (1,),
    "noises": (1,),
    "warps": (None, 0),
    "workers": (1,),
    "device": ("cpu",),
    "cpu": (True,),
}
# Options that a run can be resumed with, though it was begun without. Not --cpu: tokens that training begins with are
# drawn from numbers that the device computed, and count as a setting.
_SAME_RUN = ("checkpointing", "dtype", "device")
_MAIN = "main memory"


def explains_shortage(command: Callable[..., None]) -> Callable[..., None]:
    """The command, which ends with an InputError where memory runs out; its options are given by name.

    The library leaves these errors as torch raises them: what helps is not its to know.
    """

    @wraps(command)
    def run(**given: Any) -> None:
        try:
            command(**given)
        except (RuntimeError, MemoryError) as error:
            where = memory_shortage(error)
            if where is None:
                raise
            raise InputError(f"{where} does not suffice{remedy(given, where)}") from error

    return run


def remedy(given: Mapping[str, Any], where: str) -> str:
    """How to go on, as the rest of a sentence; ``given`` are the command's options with their values."""
    helpful = {name: words for name, words in _ADVICE.items() if name in given and _helps(name, given, where)}
    begun = given.get("out") is None or Path(given["out"]).is_dir()
    if "resume" in given and begun:
        same = [words for name, words in helpful.items() if name in _SAME_RUN]
        other = [words for name, words in helpful.items() if name not in _SAME_RUN]
        if given.get("data") is not None and "cache" in given:  # without it all objects are kept in float32
            other.append("a cache ('keyorbit cache --store float16')")
        on = f"with --resume and {_either(same)}" if same else "with --resume once there is more"
        return f"; what is finished is kept: go on {on}" + (f", or begin again with {_either(other)}" if other else "")
    if "store" in given:
        on = "the same command goes on once there is more"
        return f"; what is finished is kept: {on}, and with {_either(list(helpful.values()))} it builds another cache"
    return f": try {_either(list(helpful.values()))}" if helpful else ": close other programs, or take another machine"


def _helps(name: str, given: Mapping[str, Any], where: str) -> bool:
    if given[name] in _USED_UP.get(name, ()):
        return False
    if name in ("device", "cpu"):
        return not where.startswith(_MAIN)
    return name != "dtype" or given[name] == "float32" or where.startswith(_MAIN)


def _either(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
