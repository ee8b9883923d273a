"""Model folders: a round trip, and one clear sentence for each that cannot be used."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from helpers.models import SMALL
from keyorbit.diffusion.backends.components import load_component, load_unet
from keyorbit.diffusion.backends.fingerprint import fingerprint
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.choices import check_dtype
from keyorbit.discovery.choices import check_stored
from keyorbit.errors import InputError
from tiny_model.model import make_tiny


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


def change_config(folder, part, **values):
    path = folder / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def foreign_unet(folder):
    change_config(folder, "unet", _class_name="UNetSpatioTemporalConditionModel")


def foreign_text_encoder(folder):
    change_config(folder, "text_encoder", architectures=["T5EncoderModel"])


def foreign_scheduler(folder):
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler"})
    )


def other_text_width(folder):
    parts = make_tiny(replace(SMALL, width=24))
    parts.unet.save_pretrained(folder / "unet")


def short_ramp(folder):
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ramping_coefficients": [0.0, 1.0]}))


def no_ramp(folder):
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ramping_coefficients": None}))


def incomplete_vae(folder):
    drop_weight(next((folder / "vae").glob("*.safetensors")), "decoder.conv_out.weight")


def incomplete_text_encoder(folder):
    path = next((folder / "text_encoder").glob("*.safetensors"))
    drop_weight(path, next(key for key in load_file(path) if "final_layer_norm.weight" in key))


def drop_weight(path, key):
    weights = load_file(path)
    del weights[key]
    save_file(weights, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (spoil_index, "model_index.json"),
        (spoil_json, "JSON"),
        (spoil_ramp, "ramping_coefficients.*StableDiffusionPipeline"),
        (spoil_unet, "lacks its unet"),
        (spoil_weights, "unet"),
        (spoil_file, "unet"),
        (only_pickle, "diffusion_pytorch_model.bin only, .* convert the model with"),
        (foreign_unet, "unet.* is a UNetSpatioTemporalConditionModel, not a UNet2DConditionModel"),
        (foreign_text_encoder, "text_encoder.* is a T5EncoderModel, not a CLIPTextModel"),
        (foreign_scheduler, "scheduler.* is a FlowMatchEulerDiscreteScheduler"),
        (other_text_width, "unet takes a context of width 24, not the text_encoder's 16"),
        (short_ramp, "ramping_coefficients of number 2, not the tokenizer's 77"),
        (no_ramp, "ramping_coefficients cannot be None; it must be a list"),
        (incomplete_vae, "vae.* lacks decoder.conv_out.weight"),
        (incomplete_text_encoder, "text_encoder.* lacks .*final_layer_norm.weight"),
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
    for name in ("int8", torch.float64, "", "bf"):
        with pytest.raises(InputError, match=r"dtype '.*' is not one of float32, bfloat16, float16, auto"):
            load_backend(model_folder, dtype=name)
    with pytest.raises(InputError, match="device"):
        load_backend(model_folder, device="quantum")


@pytest.mark.parametrize(
    ("short", "name"),
    [("bf16", "bfloat16"), ("fp16", "float16"), ("half", "float16"), ("fp32", "float32"), ("BF16", "bfloat16")],
)
def test_types_have_short_names(short, name):
    assert check_dtype(short) == check_dtype(name) == check_stored(short) == name


def test_half_precision_runs_and_records_float32(model_folder):
    from keyorbit.diffusion.attention import capture_attention

    backend = load_backend(model_folder, dtype="bf16")
    assert backend.precision.dtype == "bfloat16"
    zeros = torch.zeros(1, 4, 8, 8, dtype=torch.bfloat16)
    with capture_attention(backend.unet) as record, torch.no_grad():
        grid, context = torch.zeros(1, 4, 24, 16, dtype=torch.bfloat16), torch.zeros(1, 79, 16, dtype=torch.bfloat16)
        backend.denoise(grid, torch.tensor(5), context, zeros, zeros)
    assert record.layers()[0].token_logits.dtype == torch.float32


@pytest.fixture
def other_unet(tmp_path):
    weights = make_tiny(SMALL, seed=2).unet.half().state_dict()
    save_file(weights, tmp_path / "white.safetensors")
    return tmp_path / "white.safetensors"


def test_a_separate_unet_takes_the_place_of_the_folders(folder, backend, other_unet):
    next((folder / "unet").glob("*.safetensors")).unlink()
    swapped = load_backend(folder, unet=other_unet)
    for name, value in load_file(other_unet).items():
        assert torch.equal(swapped.unet.state_dict()[name], value.float())
    assert not any(weight.requires_grad or weight.is_meta for weight in swapped.unet.parameters())
    assert swapped.fingerprint not in ("", backend.fingerprint)
    assert load_backend(folder, dtype=torch.bfloat16, unet=other_unet).dtype == torch.bfloat16


def lacking(weights):
    del weights["conv_in.weight"]


def too_many(weights):
    weights["added_embedding.weight"] = torch.zeros(1)


def misshapen(weights):
    weights["conv_in.bias"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lacking, "white.safetensors .* it lacks conv_in.weight"),
        (too_many, "it has besides added_embedding.weight"),
        (misshapen, "it has other shapes for conv_in.bias"),
    ],
)
def test_a_state_dict_of_another_unet_is_named(model_folder, other_unet, spoil, words):
    weights = load_file(other_unet)
    spoil(weights)
    save_file(weights, other_unet)
    with pytest.raises(InputError, match=words):
        load_backend(model_folder, unet=other_unet)


def test_a_pickle_a_missing_and_a_damaged_state_dict_are_refused(model_folder, tmp_path):
    with pytest.raises(InputError, match=r"no UNet state dict at .*unet\.safetensors"):
        load_backend(model_folder, unet=tmp_path / "unet.safetensors")
    for suffix in (".bin", ".ckpt"):
        path = tmp_path / f"unet{suffix}"
        torch.save({}, path)
        with pytest.raises(InputError, match="pickles are never opened; convert it"):
            load_backend(model_folder, unet=path)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"damaged\.safetensors cannot be loaded"):
        load_backend(model_folder, unet=damaged)


def test_a_controlnet_must_fit_the_unet(model_folder, tmp_path):
    unet = make_tiny(replace(SMALL, width=24), seed=2).unet
    ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16, 32)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cross_attention_dim 24, not 16; pixels per latent position 4, not 2"):
        load_backend(model_folder, controlnet=tmp_path)
    with pytest.raises(InputError, match=r"ControlNet .* is a UNet2DConditionModel, not a ControlNetModel"):
        load_backend(model_folder, controlnet=model_folder / "unet")


def test_memory_that_runs_out_is_no_damage(model_folder, monkeypatch):
    """Neither in a part of the folder nor in a UNet of its own."""

    def full(*args, **options):
        raise MemoryError

    monkeypatch.setattr(AutoencoderKL, "from_pretrained", full)
    monkeypatch.setattr(UNet2DConditionModel, "load_state_dict", full)
    with pytest.raises(MemoryError):
        load_component(model_folder / "vae", "vae", AutoencoderKL, torch.float32)
    with pytest.raises(MemoryError):
        load_unet(model_folder / "unet", next((model_folder / "unet").glob("*.safetensors")), torch.float32)
