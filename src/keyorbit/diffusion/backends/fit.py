"""Whether a model's parts fit each other: told when it is loaded, not by what it is used for later."""

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from keyorbit.diffusion.backends.configurations import UNetConfig, read_config
from keyorbit.diffusion.backends.stable_diffusion import StableDiffusionComponents
from keyorbit.diffusion.backends.zero123plus import Components
from keyorbit.errors import InputError, first_line, memory_shortage
from keyorbit.geometry.views import Layout

Parts = Components | StableDiffusionComponents

_NEEDED = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
# Other kinds of models, by a part that they have and Stable Diffusion has not.
_OTHER_KINDS = {
    "transformer": "a diffusion transformer, as Stable Diffusion 3 and Flux are",
    "motion_adapter": "an AnimateDiff of several frames",
    "text_encoder_2": "a Stable Diffusion XL, which has two text encoders",
    "low_res_scheduler": "an upscaler",
    "depth_estimator": "a model that is given depth",
    "image_normalizer": "a model that is given an embedding of a picture",
}
# And by what their UNet takes besides the noised latent.
_OTHER_INPUTS = {
    5: "a model that is given depth",
    7: "an upscaler",
    8: "one that edits a picture",
    9: "an inpainting model",
}


def check_kind(index: dict[str, Any], folder: Path) -> None:
    """Raise InputError where ``model_index.json`` does not describe a Stable Diffusion, whatever it is used for.

    Pipelines of its kind differ in what they do with the same parts.
    """
    found = index.get("_class_name")
    name = found[-1] if isinstance(found, list) and found else found  # [module, class] of a repository's own pipeline
    there = {part for part, kind in index.items() if isinstance(kind, list) and all(isinstance(k, str) for k in kind)}
    what = next((kind for part, kind in _OTHER_KINDS.items() if part in there), None)
    if what is None and not there.issuperset(_NEEDED) and name != "StableDiffusionPipeline":
        what = f"without {', '.join(part for part in _NEEDED if part not in there)}"
    config = folder / "unet" / "config.json"
    if what is None and config.is_file():
        what = _OTHER_INPUTS.get(read_config(config, UNetConfig).in_channels)
    if what is not None:
        raise InputError(
            f"{folder / 'model_index.json'} describes a {name}, {what}: give a Zero123++ model (it has "
            "ramping_coefficients) or a Stable Diffusion one (a StableDiffusionPipeline of version 1 or 2)"
        )


def check_fit(parts: Parts, folder: Path) -> None:
    """Raise InputError, naming the first part of a model that does not fit the others."""
    width, rows = parts.text_encoder.config.hidden_size, parts.tokenizer.model_max_length
    channels = parts.vae.config.latent_channels
    pairs = [
        ("unet takes a context of width", parts.unet.config.cross_attention_dim, width, "text_encoder's"),
        ("unet takes latents of channels", parts.unet.config.in_channels, channels, "vae's"),
        ("unet makes latents of channels", parts.unet.config.out_channels, channels, "vae's"),
    ]
    if isinstance(parts, Components):
        vision, ramp = parts.vision_encoder.config, len(parts.ramping_coefficients)
        pairs += [
            ("vision_encoder makes embeddings of width", vision.projection_dim, width, "text_encoder's"),
            ("model_index.json holds ramping_coefficients of number", ramp, rows, "tokenizer's"),
            # Which a latent consistency model has, and would have to be told.
            ("unet takes a guidance of width", parts.unet.config.time_cond_proj_dim, None, "published one's"),
        ]
    pairs.append(("text_encoder reads rows", parts.text_encoder.config.max_position_embeddings, rows, "tokenizer's"))
    for what, found, wanted, whose in pairs:
        if found != wanted:
            raise InputError(f"the parts in {folder} do not fit: its {what} {found}, not the {whose} {wanted}")


# Files either of which hold a tokenizer's words: without them it has a few of its own, and knows no others.
_WORDS = (("tokenizer.json",), ("vocab.json", "merges.txt"))


