"""The app as a process: however it is ended, its status is 0 and none of its files is left."""

import os
import signal
import subprocess
import sys
import urllib.request

import pytest

from keyorbit.app.calls import example_pictures
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained

pytest.importorskip("gradio", reason="the app is an extra: pip install 'keyorbit[app]'")


def upload(address):
    """A picture that the server keeps."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="mine.png"\r\n\r\n'
    body = head + example_pictures()[0].read_bytes() + b"\r\n--x--\r\n"
    request = urllib.request.Request(f"{address}/gradio_api/upload", body)
    request.add_header("Content-Type", "multipart/form-data; boundary=x")
    urllib.request.urlopen(request, timeout=60).read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_no_file_is_left_when_the_app_is_ended(number, backend, model_folder, tmp_path, tally, chaos):
    if number != signal.SIGTERM and not chaos:
        pytest.skip("one signal has to do")
    scratch, run = tmp_path / "scratch", tmp_path / "run"
    scratch.mkdir()
    run.mkdir()
    untrained(backend, DiscoverConfig(num_tokens=3, num_candidates=3)).save(run / "tokens.safetensors")
    command = [sys.executable, "-m", "keyorbit", "app", str(run), "--model", str(model_folder)]
    there = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=there) as served:
        upload(served.stdout.readline().split()[0].rstrip("/"))
        assert list(scratch.rglob("mine.png"))
        served.send_signal(number)
        said = served.communicate(timeout=120)[1]
    assert served.returncode == 0
    assert "Traceback" not in said
    assert list(scratch.glob("keyorbit*")) == []
    assert not (scratch / "gradio").exists()
    tally["app", f"ended by {number.name}", "nothing left"] += 1
