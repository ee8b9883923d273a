"""Small models with random weights, in the published folders' layouts."""

import json
import re

import torch
from diffusers import ControlNetModel, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import load_file

from tiny_model.model import TinyConfig, make_tiny

SMALL = TinyConfig(
    view_size=16,
    width=16,
    unet_channels=(16, 32),
    heads=(2, 4),
    fine_attention=True,
    vae_channels=(8, 8),
    text_layers=1,
    vision_layers=1,
    vision_width=16,
)


def save_controlnet(model, folder):
    """A ControlNet for the Zero123++ in the folder ``model`` that has something to say: fresh ones end in zeros."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet")
        controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16))
        for name, weight in controlnet.named_parameters():
            if "controlnet" in name:
                torch.nn.init.normal_(weight, std=0.3)
    controlnet.save_pretrained(folder)
    return folder


def save_stable_diffusion(folder, prediction="epsilon", sample_size=16):
    """A folder as Stable Diffusion 1.5 has it, with random weights: 32-pixel pictures, latents of 16 x 16."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        unet = UNet2DConditionModel(
            sample_size=sample_size,
            block_out_channels=(16, 32, 32),
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=SMALL.width,
            attention_head_dim=2,
            norm_num_groups=8,
        )
    parts = make_tiny(SMALL, seed=1)
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
        prediction_type=prediction,
    )
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.6.0"}
    for name, part in {
        "vae": parts.vae,
        "unet": unet,
        "text_encoder": parts.text_encoder,
        "tokenizer": parts.tokenizer,
        "scheduler": scheduler,
    }.items():
        part.save_pretrained(folder / name)
        library = "transformers" if name in ("text_encoder", "tokenizer") else "diffusers"
        index[name] = [library, type(part).__name__]
    # The published folders have the tokenizer as vocabulary and merges, and two parts that are not used here.
    whole = folder / "tokenizer" / "tokenizer.json"
    model = json.loads(whole.read_text())["model"]
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(model["vocab"]))
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]) + "\n")
    whole.unlink()
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPFeatureExtractor"]
    (folder / "model_index.json").write_text(json.dumps(index))


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_NAMES = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0.group_norm": "mid.attn_1.norm",
    "mid_block.attentions.0.to_q": "mid.attn_1.q",
    "mid_block.attentions.0.to_k": "mid.attn_1.k",
    "mid_block.attentions.0.to_v": "mid.attn_1.v",
    "mid_block.attentions.0.to_out.0": "mid.attn_1.proj_out",
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
}


def one_file(folder):
    """The weights of a Stable Diffusion folder, by their names in the original checkpoints of one file."""
    unet, vae, text = (
        load_file(next((folder / part).glob("*.safetensors"))) for part in ("unet", "vae", "text_encoder")
    )
    layers = json.loads((folder / "unet" / "config.json").read_text())["layers_per_block"]
    blocks = len(json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"])
    names = {f"model.diffusion_model.{_unet_name(key, layers)}": value for key, value in unet.items()}
    for key, value in vae.items():  # its attention was made of convolutions
        conv = value[:, :, None, None] if "attentions" in key and value.ndim == 2 else value
        names[f"first_stage_model.{_vae_name(key, blocks)}"] = conv
    for key, value in text.items():
        names[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = value
    return {key: value.contiguous() for key, value in names.items()}


def _unet_name(key, layers):
    for ours, theirs in _UNET_ENDS.items():
        if key.startswith(f"{ours}."):
            return key.replace(ours, theirs)
    if found := re.fullmatch(r"down_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.*)", key):
        at = 1 + int(found[1]) * (layers + 1) + int(found[3])
        return f"input_blocks.{at}.{int(found[2] == 'attentions')}.{_inner(found[4], found[2])}"
    if found := re.fullmatch(r"down_blocks\.(\d)\.downsamplers\.0\.conv\.(.*)", key):
        return f"input_blocks.{(int(found[1]) + 1) * (layers + 1)}.0.op.{found[2]}"
    if found := re.fullmatch(r"up_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.*)", key):
        at = int(found[1]) * (layers + 1) + int(found[3])
        return f"output_blocks.{at}.{int(found[2] == 'attentions')}.{_inner(found[4], found[2])}"
    if found := re.fullmatch(r"up_blocks\.(\d)\.upsamplers\.0\.conv\.(.*)", key):
        at, place = int(found[1]) * (layers + 1) + layers, 1 if found[1] == "0" else 2  # behind the attention
        return f"output_blocks.{at}.{place}.conv.{found[2]}"
    found = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", key)
    at = 1 if found[1] == "attentions" else 2 * int(found[2])
    return f"middle_block.{at}.{_inner(found[3], found[1])}"


def _inner(rest, kind):
    name, _, end = rest.rpartition(".")
    return f"{_RESNET[name]}.{end}" if kind == "resnets" else rest


def _vae_name(key, blocks):
    key = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{blocks - 1 - int(m[1])}.block.", key)
    key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{blocks - 1 - int(m[1])}.upsample", key)
    for ours, theirs in _VAE_NAMES.items():
        key = key.replace(ours, theirs)
    return key
