"""A text encoder's hidden states: of prompts, and of random words."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

_RANDOM_TEXTS = 16


class KnownTexts:
    """Stands for a tokenizer in the functions below, and tokenizes each text only once: for training."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.model_max_length, self.eos_token_id = tokenizer.model_max_length, tokenizer.eos_token_id
        self._known: dict[str, list[int]] = {}

    def __call__(self, texts: Sequence[str], padding: str, max_length: int, **kwargs: Any) -> Any:
        """As a transformers tokenizer with ``truncation=True`` and ``return_tensors="pt"``."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            rows = self.tokenizer(new, max_length=max_length, truncation=True).input_ids
            self._known.update(zip(new, rows, strict=True))
        found = [self._known[text] for text in texts]
        length = max_length if padding == "max_length" else max(map(len, found))
        filler = [self.tokenizer.pad_token_id] * length
        return SimpleNamespace(input_ids=torch.tensor([(row + filler)[:length] for row in found]))


def encode_prompts(
    tokenizer: Any, text_encoder: Any, prompts: Sequence[str]
) -> Float[Tensor, "batch text context_width"]:
    """The last hidden states, padded to the tokenizer's length (77)."""
    return _hidden(text_encoder, _ids(tokenizer, prompts, "max_length"))


def encode_phrases(tokenizer: Any, text_encoder: Any, phrases: Sequence[str]) -> Float[Tensor, "phrase context_width"]:
    """One context row for each phrase: the last hidden state at its end-of-text token, which has read all of it."""
    ids = _ids(tokenizer, phrases, "longest")
    end = (ids == tokenizer.eos_token_id).int().argmax(-1)  # padding is end-of-text too: the first one counts
    hidden = _hidden(text_encoder, ids)
    return hidden[torch.arange(len(ids)), end]


@torch.no_grad()
def random_rows(tokenizer: Any, text_encoder: Any, generator: torch.Generator) -> Float[Tensor, "row context_width"]:
    """Context rows of random words: what the model's text embeddings look like."""
    size = (_RANDOM_TEXTS, tokenizer.model_max_length)
    ids = torch.randint(0, len(tokenizer), size, generator=generator)
    return rearrange(_hidden(text_encoder, ids), "b t w -> (b t) w")


def _ids(tokenizer: Any, texts: Sequence[str], padding: str) -> Tensor:
    """Token numbers ``[text position]``, no longer than the tokenizer's length."""
    length = tokenizer.model_max_length
    ids: Tensor = tokenizer(
        list(texts), padding=padding, max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def _hidden(text_encoder: Any, ids: Tensor) -> Tensor:
    hidden: Tensor = text_encoder(ids.to(text_encoder.device)).last_hidden_state
    return hidden
