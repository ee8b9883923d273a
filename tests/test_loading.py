"""Model folders: a round trip, and one clear sentence for each that cannot be used."""

import json
import shutil

import pytest
import torch

from keyorbit.backends.loading import fingerprint, load_backend
from keyorbit.errors import InputError


@pytest.fixture
def folder(model_folder, tmp_path):
    return shutil.copytree(model_folder, tmp_path / "model")


def test_a_copy_is_the_same_model_and_other_weights_are_not(folder, backend):
    copy = load_backend(folder)
    assert copy.fingerprint == backend.fingerprint
    for name, value in backend.unet.state_dict().items():
        assert torch.equal(copy.unet.state_dict()[name], value)
    path = next((folder / "vae").glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert fingerprint(folder) != backend.fingerprint


def spoil_index(folder):
    (folder / "model_index.json").unlink()


def spoil_json(folder):
    (folder / "model_index.json").write_text("{")


def spoil_ramp(folder):
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "x"}))


def spoil_unet(folder):
    shutil.rmtree(folder / "unet")


def spoil_weights(folder):
    next((folder / "unet").glob("*.safetensors")).unlink()


def spoil_file(folder):
    path = next((folder / "unet").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-64])


def only_pickle(folder):
    path = next((folder / "unet").glob("*.safetensors"))
    torch.save({"x": torch.zeros(1)}, path.with_suffix(".bin"))
    path.unlink()


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (spoil_index, "model_index.json"),
        (spoil_json, "JSON"),
        (spoil_ramp, "ramping_coefficients.*StableDiffusionPipeline"),
        (spoil_unet, "lacks its unet"),
        (spoil_weights, "unet"),
        (spoil_file, "unet"),
        (only_pickle, "pickle.*safe_serialization"),
    ],
)
def test_a_damaged_folder_is_named_in_one_line(folder, spoil, named):
    spoil(folder)
    with pytest.raises(InputError, match=named) as caught:
        load_backend(folder)
    assert "\n" not in str(caught.value)


def test_unknown_places_devices_and_types(model_folder, monkeypatch):
    with pytest.raises(InputError, match="no model folder"):
        load_backend("./nowhere")
    with pytest.raises(InputError, match="dtype"):
        load_backend(model_folder, dtype="int8")
    with pytest.raises(InputError, match="device"):
        load_backend(model_folder, device="quantum")


def test_half_precision_runs_and_records_float32(model_folder):
    from keyorbit.attention import capture_attention

    backend = load_backend(model_folder, dtype="bfloat16")
    zeros = torch.zeros(1, 4, 8, 8, dtype=torch.bfloat16)
    with capture_attention(backend.unet) as record, torch.no_grad():
        grid, context = torch.zeros(1, 4, 24, 16, dtype=torch.bfloat16), torch.zeros(1, 79, 16, dtype=torch.bfloat16)
        backend.denoise(grid, torch.tensor(5), context, zeros, zeros)
    assert record.layers()[0].token_logits.dtype == torch.float32