def check_words(parts: Parts, folder: Path) -> None:
    """Raise InputError where the tokenizer does not make an empty prompt into rows that the text encoder has."""
    tokenizer, known, place = parts.tokenizer, parts.text_encoder.config.vocab_size, folder / "tokenizer"
    if not any(all((place / name).is_file() for name in names) for names in _WORDS):
        raise InputError(f"{place} lacks its words: it needs tokenizer.json, or vocab.json and merges.txt")
    try:
        ids = tokenizer([""], padding="max_length", truncation=True, return_tensors="pt").input_ids
    except Exception as error:
        raise InputError(f"the tokenizer in {folder / 'tokenizer'} cannot be used: {first_line(error)}") from error
    if not (ids.shape == (1, tokenizer.model_max_length) and len(tokenizer) <= known and int(ids.max()) < known):
        raise InputError(
            f"the parts in {folder} do not fit: its tokenizer knows {len(tokenizer)} words, the text_encoder {known}"
        )


def check_pictures(parts: Components, folder: Path) -> None:
    """Raise InputError where a picture is not made into an input that is finite, and of the size that is wanted."""
    for name in ("feature_extractor_clip", "feature_extractor_vae"):
        extractor = getattr(parts, name)
        try:
            made = extractor(images=[Image.new("RGB", (6, 4))], return_tensors="pt").pixel_values
            size = extractor.crop_size["height"], extractor.crop_size["width"]
        except Exception as error:
            if memory_shortage(error):
                raise
            raise InputError(f"the {name} in {folder / name} cannot be used: {first_line(error)}") from error
        if made.shape != (1, 3, *size) or not made.isfinite().all():
            raise InputError(
                f"the {name} in {folder / name} makes a picture into numbers of shape {list(made.shape)}, which must "
                f"be finite and of shape {[1, 3, *size]}"
            )
        side = parts.vision_encoder.config.image_size
        if name == "feature_extractor_clip" and size != (side, side):
            raise InputError(
                f"the parts in {folder} do not fit: its {name} makes pictures of {size[0]} x {size[1]} pixels, the "
                f"vision_encoder reads {side} x {side}"
            )


def check_schedule(scheduler: Any, folder: Path) -> None:
    """Raise InputError where the share of the picture is not above 0 at every timestep before the last."""
    shares = scheduler.alphas_cumprod
    if not (shares.isfinite().all() and (shares[:-1] > 0).all() and (shares <= 1).all()):
        raise InputError(
            f"{folder / 'scheduler' / 'scheduler_config.json'} describes a schedule in which nothing is left of the "
            "picture: its betas (beta_start, beta_end, trained_betas) are too large"
        )


def check_unet_runs(parts: Parts, view_size: int, layout: Layout, folder: Path) -> None:
    """Raise InputError where the UNet cannot run on the latent of all views; nothing is computed.

    Args:
        view_size: side of a view, pixels.
        layout: how views are tiled.
    """
    factor = 2 ** (len(parts.vae.config.block_out_channels) - 1)
    if view_size % factor:
        raise InputError(
            f"{folder} has views of {view_size} pixels, and a vae that needs a multiple of {factor}: its view_size (or "
            "the unet's sample_size) is wrong"
        )
    size = layout.rows * view_size // factor, layout.cols * view_size // factor
    try:
        with torch.device("meta"), torch.no_grad():
            unet = UNet2DConditionModel.from_config(parts.unet.config)
            context = torch.empty(1, parts.tokenizer.model_max_length, parts.text_encoder.config.hidden_size)
            made = unet(torch.empty(1, unet.config.in_channels, *size), torch.tensor(0), context).sample
    except Exception as error:
        raise InputError(f"the unet in {folder / 'unet'} cannot be used: {first_line(error)}") from error
    if made.shape[-2:] != size:
        raise InputError(f"the unet in {folder / 'unet'} makes {size[0]} x {size[1]} latents into {list(made.shape)}")
