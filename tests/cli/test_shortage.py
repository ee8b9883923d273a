"""Memory that runs out ends a command with one sentence, and what was finished goes on from there."""

import shutil

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from keyorbit.cli.shortage import remedy
from keyorbit.discovery.cache import index
from keyorbit.errors import memory_shortage
from keyorbit.storage.checkpoint import load_checkpoint

CUDA = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.78 GiB of which 1.2 GiB is free."
)
MPS = RuntimeError("MPS backend out of memory (MPS allocated: 5.56 GB, max allowed: 6.80 GB). Tried to allocate 768 MB")
CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
)
WINDOWS = RuntimeError("[enforce fail at alloc_cpu.cpp:80] . DefaultCPUAllocator: not enough memory: you tried")
CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
NUMPY = np._core._exceptions._ArrayMemoryError((10**15,), np.dtype(float))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (CUDA, "the device's memory (2.00 GiB more were wanted)"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), "the device's memory"),
        (MPS, "the device's memory (768 MB more were wanted)"),
        (CUBLAS, "the device's memory"),
        (CPU, "main memory"),
        (WINDOWS, "main memory"),
        (MemoryError(), "main memory"),
        (NUMPY, "main memory (7.11 PiB more were wanted)"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (ValueError("out of memory"), None),
    ],
)
def test_which_errors_mean_that_memory_ran_out(error, words):
    assert memory_shortage(error) == words


