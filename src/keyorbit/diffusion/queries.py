"""Cross-attention queries kept apart from the UNet: from them the logits or maps of any tokens follow.

In isolated mode the queries do not depend on the tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from keyorbit.diffusion.choices import MapKind
from keyorbit.diffusion.maps import LayerMaps
from keyorbit.diffusion.scores import probabilities

Items = Int[Tensor, " batch"] | slice
EVERY = slice(None)


@dataclass(frozen=True, eq=False)
class LayerQueries:
    """One layer's scaled queries for many items, with what turns tokens into its keys.

    text_normalizer is the log-sum-exp of the text tokens' logits, None where only logits were asked for. to_key is None
    where the queries are already in the tokens' own space; see :func:`merge_layers`.
    """

    name: str
    size: tuple[int, int]
    query: Float[Tensor, "item head query channel"]
    text_normalizer: Float[Tensor, "item head query"] | None
    to_key: Float[Tensor, "inner width"] | None

    def mean_logits(
        self, tokens: Float[Tensor, "token width"], items: Items = EVERY
    ) -> Float[Tensor, "batch query token"]:
        """Logits averaged over the heads: one product of all heads' channels side by side."""
        heads = self.query.shape[1]
        flat = rearrange(self.query[items], "b h q c -> b q (h c)").to(tokens)
        total = flat @ self._keys(tokens).T
        return total if heads == 1 else total / heads

    def logits(
        self, tokens: Float[Tensor, "token width"], items: Items = EVERY
    ) -> Float[Tensor, "batch head query token"]:
        """The tokens' logits, head by head."""
        key = rearrange(self._keys(tokens), "t (h c) -> h c t", h=self.query.shape[1])
        return self.query[items].to(tokens) @ key

    def _keys(self, tokens: Float[Tensor, "token width"]) -> Float[Tensor, "token inner"]:
        return tokens if self.to_key is None else tokens @ self.to_key.T

    def probabilities(
        self, tokens: Float[Tensor, "token width"], items: Items = EVERY
    ) -> Float[Tensor, "batch head query token"]:
        """The token columns of the softmax over text and tokens together."""
        if self.text_normalizer is None:
            raise ValueError(f"layer {self.name} was recorded without its text normalizer: it gives logits only")
        return probabilities(self.logits(tokens, items), self.text_normalizer[items].to(tokens))


@dataclass(frozen=True, eq=False)
class QueryCache:
    """The queries of several layers for ``items``: objects × versions, objects first."""

    layers: tuple[LayerQueries, ...]
    versions: int

    def token_logits(self, tokens: Float[Tensor, "token width"], items: Items = EVERY) -> list[LayerMaps]:
        """Logits averaged over heads and over the layers of each size; their mean over sizes is the mean of all."""
        sums: dict[tuple[int, int], Tensor] = {}
        for layer in self.layers:
            logits = layer.mean_logits(tokens, items)
            sums[layer.size] = sums[layer.size] + logits if layer.size in sums else logits
        share = len(sums) / len(self.layers)
        scaled = sums if share == 1 else {size: share * maps for size, maps in sums.items()}
        return [LayerMaps(f"{h}x{w}", maps[:, None], (h, w)) for (h, w), maps in scaled.items()]

    def token_maps(self, tokens: Float[Tensor, "token width"], items: Items = EVERY) -> list[LayerMaps]:
        """Attention maps (softmax over text and tokens) of every layer."""
        return [LayerMaps(x.name, x.probabilities(tokens, items), x.size) for x in self.layers]

    def maps(self, tokens: Float[Tensor, "token width"], items: Items, kind: MapKind) -> list[LayerMaps]:
        """What :func:`keyorbit.diffusion.maps.token_maps` makes maps of that kind from."""
        if kind == "logits":
            return self.token_logits(tokens, items)
        if kind == "attention":
            return self.token_maps(tokens, items)
        return [LayerMaps(x.name, x.logits(tokens, items), x.size) for x in self.layers]


def merge_layers(layers: Sequence[LayerQueries]) -> list[LayerQueries]:
    """One layer of one head for each size, with the same logits averaged over heads and layers.

    The average is linear: a mean of ``q·W·token`` over heads and layers is one product with all queries side by side,
    or, where that is smaller, with the sum of ``q·W``, which lies in the tokens' own space. At full size the 16 layers'
    queries take 27 million numbers a grid, their sums 13 million.
    """
    by_size: dict[tuple[int, int], list[LayerQueries]] = {}
    for layer in layers:
        by_size.setdefault(layer.size, []).append(layer)
    share = len(by_size) / len(layers)
    merged = []
    for (height, width), same in by_size.items():
        query = torch.cat([rearrange(x.query, "i h q c -> i q (h c)") for x in same], dim=-1)
        matrices = [share / x.query.shape[1] * x.to_key for x in same if x.to_key is not None]
        matrix = torch.cat(matrices)
        fold = query.shape[-1] >= matrix.shape[1]
        query, to_key = (query @ matrix, None) if fold else (query, matrix)
        merged.append(LayerQueries(f"{height}x{width}", (height, width), query[:, None], None, to_key))
    return merged


def join_items(same: Sequence[LayerQueries]) -> LayerQueries:
    """The items of several records of one layer, in order."""
    first = same[0]
    normalizers = [x.text_normalizer for x in same if x.text_normalizer is not None]
    query = first.query if len(same) == 1 else torch.cat([x.query for x in same])
    normalizer = torch.cat(normalizers) if normalizers else None
    return LayerQueries(first.name, first.size, query, normalizer, first.to_key)
