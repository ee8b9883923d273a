"""Euler ancestral sampling of Zero123++, on diffusers' scheduler."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import EulerAncestralDiscreteScheduler
from jaxtyping import Float
from torch import Tensor

from keyorbit.errors import InputError

Progress = Callable[[int, int], None]


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


def ancestral_sample(
    scheduler: Any,
    noise: Float[Tensor, "batch channel height width"],
    predict: Callable[[Tensor, Tensor], Tensor],
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Float[Tensor, "batch channel height width"]:
    """The latents after all steps, in the dtype of ``noise``.

    Args:
        scheduler: from :func:`ancestral_scheduler`; used once.
        noise: unit normal.
        predict: ``predict(latents, timestep)``, latents at the scale that the UNet expects; the model's prediction.
        generator: of the noise that each step adds.
        progress: called as ``progress(done, steps)`` after each step.
    """
    latents: Tensor = noise * scheduler.init_noise_sigma
    for done, timestep in enumerate(scheduler.timesteps):
        prediction = predict(scheduler.scale_model_input(latents, timestep), timestep).to(latents.dtype)
        latents = scheduler.step(prediction, timestep, latents, generator=generator).prev_sample
        if progress is not None:
            progress(done + 1, len(scheduler.timesteps))
    return latents


def guide(
    prediction: Float[Tensor, "both channel height width"], guidance: float
) -> Float[Tensor, "batch channel height width"]:
    """Classifier-free guidance; the batch's first half is without the condition (Ho & Salimans 2022, equation 6)."""
    without, given = prediction.chunk(2)
    return without + guidance * (given - without)
