"""Two processes give the tokens of one, bit for bit; a killed one ends the run, which then goes on where it was."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.source import check_shares
from keyorbit.errors import InputError
from keyorbit.ranks import Ranks, first_launched, start_ranks

DRIVER = Path(__file__).parent / "helpers" / "ranks_driver.py"


def start(job, model, chairs, folder, **more):
    source = Path(__file__).parents[1] / "src"
    path = os.pathsep.join([str(source), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **more}
    words = [sys.executable, str(DRIVER), job, str(model), str(chairs), str(folder)]
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model_folder, chairs):
    """The folder in which two processes have worked; the second killed itself in the end."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    where = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    both = [start("work", model_folder, chairs, folder, RANK=str(i), LOCAL_RANK=str(i), **where) for i in range(2)]
    said = [process.communicate(timeout=900)[1] for process in both]
    assert [process.returncode for process in both] == [0, -9], said
    return folder


def tokens(path):
    return Tokens.load(path).embedding


def test_two_processes_give_the_tokens_of_one(finished):
    alone = tokens(finished / "alone.safetensors")
    for name in ("memory_0", "memory_1", "disk_0", "disk_1"):
        assert torch.equal(tokens(finished / f"{name}.safetensors"), alone), name
    joint = tokens(finished / "alone_joint.safetensors")
    assert all(torch.equal(tokens(finished / f"joint_{i}.safetensors"), joint) for i in range(2))
    assert not torch.equal(joint, alone)


def test_every_shard_is_built_once(finished):
    assert [int((finished / f"built_{i}").read_text()) for i in range(2)] == [2, 1]
    assert len(list((finished / "cache").glob("shard_*.safetensors"))) == 3


def test_one_process_writes_the_run(finished):
    assert {path.name for path in (finished / "run").iterdir()} == {
        ".keyorbit.json",
        "checkpoint.safetensors",
        "discover.toml",
        "losses.jsonl",
        "run.json",
        "tokens.safetensors",
    }


def test_objects_are_detected_once_each_by_one_of_them(finished):
    names = [f"chair_1_0000{i}" for i in range(3)]
    assert [(finished / f"read_{i}").read_text().split() for i in range(2)] == [names[::2], names[1::2]]
    rows = [json.loads(line) for line in (finished / "found" / "results.jsonl").read_text().splitlines()]
    assert [(row["number"], row["object"]) for row in rows] == list(enumerate(names))
    assert all(row["skeleton"] == rows[0]["skeleton"] for row in rows)
    assert {path.name for path in (finished / "found").iterdir()} == {".keyorbit.json", "results.jsonl", *names}


def test_the_figures_of_two_processes_are_those_of_one(finished, chairs, tmp_path, command):
    assert command("evaluate", finished / "run", chairs, "--no-baseline", "--json", tmp_path / "scores.json") == 0
    assert (tmp_path / "scores.json").read_bytes() == (finished / "measured" / "scores.json").read_bytes()


def test_a_killed_process_ends_the_run_with_a_sentence_and_a_checkpoint(finished):
    message = (finished / "message").read_text()
    assert "another process of this run is gone" in message
    assert "--resume" in message
    assert (finished / "killed" / "checkpoint.safetensors").is_file()
    assert not list((finished / "killed").glob("*.partial"))
    # One process finishes what two began.
    assert torch.equal(tokens(finished / "after.safetensors"), tokens(finished / "alone.safetensors"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_run_killed_at_any_step_resumes_bit_identical(tmp_path, model_folder, chairs):
    process = start("stopped_runs", model_folder, chairs, tmp_path)
    said = process.communicate(timeout=900)[1]
    assert process.returncode == 0, said
    alone = tokens(tmp_path / "alone.safetensors")
    for step in range(1, 5):
        assert torch.equal(tokens(tmp_path / f"resumed_{step}.safetensors"), alone), step


def test_without_a_launcher_this_process_is_the_only_one(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks = start_ranks()
    assert ranks == Ranks()
    assert ranks.main
    assert all(ranks.owns(number) for number in range(5))
    ranks.wait()
    x = torch.ones(2)
    assert ranks.sum(x) is x


def test_more_processes_than_objects_are_refused():
    with pytest.raises(InputError, match="3 objects cannot be shared by 4 processes"):
        check_shares(3, Ranks(0, 4))
    with pytest.raises(InputError, match="no objects"):
        check_shares(0, Ranks())


@pytest.mark.parametrize("name", ["RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"])
def test_the_first_of_the_launched_processes_is_told_whoever_launched_them(name, monkeypatch):
    for other in ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK"):
        monkeypatch.delenv(other, raising=False)
    assert first_launched()
    monkeypatch.setenv(name, "1")
    assert not first_launched()
    monkeypatch.setenv(name, "0")
    assert first_launched()
