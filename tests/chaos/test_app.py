"""The app as a process: visitors do not meet; however it is ended, its status is 0 and none of its files is left."""

import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from keyorbit.app.calls import example_pictures
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained

client = pytest.importorskip("gradio_client", reason="the app is an extra: pip install 'keyorbit[app]'")
Client, handle_file = client.Client, client.handle_file


def upload(address):
    """A picture that the server keeps."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="mine.png"\r\n\r\n'
    body = head + example_pictures()[0].read_bytes() + b"\r\n--x--\r\n"
    request = urllib.request.Request(f"{address}/gradio_api/upload", body)
    request.add_header("Content-Type", "multipart/form-data; boundary=x")
    urllib.request.urlopen(request, timeout=60).read()


@contextmanager
def served(backend, model_folder, tmp_path):
    """The app as a process that keeps its files in `scratch`; yields the process and its address."""
    scratch, run = tmp_path / "scratch", tmp_path / "run"
    scratch.mkdir()
    run.mkdir()
    untrained(backend, DiscoverConfig(num_tokens=3, num_candidates=3)).save(run / "tokens.safetensors")
    command = [sys.executable, "-m", "keyorbit", "app", str(run), "--model", str(model_folder)]
    there = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=there) as process:
        try:
            yield process, process.stdout.readline().split()[0].rstrip("/"), scratch
        finally:  # where a test fails
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_no_file_is_left_when_the_app_is_ended(number, backend, model_folder, tmp_path, tally, chaos):
    if number != signal.SIGTERM and not chaos:
        pytest.skip("one signal has to do")
    with served(backend, model_folder, tmp_path) as (process, address, scratch):
        upload(address)
        assert list(scratch.rglob("mine.png"))
        process.send_signal(number)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 0
    assert "Traceback" not in said
    assert list(scratch.glob("keyorbit*")) == []
    assert not (scratch / "gradio").exists()
    tally["app", f"ended by {number.name}", "nothing left"] += 1


def memory_mib(process):
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def visit(address, picture, times, seed):
    """The page of one picture, asked for many times; some requests are cancelled. How many pages there were."""
    chance, alone, pages = random.Random(seed), None, 0
    client = Client(address, verbose=False, download_files=False)
    for _ in range(times):
        job = client.submit(handle_file(str(picture)), api_name="/find")
        if cancelled := alone is not None and chance.random() < 0.4:
            time.sleep(0.3 * chance.random())
            job.cancel()
        try:
            page = job.result(timeout=120)[0]
        except (CancelledError, KeyError):  # the latter from the client, of an answer without a result
            assert cancelled
            continue
        alone = alone or page
        assert page == alone
        pages += 1
    client.close()
    return pages, alone


def test_two_visitors_with_cancellations(backend, model_folder, tmp_path, tally, chaos):
    """Each sees results of the own picture alone; memory does not grow with requests, and files go with visitors."""
    times, memory, seen = 50 if chaos else 3, [], [set(), set()]
    with served(backend, model_folder, tmp_path) as (process, address, scratch):
        for turn in range(3 if chaos else 1):
            with ThreadPoolExecutor(2) as both:
                visits = [
                    both.submit(visit, address, picture, times, 2 * turn + i)
                    for i, picture in enumerate(example_pictures()[:2])
                ]
            for i, found in enumerate(visits):
                pages, page = found.result()
                seen[i].add(page)
                tally["app", "requests of two visitors at once", "the own result"] += pages
                tally["app", "requests of two visitors at once", "cancelled"] += times - pages
            memory.append(memory_mib(process))
        until = time.monotonic() + 60
        while list((scratch).rglob("keypoints.json")) and time.monotonic() < until:
            time.sleep(0.5)
        assert not list(scratch.rglob("keypoints.json"))
        process.terminate()
        said = process.communicate(timeout=120)[1]
    assert "Traceback" not in said
    assert [len(pages) for pages in seen] == [1, 1]
    assert seen[0] != seen[1]
    # The first hundred requests warm up; a result is a tenth of a megabyte.
    assert memory[-1] < memory[0] + 64
