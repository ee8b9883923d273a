"""The tiny Zero123++: the published pipeline's classes and folder layout at less than a hundredth of the size."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from einops import rearrange
from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from keyorbit.devices import CPU
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.backends.zero123plus import Components, Zero123PlusBackend
from keyorbit.errors import InputError

# Words the tokenizer holds whole; any other text falls back to letters, so every prompt can be read.
_SENTENCE = """
    a an the with and of in on no middle plain striped checked two tone
    red orange yellow green cyan blue purple pink brown white black grey
    chair table lamp mug car aeroplane animal person object picture view
    arm arms back backpack base bed body bonnet boot bulb bumper bumpers cabin cap cockpit drawer ear ears engine
    engines eye eyes face feet fin foot front fuselage hair hand handle hands hat head headlight headlights horn
    horns joint joints knob label left leg legs lid light lights lower mane mirror mirrors muzzle neck nose panel
    panels plate pole propeller propellers rear right roof seat shade shelf shirt shoe shoes skirt sleeve sleeves
    spare spoiler struts switch tail tailplane top trousers trunk tusk tusks upper wheel wheels window windows
    windscreen wing wings
"""
WORDS = _SENTENCE.split()


@dataclass(frozen=True)
class TinyConfig:
    """Sizes of the tiny model. ``heads`` are the UNet's attention heads at each level.

    ``fine_attention``: whether the finest level attends on the way up. It makes a step of training half as long again,
    so training may begin without; on the way down the finest level never attends.
    """

    view_size: int = 64
    width: int = 512
    unet_channels: tuple[int, ...] = (48, 96, 144)
    heads: tuple[int, ...] = (1, 6, 9)
    fine_attention: bool = True
    unet_layers: int = 1
    vae_channels: tuple[int, ...] = (16, 48, 96)
    text_layers: int = 2
    vision_layers: int = 4
    vision_width: int = 192


def make_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-pair tokenizer at 77 tokens, with a vocabulary of letters and :data:`WORDS`."""
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = letters + [letter + "</w>" for letter in letters]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            if pair not in merges:
                merges.append(pair)
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
            if pieces[0] not in vocabulary:
                vocabulary.append(pieces[0])
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    ids = {piece: index for index, piece in enumerate(vocabulary)}
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=77)


