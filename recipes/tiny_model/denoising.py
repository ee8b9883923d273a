"""The UNet's stage of the tiny model's recipe: it learns to denoise six views at once, and where words are true."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from einops import rearrange
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from keyorbit.diffusion.attention import AttentionRecord, capture_attention
from keyorbit.diffusion.backends.text import KnownTexts, encode_phrases, encode_prompts
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.maps import view_maps
from keyorbit.geometry.views import Layout
from keyorbit.training.optimise import Draw, OptimiseConfig, Stage, Watch, learning, optimise
from keyorbit.training.step import alphas, velocity
from tiny_model.grounding import Places, draw_phrases, grounding_loss
from tiny_model.training_data import Encoded, draw_items, seen_by_vision
from tiny_model.vision import VisionTask

_CLEAR, _COARSE = 300, 600  # timesteps below the first show small parts; those from the second on only the whole
_INPUT_SHARE = 0.15  # of the grounding loss's weight for the input picture: its one view has thrice the grid's noise


@dataclass(frozen=True)
class DenoisingConfig:
    """What the UNet and both encoders are shown, ``batch`` grids a step.

    ``coarse``: the share of steps at timesteps of 600 and more, where a sample's composition is decided. Their items
    have the picture alone, as in use, or, ``dropped``, nothing. In the other steps ``clear`` of the items are at
    timesteps below 300, where points are looked for, the rest anywhere below 600. Of these items ``dropped`` have no
    condition at all, ``text_only`` a caption and no picture, ``told`` both; the rest have the picture alone. Without
    its picture the model has to find "the front left leg" by words, and that is what the tokens live on.
    ``grounding``: the weight of the loss that ties the tokens of ``phrases`` phrases an item to the places that they
    name, see :mod:`tiny_model.grounding`; coarse steps have none, as nothing can be found there.
    """

    batch: int = 6
    coarse: float = 0.5
    clear: float = 0.5
    dropped: float = 0.1
    text_only: float = 0.2
    told: float = 0.3
    grounding: float = 0.2
    phrases: int = 8
    optimise: OptimiseConfig = field(default_factory=lambda: OptimiseConfig(20000, 5e-4))


def train_denoising(
    config: DenoisingConfig,
    categories: tuple[str, ...],
    seed: int,
    data: Encoded,
    places: Places,
    vision: VisionTask | None,
    backend: Zero123PlusBackend,
    out: Path,
    accelerator: Accelerator,
    until: float,
    watch: Watch,
) -> bool:
    """v-prediction on the whole grid, with and without the picture, with and without a caption; and grounding.

    Args:
        categories: as they are drawn, see :func:`~tiny_model.training_data.draw_items`.
        data: on the backend's device, as ``places``.
        vision: what the vision encoder goes on learning beside; without it, it learns from the UNet alone.
        watch: as in :func:`~keyorbit.training.optimise.optimise`; the models are in evaluation mode then.

    Returns:
        Whether all steps are done.
    """
    parts, device = backend.parts, backend.device
    modules = {name: getattr(parts, name) for name in ("unet", "text_encoder", "vision_encoder")}
    plan = config.optimise
    if vision is not None:
        modules["readout"] = vision.readout
        # It has learned before, at twice this rate and with a cool-down.
        plan = replace(plan, rates=dict.fromkeys(("vision_encoder", "readout"), plan.rate / 2))
    tokenizer = KnownTexts(parts.tokenizer)
    blank = backend.empty_condition(1).latent.detach()
    count = config.batch
    shares = {
        False: torch.tensor([config.dropped, config.text_only, config.told]).cumsum(0),
        True: torch.tensor([config.dropped, 0.0, 0.0]).cumsum(0),
    }

    def loss_of(draw: Draw) -> dict[str, Tensor]:
        terms = denoising_of(draw)
        if vision is not None:
            seen = vision.loss_of(replace(draw, seed=draw.seed + 1))  # other items than the UNet has
            terms = {**terms, "loss": terms["loss"] + seen["loss"], "kind": seen["kind"], "heading": seen["heading"]}
        return terms

    def denoising_of(draw: Draw) -> dict[str, Tensor]:
        generator = draw.generator()
        picked = draw_items(categories, len(data.grids), count, generator)
        ground = torch.randint(2, (count,), generator=generator)
        coarse = bool(torch.rand((), generator=generator) < config.coarse)
        kind = torch.bucketize(torch.rand(count, generator=generator), shares[coarse])
        pictured, told = (kind >= 2).to(device), (kind == 1) | (kind == 2)
        prompts = _prompts(data, picked, told, generator)
        text = _each_once(partial(encode_prompts, tokenizer, parts.text_encoder), prompts)  # half of them are empty
        embedding = parts.vision_encoder(seen_by_vision(data.inputs[picked, ground], backend)).image_embeds
        context = backend.add_image_embedding(text, embedding * pictured[:, None])
        latent = data.conditions[picked, ground].float()
        condition = torch.where(pictured[:, None, None, None], latent, blank)
        clean = data.grids[picked].float()
        # Of the size of pictures: drawn where they are.
        noises = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
        noise = torch.randn(clean.shape, generator=noises, device=device)
        condition_noise = torch.randn(condition.shape, generator=noises, device=device)
        timestep = timesteps(config, coarse, count, generator).to(device)
        noised = backend.add_noise(clean, noise, timestep)
        target = velocity(clean, noise, alphas(parts.scheduler, timestep))
        if coarse:
            predicted = backend.denoise(noised, timestep, context, condition, condition_noise)
            whole = F.mse_loss(predicted.float(), target)
            return {"loss": whole, "coarse denoising": whole}
        phrases = draw_phrases(places, picked, config.phrases, generator)
        truth = phrases.truth(places.part[picked], places.position[picked])
        said = [words for of_item in phrases.words for words in of_item]
        tokens = _each_once(partial(encode_phrases, tokenizer, parts.text_encoder), said)
        context = torch.cat([context, rearrange(tokens, "(i p) c -> i p c", i=count)], dim=1)
        with capture_attention(backend.unet, heads="mean", normalizer=False) as record:
            predicted = backend.denoise(noised, timestep, context, condition, condition_noise)
        denoising = F.mse_loss(predicted.float(), target)
        on_grid, on_input = _grounding(record, truth, backend)
        signal = alphas(parts.scheduler, timestep).flatten().sqrt()  # in noise nothing can be found
        pictured_signal = signal * pictured
        grounding = (on_grid * signal).sum() / signal.sum()
        on_input = (on_input * pictured_signal).sum() / pictured_signal.sum().clamp_min(1e-6)
        loss = denoising + config.grounding * (grounding + _INPUT_SHARE * on_input)
        return {"loss": loss, "denoising": denoising, "grounding": grounding, "input grounding": on_input}

    def look(step: int) -> None:
        for module in modules.values():
            module.eval()
        watch(step)
        for module in modules.values():
            module.train()

    with learning(modules):
        return optimise(Stage("unet", out, seed, until=until), modules, loss_of, plan, accelerator, look)


def _each_once(encode: Callable[[list[str]], Tensor], texts: list[str]) -> Tensor:
    """``encode(texts)``, of which many are the same."""
    number = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return encode(list(number))[[number[text] for text in texts]]


def _grounding(record: AttentionRecord, truth: Tensor, backend: Zero123PlusBackend) -> tuple[Tensor, Tensor]:
    """The grounding loss of each item in the six views, and in the input picture."""
    side = truth.shape[-1] // 2
    in_views = view_maps(record.token_logits("grid"), backend.layout, (side, side))
    in_input = view_maps(record.token_logits("condition"), Layout(1, 1), (side, side))
    return grounding_loss(in_views, truth[:, :, 1:]), grounding_loss(in_input, truth[:, :, :1])


def timesteps(config: DenoisingConfig, coarse: bool, count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
    """Those of the items of a step that is coarse or not, see :class:`DenoisingConfig`."""
    if coarse:
        return torch.randint(_COARSE, 1000, (count,), generator=generator)
    highest = torch.where(torch.rand(count, generator=generator) < config.clear, _CLEAR, _COARSE)
    return (torch.rand(count, generator=generator) * highest).long()


def _prompts(data: Encoded, picked: Tensor, told: Tensor, generator: torch.Generator) -> list[str]:
    """A caption of any detail, the richest half of the time, for items that are told; nothing for the others."""
    prompts = []
    for i, tell in zip(picked.tolist(), told.tolist(), strict=True):
        choices = data.captions[i]
        draw = int(torch.randint(2 * len(choices), (1,), generator=generator))
        prompts.append(choices[min(draw, len(choices) - 1)] if tell else "")
    return prompts
