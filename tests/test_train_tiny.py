"""The recipe of the tiny model: what it writes loads, and a stopped run ends as if it had not stopped."""

from dataclasses import replace

import pytest
import torch

from conftest import SMALL
from keyorbit.backends.loading import load_backend
from keyorbit.checkpoint import load_checkpoint, save_checkpoint
from keyorbit.errors import InputError
from keyorbit.synthetic.train_tiny import TrainTinyConfig, train

FEW = TrainTinyConfig(
    objects=4, vae_steps=2, vae_batch=2, unet_steps=4, unet_batch=2, save_every=1, log_every=1, workers=1
)


@pytest.fixture(autouse=True)
def small_views(monkeypatch):
    """The recipe renders 64-pixel views; these tests train on 16."""
    from keyorbit.synthetic import train_tiny

    spec = train_tiny.SampleSpec
    monkeypatch.setattr(train_tiny, "SampleSpec", lambda category, seed: spec(category, seed, SMALL.view_size))


def weights(folder):
    return load_backend(folder).unet.state_dict()


def test_a_stopped_training_resumes_bit_identical(tmp_path):
    train(FEW, tmp_path / "whole", tmp_path / "whole_model", SMALL)
    # The learning rate follows the number of steps planned, so a stop is a stop, not a shorter plan.
    from keyorbit.synthetic import train_tiny

    with pytest.MonkeyPatch.context() as patch:
        saved = []

        def save(path, tensors, metadata):
            save_checkpoint(path, tensors, metadata)
            saved.append(path.name)
            if saved.count("unet.safetensors") == 2:
                raise KeyboardInterrupt

        patch.setattr(train_tiny, "save_checkpoint", save)
        with pytest.raises(KeyboardInterrupt):
            train(FEW, tmp_path / "stopped", tmp_path / "model", SMALL)
    assert not (tmp_path / "model").exists()
    train(FEW, tmp_path / "stopped", tmp_path / "model", SMALL)
    whole, resumed = weights(tmp_path / "whole_model"), weights(tmp_path / "model")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    start = weights(tmp_path / "model")
    train(replace(FEW, unet_steps=6), tmp_path / "stopped", tmp_path / "longer", SMALL)
    assert any(not torch.equal(start[name], value) for name, value in weights(tmp_path / "longer").items())


def test_checkpoints_are_whole_or_not_there(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"x": torch.arange(6.0).reshape(2, 3).T}, {"step": 3})
    tensors, metadata = load_checkpoint(path)
    assert torch.equal(tensors["x"], torch.arange(6.0).reshape(2, 3).T)
    assert metadata == {"step": 3}
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"c\.safetensors"):
        load_checkpoint(path)
    with pytest.raises(InputError, match="no checkpoint"):
        load_checkpoint(tmp_path / "none")
