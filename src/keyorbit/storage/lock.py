"""One process at a time writes a folder: a lock that the system takes back when its process ends, however it ends."""

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from keyorbit.errors import InputError
from keyorbit.storage.folder_names import beside

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

log = logging.getLogger(__name__)

_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_TRIES = 10
# A command holds its folder, and what it calls may hold it again. A new thread holds nothing.
_HELD: ContextVar[frozenset[Path]] = ContextVar("keyorbit_held_folders", default=frozenset())


@contextmanager
def in_use(folder: Path, ours: bool = True) -> Iterator[None]:
    """Hold a folder within the ``with`` block, whether it exists or not; it may be held again within the block.

    The lock is on a hidden file beside the folder, or inside of it where nobody may write beside it. The file is
    removed at the end. One that a killed process left holds nobody up. Where there are no locks, or no such file can
    be made, the folder is not held.

    Args:
        folder: the folder, or the link to it.
        ours: whether this process is the one that holds it, of several that were launched together. Default True.

    Raises:
        InputError: another process holds it.
    """
    try:
        target = folder.resolve()
        path = beside(target, "lock")
    except (OSError, RuntimeError, ValueError):  # no folder can be there, as the caller will say
        ours = False
    if not ours or target in _HELD.get():
        yield
        return
    new = [parent for parent in path.parents if not parent.exists()]
    descriptor = None
    try:
        descriptor = _locked(target, path, folder)
        before = _HELD.set(_HELD.get() | {target})
        try:
            yield
        finally:
            _HELD.reset(before)
    finally:
        if descriptor is not None:
            _let_go(*descriptor)
        for parent in new:
            with suppress(OSError):  # it holds what was written
                parent.rmdir()


def _locked(target: Path, path: Path, folder: Path) -> tuple[int, Path] | None:
    """The open lock file and where it is; None where there can be none."""
    for place in (path, target / ".keyorbit.lock"):
        try:
            if place is path:
                place.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(_TRIES):
                descriptor = os.open(place, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
                try:
                    taken = not _try_lock(descriptor)
                    same = os.path.samestat(os.fstat(descriptor), os.stat(place))
                except FileNotFoundError:
                    taken = same = False
                except BaseException:
                    os.close(descriptor)
                    raise
                if same and not taken:
                    return descriptor, place
                os.close(descriptor)
                if taken:
                    raise InputError(
                        f"another process is writing {folder}: wait until it has ended, or give another folder"
                    )
                # Its holder removed the file between our opening and locking it.
        except OSError as error:
            log.info("%s is not locked: %s", folder, error)
            if not isinstance(error, PermissionError):
                return None
    return None


def _try_lock(descriptor: int) -> bool:
    """Whether the file is ours now; False where another has it."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True


def _let_go(descriptor: int, path: Path) -> None:
    """Remove the file and its lock. Windows removes no open file, the others must not let go of it before."""
    if sys.platform == "win32":
        os.close(descriptor)
    with suppress(OSError):
        path.unlink()
    if sys.platform != "win32":
        os.close(descriptor)
