"""Stable Diffusion: one view, the picture itself; StableKeypoints' maps and objective."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from PIL import Image

from helpers.models import save_stable_diffusion
from keyorbit.diffusion.attention import capture_attention
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.backends.stable_diffusion import first_up_layers
from keyorbit.diffusion.config import PrepareConfig, RecordConfig
from keyorbit.diffusion.maps import LayerMaps, upsampled_attention, view_maps
from keyorbit.diffusion.prepare import object_generator, prepare
from keyorbit.diffusion.recording import record, unet_maps
from keyorbit.errors import InputError
from keyorbit.geometry.views import Layout
from keyorbit.objects.dataset import ObjectViews
from oracles import attention as oracle
from oracles import stable_keypoints

UP = ("up_blocks.1.attentions.0", "up_blocks.1.attentions.1", "up_blocks.2.attentions.0", "up_blocks.2.attentions.1")


def picture(seed=0, size=(40, 48), mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture(scope="module")
def pictures():
    return [ObjectViews(f"picture{i}", picture(i)) for i in range(3)]


def test_both_models_are_backends(backend, stable_diffusion):
    assert isinstance(backend, Backend)
    assert isinstance(stable_diffusion, Backend)
    assert stable_diffusion.cameras is None
    assert stable_diffusion.layout == Layout(1, 1)


def test_the_vocabulary_of_a_published_folder_reads_as_saved(backend, stable_diffusion):
    prompts = ["a red chair with four legs", "zebra", ""]
    assert torch.equal(
        torch.tensor(stable_diffusion.parts.tokenizer(prompts, padding="max_length").input_ids),
        torch.tensor(backend.parts.tokenizer(prompts, padding="max_length").input_ids),
    )
    assert stable_diffusion.encode_prompts(prompts).shape == (3, 77, 16)


def test_pictures_are_cropped_to_the_middle_and_keep_their_range(stable_diffusion, generator):
    wide = Image.new("RGB", (96, 32), (255, 0, 0))
    wide.paste((0, 0, 255), (32, 0, 64, 32))
    views = stable_diffusion.generate([wide, Image.new("L", (9, 40), 51), Image.new("RGBA", (32, 32))], generator)
    assert views.shape == (3, 3, 32, 32)
    assert torch.equal(views[0, :, 5, 5], torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(views[1], torch.full_like(views[1], 0.2))
    torch.testing.assert_close(views[2], torch.full_like(views[2], 127 / 255))


def test_latents_are_the_vaes_mean_times_its_own_factor(stable_diffusion, generator):
    vae = stable_diffusion.parts.vae
    images = torch.rand(2, 3, 32, 32, generator=generator)
    with torch.no_grad():
        mean = vae.encode(images * 2 - 1).latent_dist.mean
        torch.testing.assert_close(stable_diffusion.encode_images(images), mean * vae.config.scaling_factor)
        expected = (vae.decode(mean).sample / 2 + 0.5).clamp(0, 1)
        torch.testing.assert_close(stable_diffusion.decode(mean * vae.config.scaling_factor), expected)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_right_prediction_gives_the_clean_latent_back(prediction, tmp_path, generator):
    save_stable_diffusion(tmp_path, prediction)
    loaded = load_backend(tmp_path)
    clean, noise = torch.randn(2, 1, 4, 8, 8, generator=generator)
    t = torch.tensor([400])
    noised = loaded.add_noise(clean, noise, t)
    right = noise if prediction == "epsilon" else loaded.parts.scheduler.get_velocity(clean, noise, t)
    torch.testing.assert_close(loaded.clean_latents(noised, right, 400), clean, atol=1e-5, rtol=1e-5)


def test_the_default_timestep_is_stable_keypoints_last_step(stable_diffusion, pictures, generator):
    theirs = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", set_alpha_to_one=False)
    theirs.set_timesteps(50)
    assert stable_diffusion.default_timestep == theirs.timesteps[-1]
    once = PrepareConfig().settled(stable_diffusion.default_timestep)
    prepared, views, cameras = prepare(pictures[0], stable_diffusion, once, generator)
    assert prepared.timestep == 0
    assert cameras is None
    with torch.no_grad():
        clean = stable_diffusion.encode_images(views)
    # ᾱ(0) = 1 - 0.00085: the noise has a standard deviation of 0.029.
    assert 0.02 < (prepared.latents - clean * (1 - 0.00085) ** 0.5).std() < 0.04


def test_an_objects_other_views_are_not_looked_at(stable_diffusion, generator):
    thing = ObjectViews("thing", picture(), torch.zeros(6, 3, 16, 16), torch.zeros(6, 16, 16, dtype=torch.bool))
    _, views, _ = prepare(thing, stable_diffusion, PrepareConfig().settled(0), generator)
    assert torch.equal(views, stable_diffusion.generate([picture()], generator))


def test_the_layers_are_stable_keypoints_choice(stable_diffusion):
    assert [name.removesuffix(".transformer_blocks.0.attn2") for name in stable_diffusion.default_layers] == list(UP)
    with torch.device("meta"):
        full = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280, 1280),
            cross_attention_dim=768,
            attention_head_dim=8,
        )
    names = first_up_layers(full, (64, 64))
    assert [name.split(".transformer")[0] for name in names] == [
        *(f"up_blocks.1.attentions.{i}" for i in range(3)),
        "up_blocks.2.attentions.0",
    ]
    # At 768 pixels the second block has 48 x 48 positions, too many: three layers are left.
    assert len(first_up_layers(full, (96, 96))) == 3
    with pytest.raises(InputError, match="5 positions"):
        first_up_layers(full, (64, 64), most_positions=5)


@pytest.mark.parametrize("latent", [(16, 16), (8, 12), (12, 8)])
@pytest.mark.parametrize("text", [0, 77])
def test_upsampled_attention_is_stable_keypoints_map(stable_diffusion, latent, text, generator):
    context = torch.randn(2, text + 6, 16, generator=generator)
    noise = torch.randn(2, 4, *latent, generator=generator)
    unet, size = stable_diffusion.unet, (20, 30)
    layers = first_up_layers(unet, latent)
    with torch.no_grad():
        seen, handles = oracle.watch(unet)
        # All rows as learnable tokens: joint without text is how StableKeypoints runs the UNet.
        with capture_attention(unet, layers, ("grid",), "joint", text_tokens=0) as record:
            stable_diffusion.denoise(noise, torch.tensor(0), context)
        for handle in handles:
            handle.remove()
        expected = stable_keypoints.attention_map(seen, context, latent, size)
    ours = upsampled_attention(record.token_logits(), Layout(1, 1), size, text)
    torch.testing.assert_close(ours[:, 0], expected[:, text:], atol=1e-5, rtol=0)
    averaged_after = view_maps(record.token_maps(), Layout(1, 1), size)[:, 0, text:]
    assert (averaged_after - expected[:, text:]).abs().max() > 1e-3


def test_views_do_not_bleed_into_each_other(generator):
    logits = torch.randn(1, 2, 4 * 6, 3, generator=generator)
    whole = upsampled_attention([LayerMaps("layer", logits, (4, 6))], Layout(1, 2), (8, 8))
    for view, columns in enumerate((slice(0, 3), slice(3, 6))):
        part = logits.reshape(1, 2, 4, 6, 3)[:, :, :, columns].reshape(1, 2, 12, 3)
        alone = upsampled_attention([LayerMaps("layer", part, (4, 3))], Layout(1, 1), (8, 8))
        torch.testing.assert_close(whole[:, view], alone[:, 0])


@pytest.mark.parametrize("kind", ["logits", "attention", "stablekeypoints"])
def test_the_cache_gives_the_unets_own_maps(stable_diffusion, pictures, kind, generator):
    config = RecordConfig(stable_diffusion.default_layers, kind, PrepareConfig(warps=1).settled(0))
    tokens = torch.randn(4, 16, generator=generator)
    cached = record(pictures[1], stable_diffusion, config, object_generator(0, 1)).maps(tokens)
    item, _, _ = prepare(pictures[1], stable_diffusion, config.prepare, object_generator(0, 1))
    with torch.no_grad():
        direct = unet_maps(stable_diffusion, [item], tokens, config.layers, "isolated", kind)
    if kind != "stablekeypoints":  # one way averages the heads here, the other later
        ours, theirs = (view_maps(maps, Layout(1, 1), (16, 16)) for maps in (cached, direct))
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
        return
    for ours, theirs in zip(cached, direct, strict=True):
        torch.testing.assert_close(ours.maps, theirs.maps, atol=1e-5, rtol=1e-4)


@pytest.fixture
def folder(stable_diffusion_folder, tmp_path):
    return shutil.copytree(stable_diffusion_folder, tmp_path / "model")


def test_weights_of_the_fp16_variant_load(folder, stable_diffusion):
    for path in list(folder.glob("*/*.safetensors")):
        path.rename(path.with_suffix(".fp16.safetensors"))
    loaded = load_backend(folder)
    for ours, theirs in zip(loaded.unet.parameters(), stable_diffusion.unet.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(loaded.encode_prompts([""]), stable_diffusion.encode_prompts([""]))


def foreign(folder):
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))


def no_unet(folder):
    shutil.rmtree(folder / "unet")


def only_pickle(folder):
    path = next((folder / "vae").glob("*.safetensors"))
    path.rename(path.with_suffix(".bin"))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (foreign, "FluxPipeline.*Zero123.*Stable Diffusion"),
        (no_unet, "lacks its unet"),
        (only_pickle, "pickle.*keyorbit convert"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named_in_one_line(folder, spoil, named):
    spoil(folder)
    with pytest.raises(InputError, match=named) as caught:
        load_backend(folder)
    assert "\n" not in str(caught.value)
