"""A UNet's passes with plain inputs, and cross-attention written out so that its tensors can be seen or kept."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from keyorbit.diffusion.backends.reference_attention import ReferenceAttention
from keyorbit.diffusion.captured import Pass


def run_passes(unet: nn.Module, latents: Mapping[Pass, Tensor], context: Tensor) -> Tensor:
    """The UNet as the model's pipeline calls it in one denoising step: condition pass, if it has one, then grid."""
    timestep = torch.full((context.shape[0],), 300, device=context.device)
    if "condition" not in latents:
        alone: Tensor = unet(latents["grid"], timestep, context).sample
        return alone
    reference: dict[str, Tensor] = {}
    unet(latents["condition"], timestep, context, cross_attention_kwargs={"mode": "w", "reference": reference})
    both: Tensor = unet(
        latents["grid"], timestep, context, cross_attention_kwargs={"mode": "r", "reference": reference}
    ).sample
    return both


def install_reference(unet: Any) -> None:
    """Let the grid pass read what the condition pass wrote, unless the UNet's backend has done so already."""
    installed = unet.attn_processors
    if not any(isinstance(processor, ReferenceAttention) for processor in installed.values()):
        unet.set_attn_processor({key: ReferenceAttention(key, value) for key, value in installed.items()})


class WrittenOutAttention(nn.Module):
    """Cross-attention as a product, a softmax and a product, never fused, so that its tensors can be seen.

    ``keep(name, tensor)`` gets ``query``, ``key``, ``value`` as the layer's projections give them, and
    ``probabilities`` ``[batch·heads positions rows]``.
    """

    def __init__(self, keep: Callable[[str, Tensor], None]) -> None:
        super().__init__()
        self.keep = keep

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Any:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        split = attn.head_to_batch_dim
        probabilities = attn.get_attention_scores(split(query), split(key), attention_mask)
        tensors = {"query": query, "key": key, "value": value, "probabilities": probabilities}
        for name, tensor in tensors.items():
            self.keep(name, tensor)
        out = attn.batch_to_head_dim(torch.bmm(probabilities, split(value)))
        return attn.to_out[1](attn.to_out[0](out))


def write_out(unet: Any, keep: Callable[[str, str, Tensor], None]) -> None:
    """Put :class:`WrittenOutAttention` into every cross-attention layer; ``keep`` gets the layer's name first.

    A reference attention that stands in front of a layer's processor stays there.
    """
    processors = dict(unet.attn_processors)
    for key, processor in processors.items():
        name = key.removesuffix(".processor")
        if name.endswith("attn2"):
            plain = WrittenOutAttention(partial(keep, name))
            referring = isinstance(processor, ReferenceAttention)
            processors[key] = ReferenceAttention(key, plain) if referring else plain
    unet.set_attn_processor(processors)
