"""Which folders and files are a Stable Diffusion: by their parts, whatever their pipeline, scheduler or layout."""

import inspect
import json
import shutil

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, LatentConsistencyModelPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file

from helpers.models import one_file
from keyorbit.diffusion.backends.components import load_component, load_unet
from keyorbit.diffusion.backends.fingerprint import fingerprint
from keyorbit.diffusion.backends.loading import load_backend, model_fingerprint
from keyorbit.diffusion.backends.stable_diffusion import guidance_embedding
from keyorbit.diffusion.config import PrepareConfig, RecordConfig
from keyorbit.diffusion.prepare import object_generator
from keyorbit.diffusion.recording import record
from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectViews


@pytest.fixture
def folder(stable_diffusion_folder, tmp_path):
    return shutil.copytree(stable_diffusion_folder, tmp_path / "model")


def change(path, **values):
    told = {key: value for key, value in (json.loads(path.read_text()) | values).items() if value != "gone"}
    path.write_text(json.dumps(told))


def maps(model):
    config = RecordConfig(model.default_layers, "attention", PrepareConfig(warps=0).settled(model.default_timestep))
    tokens = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    seen = ObjectViews("x", Image.linear_gradient("L").convert("RGB"))
    return torch.cat([one.maps.flatten() for one in record(seen, model, config, object_generator(0, 0)).maps(tokens)])


# Of each kind: all betas told as in the published folders, or left to the class's own defaults.
TOLD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
SCHEDULERS = [
    *(
        "DDIM",
        "DDPM",
        "PNDM",
        "LMSDiscrete",
        "EulerDiscrete",
        "EulerAncestralDiscrete",
        "HeunDiscrete",
        "KDPM2Discrete",
    ),
    *("KDPM2AncestralDiscrete", "DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "UniPCMultistep", "LCM"),
    *("TCD", "DDIMParallel", "SASolver"),
]


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("told", [{}, TOLD, {"beta_schedule": "squaredcos_cap_v2"}, {"rescale_betas_zero_snr": True}])
def test_any_schedulers_noise_is_its_own(name, told, tmp_path, generator):
    kind = getattr(diffusers, f"{name}Scheduler")
    told = {key: value for key, value in told.items() if key in inspect.signature(kind).parameters}
    own = kind(**told)
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"_class_name": kind.__name__, **told}))
    ours = load_component(tmp_path, "scheduler", DDIMScheduler, torch.float32)
    assert torch.equal(ours.alphas_cumprod[:-1], own.alphas_cumprod[:-1])  # the last is 0, or almost
    assert ours.config.prediction_type == own.config.prediction_type
    # Some add noise to the clean latent, and scale the sum when the UNet is given it.
    own.set_timesteps(50)
    clean, noise = torch.randn(2, 1, 4, 2, 2, generator=generator)
    time = own.timesteps[20].round().long()[None]
    theirs = own.scale_model_input(own.add_noise(clean, noise, own.timesteps[20:21]), own.timesteps[20])
    torch.testing.assert_close(ours.add_noise(clean, noise, time), theirs, atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize(
    ("name", "told", "words"),
    [
        (
            "FlowMatchEulerDiscreteScheduler",
            {},
            "is a FlowMatchEulerDiscreteScheduler, whose noise is not told by betas",
        ),
        ("EDMEulerScheduler", {}, "not told by betas"),
        ("UniPCMultistepScheduler", {"use_flow_sigmas": True}, "not told by betas"),
        ("DPMSolverMultistepScheduler", {"prediction_type": "flow_prediction"}, "prediction_type cannot be 'flow_pred"),
        ("AutoencoderKL", {}, "is a AutoencoderKL, not a DDIMScheduler"),
    ],
)
def test_other_noises_are_named(name, told, words, tmp_path):
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"_class_name": name, **told}))
    with pytest.raises(InputError, match=words):
        load_component(tmp_path, "scheduler", DDIMScheduler, torch.float32)


@pytest.mark.parametrize("name", ["LatentConsistencyModelPipeline", ["pipeline", "MyOwnPipeline"]])
def test_any_pipeline_of_the_same_parts_is_read(name, folder, stable_diffusion):
    change(folder / "model_index.json", _class_name=name, safety_checker=[None, None], image_encoder=None)
    assert load_backend(folder).fingerprint == stable_diffusion.fingerprint


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]},
            "a Stable Diffusion XL, which has two text",
        ),
        ({"transformer": ["diffusers", "FluxTransformer2DModel"], "unet": "gone"}, "a diffusion transformer, as"),
        ({"motion_adapter": ["diffusers", "MotionAdapter"]}, "an AnimateDiff"),
        ({"low_res_scheduler": ["diffusers", "DDPMScheduler"]}, "an upscaler"),
        (
            {"text_encoder": "gone", "_class_name": "StableDiffusionImageVariationPipeline"},
            "without text_encoder: give",
        ),
    ],
)
def test_another_kind_is_named(values, words, folder):
    change(folder / "model_index.json", **values)
    with pytest.raises(InputError, match=words):
        load_backend(folder)


