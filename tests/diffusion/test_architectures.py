"""Architectures by name and from a folder's configurations."""

import json
import shutil

import pytest

from keyorbit.diffusion.inspection.architectures import ARCHITECTURES, load_architecture
from keyorbit.errors import InputError
from keyorbit.geometry.views import Layout

# Published parameter counts: UNet, VAE, text encoder.
PUBLISHED = {
    "zero123plus-v1.1": (865_910_724, 83_653_863, 340_387_840),
    "zero123plus-v1.2": (865_910_724, 83_653_863, 340_387_840),
    "stable-diffusion-1.5": (859_520_964, 83_653_863, 123_060_480),
    "stable-diffusion-2.1": (865_910_724, 83_653_863, 340_387_840),
}


def count(part):
    return sum(weight.numel() for weight in part.parameters())


def edit(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_named_ones_have_the_published_parameter_counts(name):
    model = load_architecture(name)
    parts = model.build_unet(), model.build_vae(), model.build_text_encoder()
    assert tuple(map(count, parts)) == PUBLISHED[name]
    assert all(weight.is_meta for part in parts for weight in part.parameters())


def test_a_folder_is_read_without_its_weights(model_folder, backend, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    model = load_architecture(folder)
    assert count(model.build_unet()) == count(backend.unet)
    assert count(model.build_text_encoder()) == count(backend.parts.text_encoder)
    assert model.picture_size == backend.grid_size
    assert (model.layout, model.condition_size, model.prediction_type) == (Layout(3, 2), 16, "v_prediction")


def test_a_folder_without_ramping_coefficients_is_a_single_view(model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "single", ignore=shutil.ignore_patterns("*.safetensors"))
    index = json.loads((folder / "model_index.json").read_text())
    del index["ramping_coefficients"]
    (folder / "model_index.json").write_text(json.dumps(index))
    model = load_architecture(folder)
    assert (model.layout, model.condition_size) == (Layout(1, 1), None)
    assert model.view_size == model.unet["sample_size"] * 2


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "unet/config.json").unlink(), "lacks"),
        (lambda f: (f / "unet/config.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: (f / "vae/config.json").write_text("[]"), "not a JSON object"),
        (lambda f: edit(f / "unet/config.json", cross_attention_dim=2048), "cross_attention_dim is 2048"),
        (lambda f: edit(f / "unet/config.json", in_channels=9), "in_channels is 9"),
        (lambda f: (f / "unet/config.json").write_text('{"_class_name": "FluxTransformer"}'), "FluxTransformer"),
    ],
)
def test_a_damaged_folder_is_named(damage, words, model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "damaged", ignore=shutil.ignore_patterns("*.safetensors"))
    damage(folder)
    with pytest.raises(InputError, match=words):
        load_architecture(folder)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match=r"zero123plus-v1\.2"):
        load_architecture("zero124")
