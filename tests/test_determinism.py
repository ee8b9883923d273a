"""Deterministic algorithms: set where a command asks for them, before anything is computed, and never otherwise."""

import os

import pytest
import torch
from typer.main import get_command

from keyorbit.cli import app
from keyorbit.determinism import compute_deterministically
from keyorbit.discovery.run import DiscoveryRun


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """The setting is for the whole process."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    yield
    torch.use_deterministic_algorithms(False)


def settings():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


def test_what_is_set():
    compute_deterministically()
    assert settings() == (True, False, False, ":4096:8")


def test_the_users_own_workspace_stays(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    compute_deterministically()
    assert settings()[-1] == ":16:8"


@pytest.mark.parametrize("words", [["--deterministic"], []])
def test_a_command_sets_it_before_it_computes(words, command, model_folder, chairs, tmp_path, monkeypatch):
    seen, step = [], DiscoveryRun.step

    def watched(run, number):
        seen.append(torch.are_deterministic_algorithms_enabled())
        return step(run, number)

    monkeypatch.setattr(DiscoveryRun, "step", watched)
    few = ["--model", model_folder, "--tokens", 2, "--candidates", 2, "--steps", 2, "--noises", 1]
    assert command("discover", chairs, "--out", tmp_path / "run", *few, "--method", "consistency", *words) == 0
    assert seen == [bool(words)] * 2


def test_every_command_that_computes_offers_it():
    commands = dict(get_command(app).commands)
    commands |= commands["protocol"].commands
    offering = {name for name, c in commands.items() if any("--deterministic" in p.opts for p in c.params)}
    assert offering == {
        "discover",
        "cache",
        "train",
        "detect",
        "evaluate",
        "report",
        "stablekeypoints",
        "generate",
        "name",
        "mark",
    }
