"""Self-attention over two UNet passes: what makes a Stable Diffusion UNet look at the input picture."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn


class ReferenceAttention(nn.Module):
    """Self-attention that the condition pass writes (``mode="w"``) and the grid pass also attends to (``"r"``).

    Wraps every layer's processor; on cross-attention layers it only swallows the two keyword arguments.
    """

    def __init__(self, name: str, chained: Any) -> None:
        super().__init__()
        self.name, self.chained = name, chained
        self.enabled = name.endswith("attn1.processor")

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        mode: str | None = None,
        reference: dict[str, Tensor] | None = None,
    ) -> Any:
        if self.enabled and mode is not None and reference is not None:
            own = hidden_states if encoder_hidden_states is None else encoder_hidden_states
            if mode == "w":
                reference[self.name] = own
            else:
                encoder_hidden_states = torch.cat([own, reference[self.name]], dim=1)
        return self.chained(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


# diffusers reads the signature of a processor at every call: kept, it is not built anew.
vars(ReferenceAttention.__call__)["__signature__"] = inspect.signature(ReferenceAttention.__call__)
