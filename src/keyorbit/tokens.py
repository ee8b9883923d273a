"""The learnable tokens: K embeddings that follow the text tokens in the UNet's context."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from einops import repeat
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from keyorbit.errors import InputError

FORMAT = "keyorbit-tokens-1"


@dataclass(frozen=True)
class TokensInfo:
    """Where tokens come from: what one needs to use them, and to make them again."""

    model: str = ""
    model_fingerprint: str = ""
    layers: tuple[str, ...] = ()
    timestep: int = 0
    mode: str = "isolated"
    seed: int = 0
    version: str = ""
    settings: dict[str, object] = field(default_factory=dict)


class Tokens(nn.Module):
    """K learnable context rows, ``embedding [token width]``, float32."""

    def __init__(self, embedding: Float[Tensor, "token width"], info: TokensInfo | None = None) -> None:
        super().__init__()
        self.embedding = nn.Parameter(embedding.detach().clone().float())
        self.info = info or TokensInfo()

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
        """The chosen tokens, in the given order."""
        return Tokens(self.embedding.detach()[indices], self.info)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; whole or not at all."""
        path = Path(path)
        header = {"format": FORMAT, "info": json.dumps(asdict(self.info))}
        partial = path.with_name(path.name + ".partial")
        save_file({"embedding": self.embedding.detach().cpu().contiguous()}, partial, metadata=header)
        partial.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> "Tokens":
        """Read what :meth:`save` wrote.

        Raises:
            InputError: the file is missing, is no tokens file, or holds NaN.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"no tokens at {path}; make them with 'keyorbit discover'")
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT:
                    raise InputError(f"{path} is not a keyorbit tokens file")
                embedding = file.get_tensor("embedding")
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} cannot be read as safetensors: {error}") from error
        if not embedding.isfinite().all():
            raise InputError(f"{path} holds values that are not finite; discover the tokens again")
        info = json.loads(header["info"])
        info["layers"] = tuple(info["layers"])
        return cls(embedding, TokensInfo(**info))
