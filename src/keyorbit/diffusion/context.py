"""A context as text rows and learnable rows, and its mask as those of both."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from keyorbit.errors import InputError


def split_context(
    context: Float[Tensor, "batch all width"], text_tokens: int
) -> tuple[Float[Tensor, "batch text width"], Float[Tensor, "batch token width"]]:
    """The text rows, and the learnable rows that :meth:`keyorbit.diffusion.tokens.Tokens.append_to` put behind them.

    Both get the strides of a tensor of their own: with others a product may take another kernel, whose last bits
    differ. (A slice of a single item counts as contiguous and keeps the whole context's stride.)
    """
    text, tokens = (part.flatten(0, 1).view(part.shape) for part in context.tensor_split([text_tokens], dim=1))
    return text, tokens


class ContextCut:
    """A context as text rows and learnable rows. All layers of a forward get the same context: it is cut once."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Before a forward: a context may have been overwritten in place."""
        self._last: tuple[Tensor | None, bool] = None, False
        self._parts: tuple[Tensor, ...] = ()

    def __call__(self, context: Tensor, text_tokens: int) -> tuple[Tensor, ...]:
        # Gradient checkpointing may run one layer without gradients and the next one with them.
        with_gradients = torch.is_grad_enabled()
        if self._last[0] is not context or self._last[1] != with_gradients:
            self._last = context, with_gradients
            self._parts = split_context(context, text_tokens)
        return self._parts


def cut_mask(
    mask: Tensor | None, text_tokens: int, rows: int, isolated: bool, batch: int
) -> tuple[Tensor | None, Float[Tensor, "_ _ _ row"] | None]:
    """The mask for the layer itself, and the bias on all rows' logits; tokens that the mask leaves out count.

    diffusers makes a bias of it, ``[batch 1 row]``: 0 for rows that count, -10000 for others. It may be one of a head
    or query each, and transformers hand on one of truth values as it is. Whoever masks the text does not know of the
    tokens behind it.
    """
    if mask is None:
        return None, None
    columns, of_truth = mask.shape[-1], mask.dtype == torch.bool
    if mask.ndim < 2 or columns not in (text_tokens, rows):
        raise InputError(
            f"a mask of shape {list(mask.shape)} does not fit a context of {text_tokens} text rows and "
            f"{rows - text_tokens} learnable ones: give encoder_attention_mask a column for each row, or each text row"
        )
    whole = nn.functional.pad(mask, (0, rows - columns), value=of_truth)
    bias = torch.zeros_like(whole, dtype=torch.float32).masked_fill(~whole, -torch.inf) if of_truth else whole.float()
    if bias.ndim < 4:
        # [row], [query row] or [head query row] of each item
        bias = bias.reshape(-1, 1, bias.shape[-2] if bias.ndim == 3 else 1, rows)
    if bias.shape[0] > batch:
        bias = bias.reshape(batch, -1, *bias.shape[-2:])
    return whole[..., :text_tokens] if isolated else whole, bias