@pytest.mark.parametrize(
    ("channels", "words"), [(9, "an inpainting model"), (8, "edits a picture"), (5, "given depth")]
)
def test_a_unet_that_sees_more_is_named(channels, words, folder):
    change(folder / "model_index.json", _class_name="StableDiffusionInpaintPipeline")
    change(folder / "unet" / "config.json", in_channels=channels)
    with pytest.raises(InputError, match=f"StableDiffusionInpaintPipeline, .*{words}"):
        load_backend(folder)


def test_a_latent_consistency_model_is_told_its_guidance(folder, stable_diffusion):
    """The published ones have an embedding of the guidance beside the timestep's."""
    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, torch.tensor([7.5]), 16)
    torch.testing.assert_close(guidance_embedding(16), theirs, atol=1e-3, rtol=0)
    path = folder / "unet" / "config.json"
    change(path, time_cond_proj_dim=16)
    unet = UNet2DConditionModel.from_config(json.loads(path.read_text()))
    unet.load_state_dict(stable_diffusion.unet.state_dict(), strict=False)
    unet.save_pretrained(folder / "unet")
    model, noise = load_backend(folder), torch.randn(1, 4, 16, 16)
    context, time = model.encode_prompts([""]), torch.tensor(5)
    with torch.no_grad():
        expected = unet.eval()(noise, time, context, timestep_cond=theirs).sample
        torch.testing.assert_close(model.denoise(noise, time, context), expected, atol=1e-3, rtol=1e-3)
        assert (stable_diffusion.denoise(noise, time, context) - expected).abs().max() > 1e-2


@pytest.fixture
def checkpoint(folder):
    save_file(one_file(folder), folder / "v1-5-pruned.safetensors")
    return folder / "v1-5-pruned.safetensors"


def test_a_checkpoint_of_one_file_is_its_folder(checkpoint, stable_diffusion):
    for part in ("unet", "vae", "text_encoder"):  # only the configuration is read of it
        for path in (checkpoint.parent / part).glob("*.safetensors"):
            path.unlink()
    loaded = load_backend(checkpoint)
    for part in ("unet", "vae", "text_encoder"):
        theirs = getattr(stable_diffusion.parts, part).state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in getattr(loaded.parts, part).state_dict().items())
    # But for rounding: weights of a folder lie elsewhere in memory.
    torch.testing.assert_close(maps(loaded), maps(stable_diffusion), atol=1e-5, rtol=0)
    assert loaded.fingerprint == stable_diffusion.fingerprint == model_fingerprint(checkpoint)
    half = load_backend(checkpoint, dtype="bfloat16")
    assert (half.dtype, half.fingerprint) == (torch.bfloat16, loaded.fingerprint)


def test_early_merges_name_the_text_encoder_otherwise(checkpoint, stable_diffusion):
    """As the web UIs of others rename them: cond_stage_model.transformer.embeddings… has no text_model."""
    early = {key.replace("transformer.text_model.", "transformer."): x for key, x in load_file(checkpoint).items()}
    checkpoint.unlink()
    save_file(early, checkpoint.with_suffix(".SAFETENSORS"))
    assert load_backend(checkpoint.with_suffix(".SAFETENSORS")).fingerprint == stable_diffusion.fingerprint


def drop(start):
    return lambda weights: {key: value for key, value in weights.items() if not key.startswith(start)}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (drop("first_stage_model."), "is no checkpoint of a whole Stable Diffusion: it lacks vae"),
        (drop("first_stage_model.decoder.conv_in"), "not of this model's vae: it lacks decoder.conv_in.bias"),
        (drop("cond_stage_model.transformer.text_model.final"), "text_encoder .* lacks final_layer_norm"),
        (drop("model.diffusion_model.out.2"), "not of this model's unet: it lacks conv_out.bias"),
        (lambda w: w | {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(16, 9, 3, 3)}, "kind inpainting;"),
        (lambda w: {"x": torch.zeros(1)}, "lacks unet, vae, text_encoder; weights of a UNet alone are for --unet"),
    ],
)
def test_other_checkpoints_are_named(spoil, words, checkpoint):
    save_file(spoil(load_file(checkpoint)), checkpoint)
    with pytest.raises(InputError, match=words):
        load_backend(checkpoint)


