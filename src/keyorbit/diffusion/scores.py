"""What a layer's query and keys say of the tokens, in float32 and in few kernels.

On a GPU a batch of one or two items waits for kernels to be launched, so their number is what counts
(tests/diffusion/test_capture_kernels.py). ``keys`` are the text's and the tokens', or both in one tensor. ``bias`` is
added to the logits, ``[batch head query row]`` with a column for each row of the context and 1 where all have the same:
-10000 for rows that are masked.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def each_head(
    query: Float[Tensor, "batch query inner"],
    keys: Sequence[Float[Tensor, "batch _ inner"]],
    text_tokens: int,
    heads: int,
    scale: float,
    normalizer: bool,
    bias: Float[Tensor, "_ _ _ row"] | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Of each head, the tokens' logits ``[batch head query token]`` and the text's log-sum-exp ``[batch head query]``.

    The log-sum-exp is None without ``normalizer``; the third is None: probabilities follow from the other two.
    """
    shape = query.shape[0], heads, query.shape[1]
    if not normalizer and sum(key.shape[1] for key in keys) == text_tokens:  # there is no token
        return query.new_empty(*shape, 0, dtype=torch.float32), None, None
    query, *by_head = (_by_head(x, heads) for x in (query, *keys))
    text, tokens = by_head if len(keys) == 2 else by_head[0].tensor_split([text_tokens], dim=1)
    logits = _scores(query, tokens, scale).view(*shape, tokens.shape[1])
    if bias is not None:
        logits = logits + bias[..., text_tokens:]
    if not normalizer:
        return logits, None, None
    scores = _scores(query, text, scale)
    if bias is not None:
        scores = scores.view(*shape, text.shape[1]) + bias[..., :text_tokens]
    return logits, _log_sum_exp(scores).view(shape), None


def mean_of_heads(
    query: Float[Tensor, "batch query inner"],
    keys: Sequence[Float[Tensor, "batch _ inner"]],
    text_tokens: int,
    heads: int,
    scale: float,
    normalizer: bool,
    bias: Float[Tensor, "_ _ _ row"] | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The tokens' logits ``[batch 1 query token]``, None, and their probabilities, averaged over the heads.

    The probabilities are None without ``normalizer``.
    """
    tokens = keys[1] if len(keys) == 2 else keys[0][:, text_tokens:]
    query = query.float()
    # All heads' channels side by side: their sum of products is the sum over the heads.
    logits = _scores(query, tokens.float(), scale / heads)[:, None]
    if bias is not None:
        logits = logits + bias[..., text_tokens:].mean(1, keepdim=True)
    if not normalizer:
        return logits, None, None
    key = torch.cat(list(keys), dim=1) if len(keys) == 2 else keys[0]
    every = _scores(_by_head(query, heads), _by_head(key, heads), scale)
    every = every.view(query.shape[0], heads, query.shape[1], key.shape[1])
    if bias is not None:
        every = every + bias
    return logits, None, every.softmax(-1)[..., text_tokens:].mean(1, keepdim=True)


def split_heads(x: Float[Tensor, "batch row inner"], heads: int) -> Float[Tensor, "batch head row channel"]:
    """A view: nothing is copied."""
    return x.view(*x.shape[:2], heads, x.shape[2] // heads).transpose(1, 2)


def _by_head(x: Float[Tensor, "batch row inner"], heads: int) -> Float[Tensor, "batch_head row channel"]:
    """In float32, and copied at most once."""
    if x.shape[0] == 1:
        return x.float().view(x.shape[1], heads, x.shape[2] // heads).transpose(0, 1)
    split = split_heads(x, heads)
    if x.dtype != torch.float32:
        split = split.to(torch.float32, memory_format=torch.contiguous_format)
    return split.flatten(0, 1)


def _scores(
    query: Float[Tensor, "batch query channel"], key: Float[Tensor, "batch token channel"], scale: float
) -> Float[Tensor, "batch query token"]:
    if key.shape[1] == 0:
        return query.new_empty(*query.shape[:2], 0)
    return torch.baddbmm(query.new_empty(1), query, key.transpose(1, 2), beta=0, alpha=scale)


def _log_sum_exp(logits: Float[Tensor, "*batch token"]) -> Float[Tensor, "*batch"]:
    """A logit minus its logarithm of the softmax, which is one kernel; ``torch.logsumexp`` is nine."""
    if logits.shape[-1] == 0:
        return logits.logsumexp(-1)
    return logits[..., 0] - logits.log_softmax(-1)[..., 0]


def probabilities(
    logits: Float[Tensor, "batch head query token"], text_normalizer: Float[Tensor, "batch head query"]
) -> Float[Tensor, "batch head query token"]:
    """The tokens' columns of the softmax over text and tokens, where the text is one more token: its log-sum-exp."""
    return torch.cat([text_normalizer[..., None], logits], dim=-1).softmax(-1)[..., 1:]


def without_autocast(device_type: str) -> Any:
    """Scores are float32 whatever the UNet computes in."""
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()
