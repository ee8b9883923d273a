"""A folder is written by one process at a time; a lock dies with its process, however it ends, and leaves nothing."""

import errno
import os
import signal
import subprocess
import sys
from threading import Thread

import pytest

from keyorbit.errors import InputError
from keyorbit.storage import lock
from keyorbit.storage.lock import in_use
from keyorbit.storage.outputs import OutputKind, replaced_folder

HOLDER = "import sys; from pathlib import Path; from keyorbit.storage.lock import in_use\n"
HOLDER += "with in_use(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a folder, until it is killed."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    running = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], text=True, **pipes)
    assert running.stdout.readline() == "held\n"
    yield running
    running.kill()
    running.communicate()


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_a_second_process_is_refused_and_the_lock_dies_with_the_first(holder, tmp_path):
    words = r"another process is writing .*run: wait until it has ended, or give another"
    with pytest.raises(InputError, match=words), in_use(tmp_path / "run"):
        pass
    with pytest.raises(InputError, match=words), replaced_folder(tmp_path / "run", OutputKind("thing")):
        pass
    with in_use(tmp_path / "run", ours=False):
        pass  # one of several that were launched together
    with in_use(tmp_path / "other"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert names(tmp_path) == [".run.keyorbit.lock"]  # it holds nobody up
    with in_use(tmp_path / "run"):
        pass
    assert names(tmp_path) == []


def test_a_link_to_the_folder_is_the_folder(holder, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with pytest.raises(InputError, match="another process"), in_use(tmp_path / "link"):
        pass


def test_what_is_held_can_be_held_again_by_the_same_thread_only(tmp_path):
    refused = []

    def other():
        try:
            with in_use(tmp_path / "a"):
                pass
        except InputError:
            refused.append(True)

    with in_use(tmp_path / "a"):
        with in_use(tmp_path / "a"), in_use(tmp_path / "a" / "model"):
            pass
        thread = Thread(target=other)
        thread.start()
        thread.join()
        assert refused == [True]
    other()
    assert refused == [True]
    assert names(tmp_path) == []


def test_folders_made_for_a_lock_go_with_it_and_what_is_in_them_stays(tmp_path):
    with in_use(tmp_path / "a" / "b" / "c"):
        assert names(tmp_path) == [".c.keyorbit.lock", "a", "b"]
    assert names(tmp_path) == []
    with in_use(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b").mkdir()
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.skipif(sys.platform == "win32", reason="its locks are others")
def test_where_there_are_no_locks_everything_goes_on(tmp_path, monkeypatch):
    def none(descriptor, how):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(lock.fcntl, "flock", none)
    for _ in range(2):
        with in_use(tmp_path / "a"), in_use(tmp_path / "a"):
            pass


def test_where_nobody_may_write_beside_the_folder_the_lock_is_inside(tmp_path, monkeypatch):
    own = os.open

    def refused(path, *args, **options):
        if os.path.dirname(path) == str(tmp_path):
            raise PermissionError(errno.EACCES, "no", path)
        return own(path, *args, **options)

    (tmp_path / "a").mkdir()
    monkeypatch.setattr(os, "open", refused)
    with in_use(tmp_path / "a"):
        assert names(tmp_path) == [".keyorbit.lock", "a"]
    assert names(tmp_path) == ["a"]


@pytest.mark.skipif(sys.platform == "win32", reason="it removes no open file")
def test_a_file_that_its_holder_removed_meanwhile_is_not_held(tmp_path, monkeypatch):
    own, tries = lock.fcntl.flock, []

    def late(descriptor, how):
        if not tries:
            (tmp_path / ".a.keyorbit.lock").unlink()
        tries.append(1)
        own(descriptor, how)

    monkeypatch.setattr(lock.fcntl, "flock", late)
    with in_use(tmp_path / "a"):
        assert len(tries) == 2
        assert names(tmp_path) == [".a.keyorbit.lock"]


def test_what_can_be_no_folder_is_left_to_others_to_tell(tmp_path):
    for name in ("a\x00b", "x" * 300, "/"):
        with in_use(tmp_path / name):
            pass
    assert names(tmp_path) == []