def test_a_checkpoint_alone_needs_a_configuration(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    alone = shutil.copy(checkpoint, tmp_path)
    with pytest.raises(
        InputError, match=r"neither a tokenizer nor sizes: put it into a model's folder .*OFFLINE is set"
    ):
        load_backend(alone)
    pickle = (tmp_path / "model.ckpt").with_suffix(".ckpt")
    pickle.write_bytes(b"x")
    with pytest.raises(InputError, match="is a pickle, and pickles are never opened: convert it to safetensors"):
        load_backend(pickle)


@pytest.mark.parametrize("left", ["model.diffusion_model.", "", "whole"])
def test_a_unet_of_its_own_may_have_the_original_names(left, folder, checkpoint, stable_diffusion, tmp_path):
    weights = load_file(checkpoint)
    if left != "whole":
        start = "model.diffusion_model."
        weights = {key.replace(start, left): value for key, value in weights.items() if key.startswith(start)}
    save_file(weights, tmp_path / "unet.safetensors")
    file = tmp_path / "unet.safetensors"
    assert fingerprint(folder, file) == stable_diffusion.fingerprint
    swapped = load_unet(folder / "unet", file, torch.float32).state_dict()
    assert all(torch.equal(swapped[name], value) for name, value in stable_diffusion.unet.state_dict().items())


@pytest.mark.parametrize("left", ["_orig_mod.", "module._orig_mod.", "unet.unet.", "unet.module."])
def test_what_training_leaves_before_names_is_left_out(left, folder, stable_diffusion, tmp_path):
    """Of torch.compile, of several GPUs, and of InstantMesh's training, which keeps the rest of its pipeline too."""
    weights = {left + key: x for key, x in stable_diffusion.unet.state_dict().items()}
    rest = {"pipeline.vae.bias": torch.zeros(1)} if left == "unet.unet." else {}
    save_file(weights | rest, tmp_path / "unet.safetensors")
    assert fingerprint(folder, tmp_path / "unet.safetensors") == stable_diffusion.fingerprint
    swapped = load_unet(folder / "unet", tmp_path / "unet.safetensors", torch.float32).state_dict()
    assert all(torch.equal(swapped[name], x) for name, x in stable_diffusion.unet.state_dict().items())


def test_a_lora_is_no_unet(folder, tmp_path):
    save_file({"lora_unet_mid.lora_down.weight": torch.zeros(4, 4)}, tmp_path / "lora.safetensors")
    with pytest.raises(InputError, match=r"lora\.safetensors holds 16 weights; .*config\.json describes has more than"):
        load_unet(folder / "unet", tmp_path / "lora.safetensors", torch.float32)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n", "pointer of Git LFS.*git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page, not the file itself: download it anew"),
    ],
)
@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.safetensors", "tokenizer/vocab.json", "checkpoint"])
def test_files_that_were_not_fetched_are_told(content, words, name, folder, checkpoint):
    file = checkpoint if name == "checkpoint" else folder / name
    file.write_bytes(content)
    with pytest.raises(InputError, match=words):
        load_backend(checkpoint if name == "checkpoint" else folder)


def test_weights_of_another_name_are_told(folder):
    """As ``save_pretrained(variant="fp32")`` writes them."""
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole.rename(whole.with_suffix(".fp32.safetensors"))
    with pytest.raises(InputError, match=r"lacks its weights.*; there are diffusion_pytorch_model\.fp32\.safetensors$"):
        load_backend(folder)


def test_a_folder_beside_the_model_is_told_where_it_is(checkpoint, tmp_path):
    model = checkpoint.parent
    (tmp_path / "models--a--b" / "snapshots").mkdir(parents=True)
    shutil.move(model, tmp_path / "models--a--b" / "snapshots" / "0123")
    model = tmp_path / "models--a--b" / "snapshots" / "0123"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tokens.safetensors").touch()
    (tmp_path / "single").mkdir()
    shutil.copy(model / checkpoint.name, tmp_path / "single")
    for given, words in (
        (model / "unet", f"it is the unet of the model {model}: give that"),
        (model.parent, f"give the model {model} that lies in it"),
        (model.parent.parent, f"give the model {model} that lies in it"),
        (tmp_path / "run", "it holds tokens, as a run does, and no model"),
        (tmp_path / "single", f"give a checkpoint as a file, such as {tmp_path / 'single' / checkpoint.name}"),
        (model / "model_index.json", "is a file; give the model's folder"),
        (model / "vae" / "config.json", "is a file; give the model's folder"),
    ):
        with pytest.raises(InputError, match=words):
            load_backend(given)
