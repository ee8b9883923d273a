"""Euler ancestral sampling of Zero123++, on diffusers' schedule; a step waits neither for a number nor for a copy."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import EulerAncestralDiscreteScheduler
from jaxtyping import Float
from torch import Tensor

from keyorbit.errors import InputError

Progress = Callable[[int, int], None]
Generators = torch.Generator | Sequence[torch.Generator]

# Steps whose noise is drawn and moved together: at Zero123++'s size 9 MB for each grid with guidance.
NOISE_STEPS = 32


def ancestral_scheduler(config: Any, steps: int, device: torch.device) -> Any:
    """Euler ancestral on the model's noise schedule, with exactly ``steps`` trailing timesteps.

    Raises:
        InputError: ``steps`` is below 1 or above the schedule's length (1000).
    """
    if not 1 <= steps <= config.num_train_timesteps:
        raise InputError(f"steps must be 1 to {config.num_train_timesteps}, not {steps}")
    scheduler = EulerAncestralDiscreteScheduler.from_config(config, timestep_spacing="trailing")
    scheduler.set_timesteps(steps, device=device)
    # The library's rounding gives some counts (61, 103, …) one step too many, at timestep -1.
    scheduler.timesteps = scheduler.timesteps[:steps]
    scheduler.sigmas = torch.cat([scheduler.sigmas[:steps], scheduler.sigmas[-1:]])
    return scheduler


@dataclass(frozen=True)
class AncestralStep:
    """One step as plain numbers: its noise level ``sigma``, how far it goes, and how much noise it adds afterwards."""

    sigma: float
    shrink: float
    from_prediction: float
    from_latents: float
    distance: float
    fresh: float


def ancestral_steps(sigmas: Float[Tensor, " levels"], prediction_type: str) -> list[AncestralStep]:
    """The steps between consecutive noise levels, all computed before the first.

    In float32 and in the order in which diffusers' scheduler computes them, so that a step gives its very bits.

    Raises:
        InputError: the model predicts neither v nor ε.
    """
    sigmas = sigmas.float().cpu()
    sigma, after = sigmas[:-1], sigmas[1:]
    fresh = (after**2 * (sigma**2 - after**2) / sigma**2) ** 0.5
    distance = (after**2 - fresh**2) ** 0.5 - sigma
    shrink = (sigma**2 + 1) ** 0.5
    if prediction_type == "v_prediction":
        from_prediction, from_latents = -sigma / shrink, sigma**2 + 1
    elif prediction_type == "epsilon":
        from_prediction, from_latents = -sigma, torch.ones_like(sigma)
    else:
        raise InputError(f"the model's scheduler predicts {prediction_type!r}: it must be epsilon or v_prediction")
    columns = (sigma, shrink, from_prediction, from_latents, distance, fresh)
    return [AncestralStep(*row) for row in torch.stack(columns, dim=1).tolist()]


def ancestral_sample(
    scheduler: Any,
    start: Float[Tensor, "batch channel height width"],
    predict: Callable[[Tensor, Tensor, Tensor], Tensor],
    noises: Iterator[tuple[Tensor, Tensor]],
    after: Callable[[int, int, Tensor], None] | None = None,
) -> Float[Tensor, "batch channel height width"]:
    """The latents after all steps, float32.

    Args:
        scheduler: from :func:`ancestral_scheduler`.
        start: unit normal.
        predict: ``predict(latents, timestep, noise)``, latents at the scale that the UNet expects; the model's
            prediction, float32.
        noises: for each step what ``predict`` is given, and what the step adds; unit normal.
        after: called as ``after(done, steps, clean)`` after each step; ``clean`` are the latents that it predicts.
    """
    steps = ancestral_steps(scheduler.sigmas, scheduler.config.prediction_type)
    latents: Tensor = start * scheduler.init_noise_sigma
    for done, (step, timestep, (noise, fresh)) in enumerate(zip(steps, scheduler.timesteps, noises, strict=True)):
        prediction = predict(latents / step.shrink, timestep, noise)
        clean = prediction * step.from_prediction + latents / step.from_latents
        latents = latents + (latents - clean) / step.sigma * step.distance + fresh * step.fresh
        if after is not None:
            after(done + 1, len(steps), clean)
    return latents


def unit_normal(
    shape: Sequence[int], generators: Sequence[torch.Generator], parts: int = 1
) -> Float[Tensor, "item channel height width"]:
    """Noise of ``shape``, drawn in float32 where the generators live: a seed means the same on every device and dtype.

    The items are ``parts`` (such as the halves of the guidance) × pictures × copies. With a generator for each picture
    its numbers are those that it would have alone; one generator draws for all pictures at once.
    """
    if len(generators) == 1:
        return torch.randn(*shape, generator=generators[0], device=generators[0].device)
    each = (parts, shape[0] // (parts * len(generators)), *shape[1:])
    drawn = [torch.randn(*each, generator=generator, device=generator.device) for generator in generators]
    return torch.stack(drawn, dim=1).reshape(*shape)


def moved_together(
    draw: Callable[[], tuple[Tensor, Tensor]], steps: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """What ``draw`` gives for each step, moved to the device for many steps at once: each copy would make it wait."""
    for begin in range(0, steps, NOISE_STEPS):
        drawn = [draw() for _ in range(min(NOISE_STEPS, steps - begin))]
        first, second = (torch.stack(same).to(device) for same in zip(*drawn, strict=True))
        yield from zip(first, second, strict=True)


def guide(
    prediction: Float[Tensor, "both channel height width"], guidance: float
) -> Float[Tensor, "batch channel height width"]:
    """Classifier-free guidance; the batch's first half is without the condition (Ho & Salimans 2022, equation 6)."""
    without, given = prediction.chunk(2)
    return without + guidance * (given - without)
