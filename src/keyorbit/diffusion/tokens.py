"""The learnable tokens: K embeddings that follow the text tokens in the UNet's context."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from keyorbit.diffusion.hub import HubTokens
from keyorbit.diffusion.paths import check_tokens
from keyorbit.errors import InputError
from keyorbit.storage.checkpoint import load_checkpoint, save_checkpoint
from keyorbit.values import from_values

FORMAT = "keyorbit-tokens-1"


@dataclass(frozen=True)
class TokensInfo:
    """Where tokens come from: what one needs to use them, and to make them again.

    Attributes:
        model: name, folder or Hub id of the model that they were found on.
        model_fingerprint: of its weights; other weights are refused.
        layers: names of the cross-attention layers that are read.
        timestep: 0…999, one or several.
        mode: ``isolated`` or ``joint``.
        seed: of the discovery.
        version: of keyorbit.
        settings: of the discovery (:class:`keyorbit.DiscoverConfig`), as plain values.
        queries: the type that the queries were kept in.
        objects: how many there were.
        libraries: versions of torch, diffusers and transformers.
        pairs: keypoints, by number, that mark mirror images of each other, such as a left and a right leg.
        places: shape [keypoints + helpers, 3]; unit: radius of the sphere that all cameras see. Where each token
            belongs on the common shape, up to a turn about the vertical; helpers are candidates that did not become
            keypoints but still vote on the turn. Empty for tokens that were found without a constellation.
        form: of the object that has them there, in the same unit: the mean of its surface, and the three rows of its
            covariance; see :mod:`keyorbit.geometry.alignment`.
        cameras_of: whose cameras the model was loaded with, where they were not those that its folder tells of.
    """

    model: str = ""
    model_fingerprint: str = ""
    layers: tuple[str, ...] = ()
    timestep: int | tuple[int, ...] = 0
    mode: str = "isolated"
    seed: int = 0
    version: str = ""
    settings: dict[str, object] = field(default_factory=dict)
    queries: str = "float32"
    objects: int = 0
    libraries: dict[str, str] = field(default_factory=dict)
    pairs: tuple[tuple[int, int], ...] = ()
    places: tuple[tuple[float, float, float], ...] = ()
    form: tuple[tuple[float, float, float], ...] = ()
    cameras_of: str = ""


class Tokens(nn.Module, HubTokens):
    """K learnable context rows, ``embedding [token width]``, float32.

    helpers: more rows, [helper width], that mark no keypoints: candidates of a discovery by constellation that were not
    kept, which help to find how an object is turned.
    """

    helpers: Tensor

    def __init__(
        self,
        embedding: Float[Tensor, "token width"],
        info: TokensInfo | None = None,
        helpers: Float[Tensor, "helper width"] | None = None,
    ) -> None:
        super().__init__()
        self.embedding = nn.Parameter(embedding.detach().clone().float())
        self.info = info or TokensInfo()
        aside = embedding[:0] if helpers is None else helpers
        self.register_buffer("helpers", aside.detach().clone().float(), persistent=False)

    def __len__(self) -> int:
        return self.embedding.shape[0]

    @classmethod
    def initialise(
        cls,
        text_embeddings: Float[Tensor, "row width"],
        count: int,
        generator: torch.Generator,
        info: TokensInfo | None = None,
    ) -> "Tokens":
        """Random tokens that look like the model's own: each channel has the mean and spread of its text embeddings."""
        if count < 1:
            raise InputError(f"the number of tokens must be at least 1, not {count}")
        text = text_embeddings.detach().float().cpu()
        noise = torch.randn(count, text.shape[1], generator=generator)
        return cls(text.mean(0) + text.std(0) * noise, info)

    def append_to(self, context: Float[Tensor, "batch text width"]) -> Float[Tensor, "batch all width"]:
        """The context followed by the tokens: ``[batch 77 width]`` → ``[batch 77+K width]``.

        Raises:
            InputError: the context has another width than the tokens.
        """
        if context.shape[-1] != self.embedding.shape[-1]:
            raise InputError(
                f"tokens of width {self.embedding.shape[-1]} do not fit a context of width {context.shape[-1]}: "
                "they were made for another model"
            )
        tokens = repeat(self.embedding.to(context), "token width -> b token width", b=context.shape[0])
        return torch.cat([context, tokens], dim=1)

    def select(self, indices: Tensor) -> "Tokens":
        """The chosen tokens, in the given order, with all helpers."""
        indices = indices.cpu()  # of a selection, which is where the maps are; these are where they were put
        numbers = torch.arange(len(self))[indices].tolist()
        renumbered = {old: new for new, old in enumerate(numbers)}
        pairs = tuple((renumbered[a], renumbered[b]) for a, b in self.info.pairs if {a, b} <= renumbered.keys())
        places = tuple(self.info.places[i] for i in numbers) if self.info.places else ()
        info = replace(self.info, pairs=pairs, places=places + self.info.places[len(self) :])
        return Tokens(self.embedding.detach()[indices], info, self.helpers)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; whole or not at all.

        Raises:
            InputError: the disk refuses.
        """
        tensors = {"embedding": self.embedding, "helpers": self.helpers}
        save_checkpoint(Path(path), tensors, {"format": FORMAT, "info": asdict(self.info)})

    @classmethod
    def load(cls, path: str | Path) -> "Tokens":
        """Read what :meth:`save` wrote.

        Raises:
            InputError: the file is missing, damaged or no tokens file, or holds NaN.
        """
        check_tokens(Path(path))
        tensors, header = load_checkpoint(Path(path))
        if header.get("format") != FORMAT:
            raise InputError(f"{path} is not a keyorbit tokens file")
        embedding, helpers = tensors["embedding"], tensors.get("helpers")
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise InputError(f"{path} holds values that are not finite; discover the tokens again")
        return cls(embedding, from_values(TokensInfo, header.get("info"), str(path)), helpers)
