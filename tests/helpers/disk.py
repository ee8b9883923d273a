"""A disk on which a process is killed, or that refuses, at one of its operations; trials are processes of their own."""

import builtins
import errno
import io
import json
import os
import shutil
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

KILL, FULL, FORBIDDEN = "kill", errno.ENOSPC, errno.EACCES
_KILLED = 9
# What Python tells before it does it, and which argument is the path. A full disk still removes and renames.
_EVENTS = {"os.rename": 1, "os.remove": 0, "os.rmdir": 0, "os.mkdir": 0, "os.link": 1, "os.symlink": 1}
_NEEDS_NO_ROOM = ("os.rename", "os.remove", "os.rmdir")


@dataclass
class Disk:
    """Counts what changes something below ``root``, and fails at the operation number ``at``; from 1, 0 for never.

    how: KILL, which ends the process there, with half of what it was to write; or the number of an error, which that
    operation raises and all that follow.
    """

    root: str
    at: int = 0
    how: object = KILL
    seen: list = field(default_factory=list)

    def event(self, name, path):
        """Whether the process is to be killed within this operation; OSError where it is refused."""
        if not os.path.abspath(os.fsdecode(path)).startswith(self.root):
            return False
        self.seen.append(name)
        if not self.at or len(self.seen) < self.at:
            return False
        if self.how == KILL:
            return len(self.seen) == self.at
        if self.how == FORBIDDEN or name not in _NEEDS_NO_ROOM:
            raise OSError(self.how, os.strerror(self.how), path)
        return False

    def hook(self, name, arguments):
        if name == "open":
            path, _, flags = arguments
            if not isinstance(path, str | bytes | os.PathLike) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif name in _EVENTS:
            path = arguments[_EVENTS[name]]
            if name in ("os.remove", "os.rmdir") and arguments[1] != -1:  # within a folder that rmtree has opened
                path = self.root
        else:
            return
        if self.event(name, path):
            os._exit(_KILLED)

    def attach(self):
        """From now on, in this process, for good."""
        opened, fsync, serialize = io.open, os.fsync, safetensors.torch.serialize_file

        def open_(file, mode="r", *args, **options):
            found = opened(file, mode, *args, **options)
            inside = isinstance(file, str | bytes | os.PathLike) and set(mode) & set("wax+")
            return Written(found, file, self) if inside else found

        def serialize_file(tensors, path, *args, **options):
            try:
                killed = self.event("write", path)
            except OSError as error:
                raise SafetensorError(f"I/O error: {error.strerror} (os error {error.errno})") from error
            serialize(tensors, path, *args, **options)
            if killed:
                os.truncate(path, os.path.getsize(path) // 2)
                os._exit(_KILLED)

        def fsync_(descriptor):
            if self.event("fsync", self.root):
                os._exit(_KILLED)
            fsync(descriptor)

        io.open = builtins.open = open_
        os.fsync = fsync_
        safetensors.torch.serialize_file = serialize_file
        sys.addaudithook(self.hook)


class Written:
    """A file that is being written."""

    def __init__(self, file, path, disk):
        self._file, self._path, self._disk = file, path, disk

    def write(self, data):
        if self._disk.event("write", self._path):
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            os._exit(_KILLED)
        return self._file.write(data)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def __iter__(self):
        return iter(self._file)

    def __getattr__(self, name):
        return getattr(self._file, name)


@dataclass(frozen=True)
class Outcome:
    """What came of a call in a process of its own.

    killed: whether it was killed. said: its result, as JSON keeps it. operations: how many of them it did.
    """

    killed: bool
    said: object
    operations: tuple


def apart(call, disk):
    """Call a function in a forked process, with the disk, and with a clock that stands still: seconds are not compared.

    What it returns has to be JSON.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            time.monotonic = lambda: 0.0
            disk.attach()
            result = json.dumps([call(), disk.seen])
        except BaseException:
            result = json.dumps([{"escaped": traceback.format_exc()}, disk.seen])
        with os.fdopen(write, "w") as pipe:
            pipe.write(result)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == _KILLED:
        return Outcome(True, None, ())
    said, seen = json.loads(text)
    return Outcome(False, said, tuple(seen))


def contents(folder):
    """All there is below a folder: files as bytes by name, folders as None."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(Path(folder).rglob("*"))
    }


def put(folder, files):
    """Make a folder anew, with what :func:`contents` found."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in files.items():
        if data is None:
            (folder / name).mkdir(parents=True, exist_ok=True)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
