"""The diffusion side of a training step: what a v-prediction model is asked for, and how much each timestep counts."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


def alphas(scheduler: Any, timestep: Int[Tensor, " batch"]) -> Float[Tensor, "batch 1 1 1"]:
    """ᾱ of a diffusers scheduler at each timestep, shaped to go with latents."""
    schedule: Tensor = scheduler.alphas_cumprod.to(timestep.device)
    return schedule[timestep].reshape(-1, 1, 1, 1)


def velocity(
    clean: Float[Tensor, "batch channel height width"],
    noise: Float[Tensor, "batch channel height width"],
    alpha: Float[Tensor, "batch 1 1 1"],
) -> Float[Tensor, "batch channel height width"]:
    """v = sqrt(ᾱ) ε - sqrt(1 - ᾱ) x, the target of v-prediction (Salimans & Ho 2022, appendix D)."""
    return alpha.sqrt() * noise - (1 - alpha).sqrt() * clean


def min_snr_weights(alpha: Float[Tensor, "batch 1 1 1"], gamma: float) -> Float[Tensor, " batch"]:
    """min(SNR, γ) / (SNR + 1) with SNR = ᾱ / (1 - ᾱ): min-SNR-γ for v-prediction (Hang et al. 2023, section 3.4).

    A γ of 0 turns it off: every timestep weighs 1. The paper's γ is 5.
    """
    alpha = alpha.flatten()
    if gamma == 0:
        return torch.ones_like(alpha)
    snr = alpha / (1 - alpha)
    return snr.clamp_max(gamma) / (snr + 1)
