"""One thread at a time in a model: capturing its attention changes it for as long as it runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import RLock
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import nn

from keyorbit.diffusion.layers import unwrapped

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


class _Turn:
    """A lock that a copied or unpickled model has anew."""

    def __init__(self) -> None:
        self.lock = RLock()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Turn, ()


@contextmanager
def own_turn(unet: nn.Module) -> Iterator[None]:
    """Have the UNet for this thread alone; others wait for it. Within one thread it may be nested."""
    # On the model itself, since several backends and detectors may share it; to set a default is one step for threads.
    turn: _Turn = vars(unwrapped(unet)).setdefault("_keyorbit_turn", _Turn())
    with turn.lock:
        yield


def in_turn(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A method of a backend, which has its UNet for this thread alone until it returns."""

    @wraps(method)
    def run(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():  # locks cannot be traced; whoever compiles a step runs it alone
            return method(self, *args, **kwargs)
        with own_turn(self.unet):
            return method(self, *args, **kwargs)

    return run
