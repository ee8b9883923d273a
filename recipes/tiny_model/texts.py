"""Texts as numbers: whatever the recipe can say is tokenized once, so that a step draws numbers where the model is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Texts:
    """Different texts as the text encoder reads them; a text's number is its place among them.

    ids: token numbers, padded as the tokenizer pads: behind the end of the text, where the causal encoder has done.
    lengths: of each text in tokens without the padding; on the CPU.
    """

    words: tuple[str, ...]
    ids: Int[Tensor, "text position"]
    lengths: Int[Tensor, " text"]

    @classmethod
    def of(cls, words: Iterable[str], tokenizer: Any, whole: bool) -> "Texts":
        """The different ones of these texts, cut at the tokenizer's length.

        ``whole``: padded to that length, else to the longest of them.
        """
        texts, limit, rows = tuple(dict.fromkeys(words)), tokenizer.model_max_length, list[list[int]]()
        for first in range(0, len(texts), _AT_ONCE):
            rows += tokenizer(list(texts[first : first + _AT_ONCE]), max_length=limit, truncation=True).input_ids
        lengths = [len(row) for row in rows]
        width = limit if whole else max(lengths, default=0)
        padded = [row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows]
        return cls(texts, torch.tensor(padded).reshape(len(texts), width).long(), torch.tensor(lengths))

    def to(self, device: torch.device) -> "Texts":
        """With the token numbers on a device."""
        return replace(self, ids=self.ids.to(device))

    def numbers_of(self, words: Sequence[str]) -> Int[Tensor, " text"]:
        """The number of each of these texts, which are among them."""
        number = {text: number for number, text in enumerate(self.words)}
        return torch.tensor([number[text] for text in words])


@dataclass(frozen=True, eq=False)
class Captions:
    """The captions of items in rising detail, by their numbers among ``texts``, of which the first is empty.

    of: an item's captions; of one that has fewer than others, zeros behind them. count: how many each item has.
    """

    texts: Texts
    of: Int[Tensor, "item detail"]
    count: Int[Tensor, " item"]

    @classmethod
    def numbered(cls, captions: Sequence[Sequence[str]], tokenizer: Any) -> "Captions":
        """The captions of all items, each text tokenized once."""
        texts = Texts.of(chain([""], *captions), tokenizer, whole=True)
        most = max(map(len, captions), default=0)
        of = texts.numbers_of([said for own in captions for said in [*own, *[""] * (most - len(own))]])
        return cls(texts, of.reshape(len(captions), most), torch.tensor([len(own) for own in captions]))

    def to(self, device: torch.device) -> "Captions":
        """With all tensors on a device, but for the lengths of texts."""
        return Captions(self.texts.to(device), self.of.to(device), self.count.to(device))

    def draw(
        self, items: Int[Tensor, " item"], told: Bool[Tensor, " item"], generator: torch.Generator
    ) -> Int[Tensor, " item"]:
        """A caption of any detail, half of the time the richest, for items that are ``told``; else the empty one."""
        count = self.count[items]
        detail = below(2 * count, generator).minimum(count - 1)
        return self.of[items].take_along_dim(detail[:, None], 1)[:, 0] * told


def different(numbers: Int[Tensor, " text"]) -> tuple[Int[Tensor, " kept"], Int[Tensor, " text"]]:
    """Each number once, in the order in which they come, and where each of ``numbers`` is among these. On the CPU."""
    place: dict[int, int] = {}
    where = [place.setdefault(number, len(place)) for number in numbers.tolist()]
    return torch.tensor(list(place)), torch.tensor(where)


def below(limits: Int[Tensor, " item"], generator: torch.Generator) -> Int[Tensor, " item"]:
    """A random number from 0 below each limit, drawn where the limits are.

    On the CPU one after the other: the numbers of a seed are those of earlier versions of the recipe.
    """
    if limits.device.type == "cpu":
        drawn = [torch.randint(limit, (1,), generator=generator) for limit in limits.tolist()]
        return torch.cat(drawn) if drawn else limits
    uniform = torch.rand(limits.shape, generator=generator, device=limits.device)
    return (uniform * limits).long().minimum(limits - 1)  # the product can round up to the limit
