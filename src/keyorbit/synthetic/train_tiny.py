"""Train the tiny Zero123++ from nothing: ``python -m keyorbit.synthetic.train_tiny --out runs/tiny``.

Three stages, each resumed where it stopped: render the objects, train the VAE, train the UNet with the text and vision
encoders. Every random number of step n comes from a generator seeded with n, so a resumed run is the same run.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from keyorbit.backends.zero123plus import Zero123PlusBackend
from keyorbit.cameras import zero123plus_cameras
from keyorbit.checkpoint import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from keyorbit.synthetic.render import composite
from keyorbit.synthetic.samples import SampleSpec, make_samples
from keyorbit.synthetic.tiny_model import TinyConfig, make_tiny, save_folder
from keyorbit.views import Layout, merge_views

log = logging.getLogger(__name__)
GREY, WHITE = 127 / 255, 1.0


@dataclass(frozen=True)
class TrainTinyConfig:
    """The recipe. ``caption`` and ``dropped`` are the shares of steps with a caption, and without any condition."""

    category: str = "chair"
    objects: int = 6000
    seed: int = 0
    vae_steps: int = 1400
    vae_batch: int = 16
    unet_steps: int = 6000
    unet_batch: int = 6
    vae_rate: float = 2e-3
    unet_rate: float = 5e-4
    warmup: int = 200
    caption: float = 0.5
    dropped: float = 0.1
    ema: float = 0.998
    save_every: int = 250
    log_every: int = 25
    workers: int = 2


@dataclass(frozen=True)
class Rendered:
    """The rendered training set: input pictures with alpha, six views on grey, captions."""

    inputs: UInt8[Tensor, "item size size 4"]
    views: UInt8[Tensor, "item view size size 3"]
    captions: list[str]


def render_stage(config: TrainTinyConfig, out: Path) -> Rendered:
    """The training objects, rendered once and kept in ``out/data.safetensors``."""
    path = out / "data.safetensors"
    if not path.exists():
        specs = [SampleSpec(config.category, training_seed(config.seed, i)) for i in range(config.objects)]
        inputs, views, captions = [], [], []
        for count, sample in enumerate(make_samples(specs, config.workers), 1):
            inputs.append(torch.from_numpy(sample.input_image))
            views.append(torch.from_numpy(composite(sample.views, GREY)))
            captions.append(sample.caption)
            if count % 500 == 0:
                log.info("rendered %d of %d objects", count, config.objects)
        tensors = {"inputs": torch.stack(inputs), "views": torch.stack(views)}
        save_checkpoint(path, tensors, {"captions": captions, "config": asdict(config)})
    tensors, metadata = load_checkpoint(path)
    return Rendered(tensors["inputs"], tensors["views"], metadata["captions"])


def training_seed(seed: int, index: int) -> int:
    """Objects that train the model have seeds from 10⁹ on; ``keyorbit dataset make`` never reaches them."""
    return 10**9 + seed * 10**6 + index


def vae_stage(config: TrainTinyConfig, data: Rendered, backend: Zero123PlusBackend, out: Path) -> None:
    """Single views in, the same views out: squares and L1 on pixels, L1 on their gradients, and a little KL."""
    vae = backend.parts.vae.requires_grad_(True).train()
    inputs = torch.from_numpy(composite(data.inputs.numpy(), WHITE))
    pictures = torch.cat([data.views.flatten(0, 1), inputs])

    def loss_of(generator: torch.Generator) -> dict[str, Tensor]:
        picked = torch.randint(len(pictures), (config.vae_batch,), generator=generator)
        images = pictures[picked].permute(0, 3, 1, 2).float() / 127.5 - 1
        images = images * (0.5 / 0.8)  # the range in which the pipeline shows both inputs and grids to the VAE
        distribution = vae.encode(images).latent_dist
        noise = torch.randn(distribution.mean.shape, generator=generator)
        restored = vae.decode(distribution.mean + distribution.std * noise).sample
        edges = sum(F.l1_loss(restored.diff(dim=d), images.diff(dim=d)) for d in (2, 3))
        kl = distribution.kl().mean() / images[0].numel()
        # Squares first of all: with L1 alone the colours of small parts come last.
        squares = F.mse_loss(restored, images)
        return {"loss": 5 * squares + F.l1_loss(restored, images) + edges + 1e-3 * kl, "mse": squares, "kl": kl}

    _run_stage("vae", {"vae": vae}, loss_of, config.vae_steps, config.vae_rate, config, out)
    vae.requires_grad_(False).eval()
    with torch.no_grad():
        sample = pictures[:: max(1, len(pictures) // 512)].permute(0, 3, 1, 2).float() / 127.5 - 1
        latents = vae.encode(sample * (0.5 / 0.8)).latent_dist.mean
    # Zero123++ multiplies scaled latents by 0.75; choose the factor that makes the UNet's input have spread 1.
    vae.register_to_config(scaling_factor=1 / (0.75 * float(latents.std())))


@dataclass(frozen=True)
class Encoded:
    """What the UNet trains on, kept in memory: grid latents and condition latents on white and grey."""

    grids: Float[Tensor, "item channel height width"]
    conditions: Float[Tensor, "item background channel condition_height condition_width"]
    pixels: Float[Tensor, "item background 3 size size"]


@torch.no_grad()
def encode_data(data: Rendered, backend: Zero123PlusBackend, batch: int = 50) -> Encoded:
    """The rendered set through the VAE; condition pixels as the vision encoder wants them."""
    grids, conditions, pixels = [], [], []
    extractor = backend.parts.feature_extractor_clip
    mean, std = torch.tensor(extractor.image_mean), torch.tensor(extractor.image_std)
    for start in range(0, len(data.inputs), batch):
        views = data.views[start : start + batch].permute(0, 1, 4, 2, 3).float() / 255
        grid = merge_views(views.transpose(1, 2), backend.layout)
        grids.append(backend.encode_images(grid))
        rgba = data.inputs[start : start + batch].numpy()
        both = np.stack([composite(rgba, WHITE), composite(rgba, GREY)], 1)
        images = torch.from_numpy(both).float().div(255)
        flat = images.flatten(0, 1).permute(0, 3, 1, 2)
        latent = backend.parts.vae.encode((flat - 0.5) / 0.8).latent_dist.mean
        conditions.append(latent.unflatten(0, (-1, 2)))
        pixels.append(((images - mean) / std).permute(0, 1, 4, 2, 3).half())
    return Encoded(torch.cat(grids), torch.cat(conditions), torch.cat(pixels))


def encode_stage(data: Rendered, backend: Zero123PlusBackend, out: Path) -> Encoded:
    """:func:`encode_data`, kept in ``out/encoded.safetensors``: it takes minutes."""
    path = out / "encoded.safetensors"
    if not path.exists():
        log.info("encoding %d objects", len(data.inputs))
        fresh = encode_data(data, backend)
        save_checkpoint(path, vars(fresh), {})
    tensors, _ = load_checkpoint(path)
    return Encoded(**tensors)


def unet_stage(
    config: TrainTinyConfig, data: Encoded, captions: list[str], backend: Zero123PlusBackend, out: Path
) -> None:
    """v-prediction on the grid with captions half of the time, and no condition at all now and then."""
    parts = backend.parts
    modules = {
        "unet": parts.unet.requires_grad_(True).train(),
        "text_encoder": parts.text_encoder.requires_grad_(True).train(),
        "vision_encoder": parts.vision_encoder.requires_grad_(True).train(),
    }
    blank = backend.empty_condition(1).latent.detach()

    def loss_of(generator: torch.Generator) -> dict[str, Tensor]:
        def uniform() -> Tensor:
            return torch.rand(config.unet_batch, generator=generator)

        picked = torch.randint(len(data.grids), (config.unet_batch,), generator=generator)
        ground = (uniform() < 0.5).long()
        kept = uniform() >= config.dropped
        told = (uniform() < config.caption) & kept
        timestep = torch.randint(1000, (config.unet_batch,), generator=generator)
        text = backend.encode_prompts(
            [captions[i] if t else "" for i, t in zip(picked.tolist(), told.tolist(), strict=True)]
        )
        embedding = parts.vision_encoder(data.pixels[picked, ground].float()).image_embeds
        context = backend.add_image_embedding(text, embedding * kept[:, None])
        condition = torch.where(kept[:, None, None, None], data.conditions[picked, ground], blank)
        clean = data.grids[picked]
        noise = torch.randn(clean.shape, generator=generator)
        noised = backend.add_noise(clean, noise, timestep)
        # v = sqrt(ᾱ) ε - sqrt(1 - ᾱ) x, which is add_noise with the two roles exchanged (Salimans & Ho 2022).
        alpha = parts.scheduler.alphas_cumprod[timestep].reshape(-1, 1, 1, 1)
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        condition_noise = torch.randn(condition.shape, generator=generator)
        predicted = backend.denoise(noised, timestep, context, condition, condition_noise)
        return {"loss": F.mse_loss(predicted, velocity)}

    _run_stage("unet", modules, loss_of, config.unet_steps, config.unet_rate, config, out)


def _run_stage(
    name: str,
    modules: Mapping[str, nn.Module],
    loss_of: Callable[[torch.Generator], dict[str, Tensor]],
    steps: int,
    rate: float,
    config: TrainTinyConfig,
    out: Path,
) -> None:
    """Adam with warm-up and cosine decay, an exponential moving average, and checkpoints; leaves the average in."""
    weights = {f"{m}.{key}": p for m, module in modules.items() for key, p in module.named_parameters()}
    optimizer = torch.optim.AdamW(weights.values(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-3)
    average = {key: p.detach().clone() for key, p in weights.items()}
    path, start = out / f"{name}.safetensors", 0
    if path.exists():
        tensors, metadata = load_checkpoint(path)
        start = metadata["step"]
        restore_optimizer(optimizer, tensors)
        for key, p in weights.items():
            p.data.copy_(tensors[f"weight.{key}"])
            average[key].copy_(tensors[f"average.{key}"])
        log.info("%s resumes at step %d", name, start)
    began, losses = time.monotonic(), []
    for step in range(start, steps):
        ramp = min(1.0, (step + 1) / config.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate * ramp * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        terms = loss_of(torch.Generator().manual_seed(config.seed * 10**7 + step))
        optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        optimizer.step()
        decay = min(config.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.values()), [p.data for p in weights.values()], 1 - decay)
        losses.append({key: float(value.detach()) for key, value in terms.items()})
        if (step + 1) % config.log_every == 0:
            means = {key: sum(entry[key] for entry in losses) / len(losses) for key in losses[0]}
            pace = (time.monotonic() - began) / (step + 1 - start)
            log.info("%s %d/%d %s %.2f s/step", name, step + 1, steps, json.dumps(means), pace)
            with open(out / "log.jsonl", "a") as file:
                file.write(json.dumps({"stage": name, "step": step + 1, **means}) + "\n")
            losses = []
        if (step + 1) % config.save_every == 0 or step + 1 == steps:
            tensors = {f"weight.{key}": p for key, p in weights.items()}
            tensors |= {f"average.{key}": p for key, p in average.items()}
            tensors |= optimizer_tensors(optimizer)
            save_checkpoint(path, tensors, {"step": step + 1, "config": asdict(config)})
    for key, p in weights.items():
        p.data.copy_(average[key])


def train(config: TrainTinyConfig, out: Path, folder: Path, model: TinyConfig | None = None) -> None:
    """All stages; the finished model is written to ``folder``. Call it again to resume."""
    model = model or TinyConfig()
    out.mkdir(parents=True, exist_ok=True)
    data = render_stage(config, out)
    parts = make_tiny(model, config.seed)
    backend = Zero123PlusBackend(parts, Layout(3, 2), zero123plus_cameras("v1.2"), model.view_size, "tiny in training")
    vae_stage(config, data, backend, out)
    unet_stage(config, encode_stage(data, backend, out), data.captions, backend, out)
    save_folder(parts, folder, model.view_size)
    log.info("the model is in %s", folder)


def main(
    out: Annotated[Path, typer.Option(help="Where data, checkpoints and the log are kept.")],
    folder: Annotated[Path | None, typer.Option(help="Where the model goes; default OUT/model.")] = None,
    category: str = "chair",
    objects: int = 6000,
    seed: int = 0,
    vae_steps: int = 1400,
    unet_steps: int = 6000,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    smoke: Annotated[bool, typer.Option(help="A few steps of everything, to see that it runs.")] = False,
) -> None:
    """Train the tiny Zero123++; run the same command again to resume."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    config = TrainTinyConfig(category, objects, seed, vae_steps=vae_steps, unet_steps=unet_steps)
    if smoke:
        config = TrainTinyConfig(
            category,
            8,
            seed,
            vae_steps=3,
            vae_batch=4,
            unet_steps=3,
            unet_batch=2,
            save_every=2,
            log_every=1,
            workers=1,
        )
    train(config, out, folder or out / "model")


if __name__ == "__main__":
    typer.run(main)
