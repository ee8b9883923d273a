"""A text encoder's hidden states: of prompts, of phrases, and of random words."""

import logging
import re
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from keyorbit.errors import InputError
from keyorbit.values import short

log = logging.getLogger(__name__)
_RANDOM_TEXTS = 16
_END = "</w>"  # of a word, in the vocabularies of CLIP's tokenizers


def encode_prompts(
    tokenizer: Any, text_encoder: Any, prompts: Sequence[str]
) -> Float[Tensor, "batch text context_width"]:
    """The last hidden states, padded to the tokenizer's length (77)."""
    return prompt_rows(text_encoder, _ids(tokenizer, prompts, "max_length"))


def encode_phrases(tokenizer: Any, text_encoder: Any, phrases: Sequence[str]) -> Float[Tensor, "phrase context_width"]:
    """One context row for each phrase: the last hidden state at its end-of-text token, which has read all of it."""
    return rows_at_end(text_encoder, _ids(tokenizer, phrases, "longest"), tokenizer.eos_token_id)


def check_phrase(tokenizer: Any, phrase: str) -> None:
    """Check that a model can read a phrase: some of its words are among those that the tokenizer was made of.

    A word that has no entry of its own in the tokenizer's vocabulary is told in the log. One that is also cut into more
    pieces than half its letters is spelled, and not known.

    Raises:
        InputError: the phrase is empty, longer than the model reads, or has no word that is known.
    """
    words = re.findall(r"[^\W_]+", phrase)
    if not words:
        raise InputError(f"the phrase {short(phrase)} has no word: give one such as 'front left leg'")
    entries = tokenizer.get_vocab()
    cut = [word for word in words if f"{word.lower()}{_END}" not in entries]
    if all(len(tokenizer.tokenize(word)) > len(word) / 2 for word in cut) and len(cut) == len(words):
        raise InputError(f"the phrase {short(phrase)} has no word that the model's tokenizer knows: give common words")
    if cut:
        log.warning("%s in the phrase %s: no word of the model's tokenizer", ", ".join(cut), short(phrase))
    most = tokenizer.model_max_length - 2  # without the marks at its start and end
    if (count := len(tokenizer.tokenize(phrase, verbose=False))) > most:
        raise InputError(
            f"the phrase {short(phrase)} has {count} tokens; the model reads {most}: say it in fewer words"
        )


def prompt_rows(text_encoder: Any, ids: Int[Tensor, "text position"]) -> Float[Tensor, "text position context_width"]:
    """The last hidden states of tokenized texts."""
    hidden: Tensor = text_encoder(ids.to(text_encoder.device)).last_hidden_state
    return hidden


def rows_at_end(
    text_encoder: Any, ids: Int[Tensor, "text position"], end_of_text: int
) -> Float[Tensor, "text context_width"]:
    """The last hidden state of each tokenized text at its first end-of-text token; padding is end-of-text too."""
    end = (ids == end_of_text).int().argmax(-1)
    return prompt_rows(text_encoder, ids)[torch.arange(len(ids), device=ids.device), end]


@torch.no_grad()
def random_rows(tokenizer: Any, text_encoder: Any, generator: torch.Generator) -> Float[Tensor, "row context_width"]:
    """Context rows of random words: what the model's text embeddings look like."""
    size = (_RANDOM_TEXTS, tokenizer.model_max_length)
    ids = torch.randint(0, len(tokenizer), size, generator=generator)
    return rearrange(prompt_rows(text_encoder, ids), "b t w -> (b t) w")


def _ids(tokenizer: Any, texts: Sequence[str], padding: str) -> Tensor:
    """Token numbers ``[text position]``, no longer than the tokenizer's length."""
    length = tokenizer.model_max_length
    ids: Tensor = tokenizer(
        list(texts), padding=padding, max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    return ids
