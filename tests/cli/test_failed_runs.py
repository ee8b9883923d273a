"""A run that fails leaves its folder as it was, or says which checkpoint it kept; a second process is refused."""

from contextlib import contextmanager
from threading import Event, Thread

import pytest
import torch

from helpers.disk import contents
from keyorbit.diffusion.tokens import Tokens
from keyorbit.storage.lock import in_use
from keyorbit.training.step import TrainingStep

FEW = ["--steps", 3, "--batch", 1, "--tokens", 2]


@pytest.fixture
def words_of(model_folder, chairs, tmp_path):
    """A command's words."""

    def words(name, out):
        few = "planting = 1\n" if name == "discover" else ""
        (tmp_path / "few.toml").write_text(f"save_every = 2\n{few}")
        more = {"discover": ["--candidates", 3, "--warps", 0, "--noises", 1], "train": ["--cpu", "--accumulate", 1]}
        options = [*more[name], "--model", model_folder, "--config", tmp_path / "few.toml", *FEW]
        return [name, chairs, "--out", out, *options]

    return words


@pytest.fixture
def unlearnable(monkeypatch):
    """Within its block no run can learn: its tokens are no numbers, which no settings bring about any more."""

    def nowhere(cls, text_embeddings, count, generator, info=None):
        return cls(torch.full((count, text_embeddings.shape[1]), torch.nan), info)

    @contextmanager
    def block():
        with monkeypatch.context() as patch:
            patch.setattr(Tokens, "initialise", classmethod(nowhere))
            yield

    return block


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("discover", []),
        ("discover", ["--mode", "joint"]),
        ("discover", ["--method", "consistency"]),
        ("train", ["--train", "tokens"]),
        ("train", ["--train", "full"]),
    ],
)
def test_a_loss_that_is_no_number_leaves_the_folder_as_it_was(
    name, more, words_of, tmp_path, command, capsys, unlearnable
):
    out = tmp_path / "out"
    with unlearnable():
        assert command(*words_of(name, out), *more) == 2
    assert not out.exists()
    assert command(*words_of(name, out)) == 0
    before = contents(tmp_path)
    capsys.readouterr()
    with unlearnable():
        assert command(*words_of(name, out), *more, "--overwrite") == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("keyorbit: ")]
    assert len(said) == 1
    assert "no number" in said[0] or "the loss is" in said[0]
    assert "lower the rate" in said[0]
    (tmp_path / "few.toml").write_bytes(before["few.toml"])
    assert contents(tmp_path) == before


def test_a_later_failure_says_which_checkpoint_was_kept(words_of, tmp_path, command, capsys, monkeypatch):
    out, real = tmp_path / "out", TrainingStep.__call__

    def broken(self, draw):
        terms = real(self, draw)
        return terms if draw.step < 2 else {key: value * float("nan") for key, value in terms.items()}

    monkeypatch.setattr(TrainingStep, "__call__", broken)
    assert command(*words_of("train", out)) == 2
    said = capsys.readouterr().err
    assert "no number any more by step 3" in said
    assert "the checkpoint of step 2 was kept: --resume goes on from it" in said
    assert not (out / "tokens.safetensors").exists()
    monkeypatch.undo()


@pytest.fixture
def held(tmp_path):
    """The run's folder, held by another thread, which is as good as another process."""
    taken, done = Event(), Event()

    def hold():
        with in_use(tmp_path / "out"):
            taken.set()
            done.wait()

    thread = Thread(target=hold)
    thread.start()
    taken.wait()
    yield tmp_path / "out"
    done.set()
    thread.join()


@pytest.mark.parametrize("name", ["discover", "train"])
@pytest.mark.parametrize("more", [[], ["--resume"], ["--overwrite"]])
def test_what_another_process_writes_is_left_to_it(name, more, words_of, held, command, capsys):
    assert command(*words_of(name, held), *more) == 2
    assert "another process is writing" in capsys.readouterr().err
    assert not held.exists()


def test_the_model_itself_is_not_overwritten(words_of, tmp_path, command, capsys):
    out = tmp_path / "out"
    assert command(*words_of("train", out), "--train", "full") == 0
    before = contents(out)
    assert command(*words_of("train", out), "--overwrite", "--model", out / "model") == 2
    assert "which is to be overwritten" in capsys.readouterr().err
    assert contents(out) == before


def test_a_run_without_its_checkpoint_is_not_begun_anew_over_the_earlier_ones(words_of, tmp_path, command, capsys):
    out = tmp_path / "out"
    assert command(*words_of("train", out)) == 0
    (out / "train.safetensors").unlink()
    before = contents(out)
    assert command(*words_of("train", out), "--resume") == 2
    assert "copy an earlier one there, such as" in capsys.readouterr().err
    assert contents(out) == before
