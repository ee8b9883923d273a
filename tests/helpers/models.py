"""Small models with random weights, in the published folders' layouts."""

import json

import torch
from diffusers import ControlNetModel, PNDMScheduler, UNet2DConditionModel

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