def make_tiny(config: TinyConfig, seed: int = 0) -> Components:
    """The tiny model's components with random weights (the same for the same seed; the global state is kept)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build(config)


def _build(config: TinyConfig) -> Components:
    tokenizer = make_tokenizer()
    size = config.view_size
    levels = len(config.unet_channels)
    vae = AutoencoderKL(
        block_out_channels=config.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * len(config.vae_channels),
        up_block_types=("UpDecoderBlock2D",) * len(config.vae_channels),
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=size,
        mid_block_add_attention=False,  # trained on single views, used on the grid
    )
    # Start the posterior narrow: from the usual unit variance the first thousand steps only learn brightness.
    with torch.no_grad():
        vae.quant_conv.weight[vae.config.latent_channels :] = 0.0
        vae.quant_conv.bias[vae.config.latent_channels :] = -6.0
    unet = UNet2DConditionModel(
        sample_size=size * 3 // 2 ** (len(config.vae_channels) - 1),
        block_out_channels=config.unet_channels,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * (levels - 1)),
        up_block_types=(
            *["CrossAttnUpBlock2D"] * (levels - 1),
            "CrossAttnUpBlock2D" if config.fine_attention else "UpBlock2D",
        ),
        layers_per_block=config.unet_layers,
        cross_attention_dim=config.width,
        attention_head_dim=config.heads,
        use_linear_projection=True,
        norm_num_groups=16,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=2 * config.width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=max(4, config.width // 64),
            max_position_embeddings=77,
            projection_dim=config.width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    vision = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=config.vision_width,
            intermediate_size=2 * config.vision_width,
            num_hidden_layers=config.vision_layers,
            num_attention_heads=4,
            image_size=size,
            patch_size=8,
            projection_dim=config.width,
        )
    )
    sides = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    return Components(
        vae=vae,
        unet=unet,
        text_encoder=text,
        tokenizer=tokenizer,
        vision_encoder=vision,
        feature_extractor_clip=CLIPImageProcessorPil(**sides),
        feature_extractor_vae=CLIPImageProcessorPil(**sides, image_mean=[0.5] * 3, image_std=[0.8] * 3),
        scheduler=EulerAncestralDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="linear",
            prediction_type="v_prediction",
            timestep_spacing="trailing",
            steps_offset=1,
        ),
        ramping_coefficients=tuple(i / 76 for i in range(77)),
    )


def load_zero123plus(folder: Path, device: str = CPU) -> Zero123PlusBackend:
    """A model folder in full precision, to go on from, to learn from or to judge.

    Raises:
        InputError: the folder is not a whole Zero123++ model.
    """
    backend = load_backend(folder, device, "float32")
    if not isinstance(backend, Zero123PlusBackend):
        raise InputError(f"{folder} is not a Zero123++ model, as a tiny one is")
    return backend


def init_from(parts: Components, folder: Path, seed: int = 0) -> None:
    """Start from a model folder: weights of the same name and shape, the scale of latents, and words' embeddings.

    A context that is k times wider is filled with k copies of the narrow one: every output stays what it was
    (Chen et al. 2016, Net2Net), while tokens that need not be copies have k times as many dimensions to choose from.

    Raises:
        InputError: the folder is not a whole Zero123++ model.
    """
    source, generator = load_zero123plus(folder).parts, torch.Generator().manual_seed(seed)
    for name in ("vae", "unet", "text_encoder", "vision_encoder"):
        own, other = getattr(parts, name).state_dict(), getattr(source, name).state_dict()
        for key, value in other.items():
            # The context widens, so the UNet's inputs may; its own channels do not.
            inner = name in ("vae", "unet") and key in own and own[key].shape[0] != value.shape[0]
            if "token_embedding" not in key and key in own and not inner:
                widened = _widen(value, own[key].shape, generator, rows="embedding" in key)
                if widened is not None:
                    own[key].copy_(widened)
        if name == "unet":
            # An attention block that the source lacks begins as nothing: the outputs stay what they were.
            for key in own.keys() - other.keys():
                if ".proj_out." in key:
                    own[key].zero_()
    parts.vae.register_to_config(scaling_factor=source.vae.config.scaling_factor)
    ours, theirs = parts.tokenizer.get_vocab(), source.tokenizer.get_vocab()
    shared = [word for word in ours if word in theirs]
    rows = parts.text_encoder.get_input_embeddings().weight.data
    known = source.text_encoder.get_input_embeddings().weight.data[[theirs[word] for word in shared]]
    widened = _widen(known, torch.Size((len(shared), rows.shape[1])), generator, rows=True)
    if widened is not None:
        rows[[ours[word] for word in shared]] = widened


def _widen(value: Tensor, shape: torch.Size, generator: torch.Generator, rows: bool) -> Tensor | None:
    """The weight whose inputs and outputs are whole copies of the narrow ones'; None where shapes forbid it.

    rows: a table of vectors, whose second axis is an output. Copies of an input share the weight unevenly, or they
    would have the same gradient for ever.
    """
    if value.ndim != len(shape) or any(new % old for new, old in zip(shape, value.shape, strict=True)):
        return None
    copies = [new // old for new, old in zip(shape, value.shape, strict=True)]
    if max(copies) == 1:
        return value
    if value.ndim == 1 or rows:
        return value.repeat(copies) if copies[0] == 1 or value.ndim == 1 else None
    if value.ndim != 2:
        return None
    value = value.repeat(copies[0], 1)
    noise = torch.randn((copies[1], *value.shape), generator=generator) * value.std()
    return rearrange(value + noise - noise.mean(0), "k o i -> o (k i)") / copies[1]


def save_folder(parts: Components, folder: Path, view_size: int) -> None:
    """Write the components in the layout of ``sudo-ai/zero123plus-v1.2``; model weights as fp16 safetensors."""
    index: dict[str, object] = {"_class_name": "Zero123PlusPipeline", "version": "v1.2"}
    for name in Components.__dataclass_fields__:
        part = getattr(parts, name)
        if name == "ramping_coefficients":
            index[name] = list(part)
            continue
        library = "diffusers" if name in ("vae", "unet", "scheduler") else "transformers"
        index[name] = [library, type(part).__name__]
        if isinstance(part, torch.nn.Module):
            copy.deepcopy(part).half().save_pretrained(folder / name)  # type: ignore[operator]
        else:
            part.save_pretrained(folder / name)
    index["view_size"] = view_size
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
