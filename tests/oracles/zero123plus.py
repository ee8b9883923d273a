"""The published Zero123++ call written out slowly: one grid, one half of the guidance and one softmax at a time.

From the facts of github.com/SUDO-AI-3D/zero123plus (diffusers-support/pipeline.py) and of Euler ancestral sampling
(Karras et al. 2022; k-diffusion): own noise schedule, own sampler, own attention; only the networks are diffusers'.
"""

import math

import torch
from diffusers import UNet2DConditionModel


class PlainAttention:
    """Softmax attention; self-attention remembers its input in pass "w" and also attends to it in pass "r"."""

    def __init__(self, name, memory):
        self.name, self.memory = name, memory

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if self.name.endswith("attn1.processor"):
            if self.memory["pass"] == "w":
                self.memory[self.name] = hidden_states
            else:
                source = torch.cat([hidden_states, self.memory[self.name]], 1)

        def split(x):
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        query, key, value = split(attn.to_q(hidden_states)), split(attn.to_k(source)), split(attn.to_v(source))
        weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
        return attn.to_out[1](attn.to_out[0]((weights @ value).transpose(1, 2).flatten(2)))


def plain_unet(unet):
    copy = UNet2DConditionModel.from_config(unet.config)
    copy.load_state_dict(unet.state_dict())
    memory = {}
    copy.set_attn_processor({name: PlainAttention(name, memory) for name in copy.attn_processors})
    return copy.eval(), memory


def sigmas_and_timesteps(config, steps):
    """Trailing timesteps and their noise levels; the last level is 0."""
    betas = torch.linspace(config.beta_start, config.beta_end, 1000, dtype=torch.float64)
    kept = torch.cumprod(1 - betas, 0)
    timesteps = [round(1000 - i * 1000 / steps) - 1 for i in range(steps)]
    return [math.sqrt((1 - kept[t]) / kept[t]) for t in timesteps] + [0.0], timesteps


def text(parts, prompt):
    ids = parts.tokenizer([prompt], padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    return parts.text_encoder(ids).last_hidden_state


def draw_latent(parts, pixels, generator):
    posterior = parts.vae.encode(pixels).latent_dist
    return posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)


@torch.no_grad()
def sample(
    parts,
    pictures,
    generator,
    steps,
    guidance,
    size,
    copies=1,
    prompt="",
    negative="",
    controlnet=None,
    control_pixels=None,
    scale=1.0,
):
    """Latents [picture·copies ...] of ``size``, before decoding. One generator plays the global one's part."""
    unet, memory = plain_unet(parts.unet)
    shown = parts.feature_extractor_vae(images=pictures, return_tensors="pt").pixel_values
    seen = parts.feature_extractor_clip(images=pictures, return_tensors="pt").pixel_values
    given = draw_latent(parts, shown, generator)
    guided = guidance > 1
    blank = draw_latent(parts, torch.zeros_like(shown), generator) if guided else None
    embedding = parts.vision_encoder(seen).image_embeds
    ramp = torch.tensor(parts.ramping_coefficients)[None, :, None]
    # Each entry: which picture's condition latent, and the context that goes with it; all negatives come first.
    halves = [(blank[i], text(parts, negative)) for i in range(len(pictures)) for _ in range(copies)] if guided else []
    positive = [text(parts, prompt) + ramp * embedding[i] for i in range(len(pictures))]
    halves += [(given[i], positive[i]) for i in range(len(pictures)) for _ in range(copies)]
    count = len(pictures) * copies

    def velocity(x, sigma, t, noise, index):
        """One grid's prediction under entry ``index``: the condition pass, then the grid pass."""
        latent, context = halves[index]
        shrink = (sigma**2 + 1) ** -0.5
        memory["pass"] = "w"
        unet((latent + sigma * noise)[None] * shrink, t, context)
        memory["pass"] = "r"
        residuals = {}
        if controlnet is not None:
            picture = control_pixels[index % count // copies if len(control_pixels) > 1 else 0]
            out = controlnet(x[None] * shrink, t, context, picture[None], conditioning_scale=scale)
            residuals["down_block_additional_residuals"] = out.down_block_res_samples
            residuals["mid_block_additional_residual"] = out.mid_block_res_sample
        return unet(x[None] * shrink, t, context, **residuals).sample[0]

    sigmas, timesteps = sigmas_and_timesteps(parts.scheduler.config, steps)
    latents = torch.randn(count, 4, *size, generator=generator) * sigmas[0]
    for sigma, after, t in zip(sigmas, sigmas[1:], timesteps, strict=False):
        noise = torch.randn(len(halves), *given.shape[1:], generator=generator)
        fresh = []
        for i, x in enumerate(latents):
            v = velocity(x, sigma, t, noise[len(halves) - count + i], len(halves) - count + i)
            if guided:
                without = velocity(x, sigma, t, noise[i], i)
                v = without + guidance * (v - without)
            clean = x / (sigma**2 + 1) - v * sigma / math.sqrt(sigma**2 + 1)
            up = math.sqrt(after**2 * (sigma**2 - after**2) / sigma**2)
            fresh.append((x + (x - clean) / sigma * (math.sqrt(after**2 - up**2) - sigma), up))
        added = torch.randn(latents.shape, generator=generator)
        latents = torch.stack([x + up * n for (x, up), n in zip(fresh, added, strict=True)])
    return latents


@torch.no_grad()
def decode(parts, latents):
    pixels = parts.vae.decode((latents / 0.75 + 0.22) / parts.vae.config.scaling_factor).sample / 0.5 * 0.8
    return (pixels / 2 + 0.5).clamp(0, 1)


@torch.no_grad()
def sample_by_the_library(unet, scheduler, condition, start, guidance):
    """The same loop as it is published: all on diffusers' scheduler, which is asked anew at each step; the global seed.

    For what it costs. ``unet`` has processors that take ``mode`` and ``reference``; ``condition`` has both halves.
    """
    latents = start * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        both = scheduler.scale_model_input(torch.cat([latents, latents]), t)
        noise = torch.randn_like(condition.latent)
        given = scheduler.scale_model_input(scheduler.add_noise(condition.latent, noise, t.reshape(-1)), t.reshape(-1))
        reference = {}
        unet(given, t, condition.context, cross_attention_kwargs={"mode": "w", "reference": reference})
        reading = {"mode": "r", "reference": reference}
        without, told = unet(both, t, condition.context, cross_attention_kwargs=reading, return_dict=False)[0].chunk(2)
        latents = scheduler.step(without + guidance * (told - without), t, latents, return_dict=False)[0]
    return latents
