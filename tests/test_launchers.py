"""The command line under torchrun and accelerate launch: two processes, one job, one run's folder."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace

import psutil
import pytest
import torch

from keyorbit.diffusion.tokens import Tokens
from keyorbit.errors import InputError
from keyorbit.ranks import launched, start_ranks

TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
STEPS = 200


@pytest.fixture
def discover(chairs, model_folder, tmp_path):
    """The words of a discovery that saves often."""
    (tmp_path / "often.toml").write_text("save_every = 20\nplanting = 3")
    options = ["--tokens", 3, "--candidates", 5, "--batch", 2, "--steps", STEPS, "--config", tmp_path / "often.toml"]
    return ["discover", chairs, "--model", model_folder, "--warps", 1, *options, "--out"]


@contextmanager
def launch(launcher, words):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    line = [sys.executable, "-m", *launcher, "-m", "keyorbit", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = subprocess.Popen(line, env=environment, text=True, **pipes)
    try:
        yield running
    finally:
        running.terminate()  # it ends its processes
        running.wait()


def test_torchrun_ends_with_its_processes_and_the_run_goes_on(discover, tmp_path, run_here):
    out, whole = tmp_path / "killed", tmp_path / "whole"
    with launch(TORCHRUN, [*discover, out]) as running:
        deadline = time.monotonic() + 900
        while not (out / "checkpoint.safetensors").exists():
            assert running.poll() is None, running.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        ranks = {child.environ()["RANK"]: child for child in psutil.Process(running.pid).children()}
        ranks["1"].send_signal(signal.SIGKILL)
        result, said = running.communicate(timeout=900)
    assert running.returncode != 0
    assert "is gone" in said
    assert "--resume" in said
    assert "keyorbit/cli.py" not in said  # no traceback of ours
    assert said.count("cache 3/3") == 1
    assert result == ""
    assert not (out / "tokens.safetensors").exists()
    run_here([*discover, out, "--resume"])
    run_here([*discover, whole])
    found, expected = (Tokens.load(folder / "tokens.safetensors") for folder in (out, whole))
    assert torch.equal(found.embedding, expected.embedding)


def test_accelerate_builds_the_cache_of_one_process(chairs, model_folder, tmp_path, run_here):
    words = ["cache", chairs, "--model", model_folder, "--warps", 1, "--out"]
    with launch(ACCELERATE, [*words, tmp_path / "two"]) as running:
        result, said = running.communicate(timeout=900)
    assert running.returncode == 0, said
    assert result.count("3 objects in") == 1
    assert said.count("will take") == 1
    run_here([*words, tmp_path / "one"])
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == names
    assert all((tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes() for name in names)


def test_processes_that_cannot_talk_do_not_each_do_the_whole_job(monkeypatch):
    for name in ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert launched() == 1
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")  # as mpirun sets it
    assert launched() == 2
    monkeypatch.setattr("accelerate.PartialState", lambda **settings: SimpleNamespace(num_processes=1))
    with pytest.raises(InputError, match="2 processes were started, but on mps"):
        start_ranks("mps")
