"""What is kept for visitors: their uploads and results, under names that nobody can guess, until they leave."""

import secrets
import shutil
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from keyorbit.errors import InputError

KEEP_SECONDS = 3600.0
# After a visitor has left, until Gradio has surely finished with a result that was just handed to it.
GRACE_SECONDS = 5.0
# The clock of files lags behind `time.time` by up to a tick of the kernel, 10 ms; what is nearer counts as later.
TICK_SECONDS = 0.02
# Both together bound what visitors can fill the disk with.
MOST_BYTES, MOST_FILES = 4 * 2**30, 20_000


class Left(InputError):
    """Whoever wanted the result has left, or the app ends: work that is no longer wanted ends with this."""


class Visit:
    """One session's files and the sign that it is over.

    Attributes:
        folder: what this session's results are written to.
        gone: set when the visitor leaves; work for the visitor looks at it.
        uploads: the files that calls of this session named, and when.
        streams: number of connections that say that the page is open.
        seen: when it was last heard of.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.gone = folder, threading.Event()
        self.uploads = dict[Path, float]()
        self.streams, self.seen = 0, time.time()
        self._lock = threading.Lock()

    @contextmanager
    def new_folder(self) -> Iterator[Path]:
        """Yield a new folder to write a result in; it is not removed within the block.

        Raises:
            Left: the visitor has left.
        """
        with self._lock:
            if self.gone.is_set():
                raise Left("you have left the page")
            folder = self.folder / secrets.token_urlsafe(16)
            folder.mkdir(parents=True)
            yield folder

    def remove(self) -> None:
        """Remove its results; it must be over."""
        with self._lock:
            shutil.rmtree(self.folder, ignore_errors=True)


class Errand:
    """One request of a visitor. It is over when it is cancelled or the visitor leaves."""

    def __init__(self, visit: Visit) -> None:
        self.visit, self._cancelled = visit, threading.Event()

    def cancel(self) -> None:
        """Request its end."""
        self._cancelled.set()

    def over(self) -> bool:
        """Whether nobody waits for its result."""
        return self._cancelled.is_set() or self.visit.gone.is_set()

    @contextmanager
    def new_folder(self) -> Iterator[Path]:
        """As :meth:`Visit.new_folder`."""
        if self.over():
            raise Left("the request was cancelled")
        with self.visit.new_folder() as folder:
            yield folder


class Visits:
    """All sessions. ``scratch`` is the folder of Gradio's uploads, in which results are as well."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch.resolve()
        self._visits, self._left = dict[str, Visit](), list[Visit]()
        self._lock = threading.Lock()
        self._kept = frozenset[Path]()

    def keep(self) -> None:
        """Never remove what is there now: the examples."""
        self._kept = frozenset(path for path in self.scratch.rglob("*") if path.is_file())

    def errand(self, session: str | None) -> Errand:
        """Return a new request of the session."""
        return Errand(self.of(session or ""))

    def of(self, session: str) -> Visit:
        """Return the session's visit, a new one if it is not known."""
        with self._lock:
            if session not in self._visits:
                self._visits[session] = Visit(self.scratch / "visits" / secrets.token_urlsafe(16))
            visit = self._visits[session]
            visit.seen = time.time()
            return visit

    def holds(self, path: str) -> bool:
        """Whether there is such a file among uploads, results and examples."""
        try:
            found = Path(path).resolve()
            return found.is_relative_to(self.scratch) and found.is_file()
        except (OSError, ValueError, RuntimeError):  # a name that no file can have; links in a circle
            return False

    def use(self, session: str, paths: Collection[str]) -> None:
        """Note that the session's calls name these uploads, so that they are removed with it."""
        self.of(session).uploads |= {Path(path).resolve(): time.time() for path in paths}

    def come(self, session: str) -> None:
        """Note that a page of the session is open."""
        visit = self.of(session)
        with self._lock:
            visit.streams += 1

    def leave(self, session: str) -> None:
        """Note that a page is closed; with the last one the visit ends, and :meth:`tidy` soon removes its files."""
        with self._lock:
            visit = self._visits.get(session)
            if visit is None:
                return
            visit.streams -= 1
            if visit.streams < 1:
                self._end(session)

    def tidy(self) -> bool:
        """Remove the files of who left, and what is older than an hour; return whether there is room for more."""
        now = time.time()
        old = now - KEEP_SECONDS
        with self._lock:
            for name in [name for name, visit in self._visits.items() if visit.streams < 1 and visit.seen < old]:
                self._end(name)
            done = [visit for visit in self._left if visit.seen <= now - GRACE_SECONDS]
            self._left = [visit for visit in self._left if visit not in done]
        for visit in done:
            self._remove(visit)
        total = number = 0
        # Innermost first, so that folders are empty once their files are removed.
        for path in sorted(self.scratch.rglob("*"), key=lambda path: -len(path.parts)):
            with suppress(OSError):  # removed meanwhile, or a folder that is not empty
                facts = path.lstat()
                if facts.st_ctime < old and path not in self._kept:
                    path.rmdir() if path.is_dir() else path.unlink()
                else:
                    total, number = total + facts.st_size, number + 1
        return total < MOST_BYTES and number < MOST_FILES

    def end(self) -> None:
        """End all visits. Their files are left to whoever removes the folder."""
        with self._lock:
            for session in list(self._visits):
                self._end(session)

    def __len__(self) -> int:
        return len(self._visits)

    def _end(self, session: str) -> None:
        visit = self._visits.pop(session)
        visit.gone.set()
        visit.seen = time.time()
        self._left.append(visit)

    def _remove(self, visit: Visit) -> None:
        visit.remove()
        with self._lock:
            others = {path for other in self._visits.values() for path in other.uploads}
        for path, used in visit.uploads.items():
            # Uploads of the same content are one file: another visitor's may be it, who has not named it yet.
            with suppress(OSError):
                if path not in others | self._kept and path.lstat().st_ctime < used - TICK_SECONDS:
                    path.unlink()
                    path.parent.rmdir()
