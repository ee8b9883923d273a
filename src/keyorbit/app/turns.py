"""Turns at the model, which all visitors share."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from keyorbit.app.visits import Left
from keyorbit.errors import InputError

# Seconds between two looks at whether it is still worth to wait.
_GLANCE = 0.05


class ModelLock:
    """Lets one visitor at a time use the model. Long work gives way to others between two of its pieces."""

    def __init__(self) -> None:
        self._lock, self._closed = threading.Lock(), threading.Event()

    @contextmanager
    def held(self, over: Callable[[], bool] | None = None, patience: float = math.inf) -> Iterator[None]:
        """Hold the lock within the ``with`` block.

        Args:
            over: tells whether nobody waits for the result any more. Default None: somebody does.
            patience: seconds to wait for the lock. Default: without end.

        Raises:
            Left: nobody waits for the result, or the lock is closed.
            InputError: the lock was held by others for all that time.
        """
        end = time.monotonic() + patience
        while not self._lock.acquire(timeout=_GLANCE):
            self._check(over)
            if time.monotonic() > end:
                raise InputError(f"Others have used the model for {patience / 60:g} minutes: try again later.")
        try:
            self._check(over)
            yield
        finally:
            self._lock.release()

    def give_way(self) -> None:
        """While the lock is held: let those who wait go first.

        Raises:
            Left: the lock is closed.
        """
        self._lock.release()
        time.sleep(0.002)
        self._lock.acquire()
        self._check(None)

    def close(self, patience: float) -> None:
        """Let nobody use the model any more; wait for who does, for at most that many seconds."""
        self._closed.set()
        self._lock.acquire(timeout=patience)

    def _check(self, over: Callable[[], bool] | None) -> None:
        if self._closed.is_set() or (over is not None and over()):
            raise Left("nobody waits for the result any more")