def test_what_torch_raises_here_is_recognised():
    for too_much in (lambda: torch.empty(10**15), lambda: np.empty(10**15), lambda: bytearray(10**18)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            too_much()
        assert memory_shortage(caught.value).startswith("main memory")


GPU, MAIN = "the device's memory", "main memory"


@pytest.mark.parametrize(
    ("given", "where", "words"),
    [
        (
            {"resume": False, "batch": None, "noises": None, "warps": None, "layers": None}
            | {"device": "auto", "dtype": "auto"},
            GPU,
            "; what is finished is kept: go on with --resume and --device cpu, "
            "or begin again with a smaller --batch, fewer --noises or fewer --layers",
        ),
        (
            {"resume": False, "batch": 1, "dtype": "float32", "device": "cuda"},
            GPU,
            "; what is finished is kept: go on with --resume and --dtype float16 or --device cpu",
        ),
        (
            {"resume": True, "batch": 8, "device": "cpu", "dtype": "float16"},
            MAIN,
            "; what is finished is kept: go on with --resume once there is more, or begin again with a smaller --batch",
        ),
        (
            {"resume": False, "checkpointing": None, "precision": None, "batch": 2, "cpu": False},
            GPU,
            "; what is finished is kept: go on with --resume and --checkpointing, "
            "or begin again with --precision bf16, a smaller --batch or --cpu",
        ),
        (
            {"resume": False, "batch": 1, "device": "cpu", "data": "chairs", "cache": None},
            MAIN,
            "; what is finished is kept: go on with --resume once there is more, "
            "or begin again with a cache ('keyorbit cache --store float16')",
        ),
        (
            {"store": "float32", "noises": 3, "warps": 2, "layers": None, "device": "cuda", "dtype": "float32"},
            GPU,
            "; what is finished is kept: the same command goes on once there is more, and with --dtype float16, "
            "fewer --noises, fewer --warps, fewer --layers or --device cpu it builds another cache",
        ),
        ({"noises": 1, "warps": 0, "device": "auto", "dtype": "auto"}, GPU, ": try --device cpu"),
        ({"workers": 4}, MAIN, ": try fewer --workers"),
        ({"device": "cpu", "dtype": "float16"}, MAIN, ": close other programs, or take another machine"),
    ],
)
def test_the_remedy_fits_the_command(given, where, words):
    assert remedy(given, where) == words


class Full:
    """The UNet, in the forward of which memory runs out once: the one with that number."""

    def __init__(self, patch):
        self.forward, self.left = UNet2DConditionModel.forward, None
        self.calls = 0
        full = self

        def forward(unet, *args, **kwargs):
            full.calls += 1
            if full.calls == full.left:
                raise CUDA
            return full.forward(unet, *args, **kwargs)

        patch.setattr(UNet2DConditionModel, "forward", forward)

    def at(self, call):
        self.calls, self.left = 0, call


@pytest.fixture
def full(monkeypatch):
    return Full(monkeypatch)


def said(capsys):
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("keyorbit:")]
    assert "the device's memory (2.00 GiB more were wanted) does not suffice" in line
    return line


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_cache_goes_on_and_is_the_same(full, command, model_folder, chairs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(index, "_SHARD_BYTES", 1)  # a shard for each object
    words = ["cache", chairs, "--model", model_folder, "--noises", 2, "--out"]
    assert command(*words, tmp_path / "whole") == 0
    whole = full.calls
    full.at(whole - 1)
    assert command(*words, tmp_path / "stopped") == 2
    assert "the same command goes on once there is more" in said(capsys)
    names = set(contents(tmp_path / "stopped"))
    assert {name for name in names if "shard" in name} == {f"shard_0000{i}.safetensors" for i in (0, 1)}
    full.at(None)
    assert command(*words, tmp_path / "stopped") == 0
    assert full.calls < whole  # what is there is not built again
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_a_discovery_resumes_bit_identical(full, command, model_folder, chairs, tmp_path, capsys):
    """Stopped before the first checkpoint, and behind it."""
    (tmp_path / "few.toml").write_text('save_every = 2\nmethod = "consistency"')
    few = ["--tokens", 2, "--candidates", 3, "--steps", 5, "--batch", 2, "--mode", "joint", "--warps", 0]
    words = ["discover", chairs, "--model", model_folder, "--config", tmp_path / "few.toml", *few, "--out"]
    assert command(*words, tmp_path / "whole") == 0
    wanted, whole = load_checkpoint(tmp_path / "whole" / "tokens.safetensors")[0], full.calls
    for call, saved in ((whole // 4, False), (whole // 2 + 1, True)):
        run = tmp_path / f"stopped_{call}"
        full.at(call)
        assert command(*words, run) == 2
        assert ("go on with --resume" if saved else "does not suffice: try") in said(capsys)
        assert (run / "checkpoint.safetensors").exists() == run.exists() == saved
        full.at(None)
        assert command(*words, run, "--resume") == 0
        assert torch.equal(load_checkpoint(run / "tokens.safetensors")[0]["embedding"], wanted["embedding"])


def test_nothing_is_there_of_a_discovery_that_did_not_begin(full, command, model_folder, chairs, tmp_path, capsys):
    full.at(3)
    few = ["--tokens", 2, "--candidates", 3, "--steps", 1, "--noises", 1]
    assert command("discover", chairs, "--model", model_folder, "--out", tmp_path / "run", *few) == 2
    said(capsys)
    assert not (tmp_path / "run").exists()


def test_training_resumes_with_checkpointing(full, command, model_folder, chairs, tmp_path, capsys):
    few = ["--train", "tokens", "--tokens", 2, "--steps", 4, "--save-every", 2, "--accumulate", 1]
    words = ["train", chairs, "--model", model_folder, *few, "--cpu", "--out"]
    assert command(*words, tmp_path / "whole") == 0
    full.at(full.calls - 1)
    assert command(*words, tmp_path / "stopped") == 2
    assert "go on with --resume and --checkpointing" in said(capsys)
    full.at(None)
    assert command(*words, tmp_path / "stopped", "--resume", "--checkpointing") == 0
    found, wanted = (load_checkpoint(tmp_path / run / "tokens.safetensors")[0] for run in ("stopped", "whole"))
    assert torch.equal(found["embedding"], wanted["embedding"])


def test_detection_leaves_nothing_half_written(full, command, model_folder, chairs, tmp_path, capsys):
    few = ["--tokens", 2, "--candidates", 3, "--steps", 1, "--noises", 1, "--config", tmp_path / "few.toml"]
    (tmp_path / "few.toml").write_text("planting = 1\nexemplars = 1")
    assert command("discover", chairs, "--model", model_folder, "--out", tmp_path / "run", *few) == 0
    before = shutil.copytree(tmp_path / "run", tmp_path / "before")
    capsys.readouterr()
    for words in (["detect", tmp_path / "run", chairs, "--out", tmp_path / "found"], ["report", tmp_path / "run"]):
        full.at(3)
        assert command(*words) == 2
        said(capsys)
    assert not (tmp_path / "found").exists()
    assert contents(tmp_path / "run") == contents(before)
