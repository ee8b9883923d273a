"""The weighted mean of two tiny models: part by part, and a whole model."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.errors import InputError
from tiny_model.average import _WEIGHTS, average

UNET, TEXT, VISION = _WEIGHTS.values()


@pytest.fixture
def other(model_folder, tmp_path):
    """A model of the same architecture whose weights are all by one more."""
    folder = tmp_path / "other"
    shutil.copytree(model_folder, folder)
    for name in _WEIGHTS.values():
        weights = load_file(folder / name)
        more = {key: value + 1 if value.is_floating_point() else value for key, value in weights.items()}
        save_file(more, folder / name, {"format": "pt"})
    (folder / "README.md").write_text("the card of another model")
    return folder


def test_each_part_takes_its_share_and_the_rest_is_the_old_models(model_folder, other, tmp_path):
    out = tmp_path / "out"
    average(model_folder, other, out, {"unet": 0.25, "text_encoder": 1.0})
    for name, share in ((UNET, 0.25), (TEXT, 1.0), (VISION, 0.0), ("vae/diffusion_pytorch_model.safetensors", 0.0)):
        old, new = load_file(model_folder / name), load_file(out / name)
        assert old.keys() == new.keys()
        for key, value in old.items():
            assert new[key].dtype == value.dtype
            wanted = value.float() + share * value.is_floating_point()
            torch.testing.assert_close(new[key].float(), wanted, atol=2e-3, rtol=2e-3)  # float16
    assert load_backend(out, "cpu", "float32").view_size == load_backend(model_folder, "cpu", "float32").view_size


def test_the_card_of_one_model_is_not_the_means(model_folder, other, tmp_path):
    average(other, model_folder, tmp_path / "out", {"unet": 0.5})
    assert not (tmp_path / "out" / "README.md").exists()


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_are_from_0_to_1(model_folder, other, tmp_path, share):
    with pytest.raises(InputError, match="unet"):
        average(model_folder, other, tmp_path / "out", {"unet": share})
    assert not (tmp_path / "out").exists()


def test_nothing_is_replaced_or_half_written(model_folder, other, tmp_path):
    out = tmp_path / "out"
    average(model_folder, other, out, {"unet": 0.5})
    before = (out / UNET).read_bytes()
    with pytest.raises(InputError, match="--overwrite"):
        average(model_folder, other, out, {"unet": 1.0})
    narrow = load_file(other / UNET)
    narrow["conv_in.bias"] = narrow["conv_in.bias"][:-1]
    save_file(narrow, other / UNET)
    with pytest.raises(InputError, match="architecture of their unet"):
        average(model_folder, other, out, {"unet": 1.0}, overwrite=True)
    (other / UNET).write_bytes(b"no weights")
    with pytest.raises(InputError, match="cannot be read as weights"):
        average(model_folder, other, out, {"unet": 1.0}, overwrite=True)
    assert (out / UNET).read_bytes() == before
