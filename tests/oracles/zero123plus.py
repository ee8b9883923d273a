"""Zero123++'s sampling loop in one plain function, re-derived from the published pipeline's description."""

import torch
from diffusers import EulerAncestralDiscreteScheduler, UNet2DConditionModel


class Reference:
    """Plain two-pass self-attention: remember on the first pass, attend to both on the second."""

    def __init__(self, store, state):
        self.store, self.state = store, state

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        source = hidden_states
        if self.state["write"]:
            self.store[id(attn)] = hidden_states
        else:
            source = torch.cat([hidden_states, self.store[id(attn)]], 1)
        heads = attn.heads

        def split(x):
            return x.unflatten(-1, (heads, -1)).transpose(1, 2)

        query, key, value = split(attn.to_q(hidden_states)), split(attn.to_k(source)), split(attn.to_v(source))
        weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
        return attn.to_out[1](attn.to_out[0]((weights @ value).transpose(1, 2).flatten(2)))


def plain_unet(unet):
    """A copy with the original's attention; ``state['write']`` says which pass runs."""
    copy = UNet2DConditionModel.from_config(unet.config)
    copy.load_state_dict(unet.state_dict())
    store, state = {}, {"write": True}
    processors = copy.attn_processors
    for name in processors:
        if name.endswith("attn1.processor"):
            processors[name] = Reference(store, state)
    copy.set_attn_processor(processors)
    return copy.eval(), state


@torch.no_grad()
def sample(backend, pictures, generator, steps, guidance):
    """Same draws in the same order as the backend: condition, negative, grid, then condition and step noise."""
    parts = backend.parts
    unet, state = plain_unet(backend.unet)

    def text():
        ids = parts.tokenizer([""], padding="max_length", max_length=77, return_tensors="pt").input_ids
        return parts.text_encoder(ids).last_hidden_state

    pixels = parts.feature_extractor_vae(images=pictures, return_tensors="pt").pixel_values
    condition = parts.vae.encode(pixels).latent_dist.sample(generator)
    negative = parts.vae.encode(torch.zeros_like(pixels)).latent_dist.sample(generator)
    seen = parts.feature_extractor_clip(images=pictures, return_tensors="pt").pixel_values
    embedding = parts.vision_encoder(seen).image_embeds
    ramp = torch.tensor(parts.ramping_coefficients).unsqueeze(-1)
    positive = text() + embedding.unsqueeze(-2) * ramp
    scheduler = EulerAncestralDiscreteScheduler.from_config(parts.scheduler.config)
    scheduler.set_timesteps(steps)
    height, width = backend.latent_size(*backend.grid_size)
    latents = torch.randn(len(pictures), 4, height, width, generator=generator) * scheduler.init_noise_sigma
    conditions = torch.cat([negative, condition])
    context = torch.cat([text().expand(len(pictures), -1, -1), positive])
    for t in scheduler.timesteps:
        model_input = scheduler.scale_model_input(torch.cat([latents] * 2), t)
        noise = torch.randn(conditions.shape, generator=generator)
        noised = scheduler.scale_model_input(scheduler.add_noise(conditions, noise, t.reshape(1)), t)
        state["write"] = True
        unet(noised, t, context)
        state["write"] = False
        without, given = unet(model_input, t, context).sample.chunk(2)
        guided = without + guidance * (given - without)
        latents = scheduler.step(guided, t, latents, generator=generator).prev_sample
    latents = latents / 0.75 + 0.22
    images = parts.vae.decode(latents / parts.vae.config.scaling_factor).sample / 0.5 * 0.8
    return (images / 2 + 0.5).clamp(0, 1)
