"""What a capture keeps of each layer that it recorded."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from keyorbit.diffusion.scores import probabilities
from keyorbit.errors import InputError

Pass = Literal["condition", "grid"]
PASSES: tuple[Pass, ...] = ("condition", "grid")


@dataclass(frozen=True)
class LayerRecord:
    """What one cross-attention layer computed in one pass, in float32; with averaged heads, ``head`` is 1.

    ``text_normalizer`` is the log-sum-exp of the text tokens' logits: with it, the softmax over all tokens follows
    from the token columns alone. That softmax is not linear, so with averaged heads ``mean_probabilities`` are kept
    in its place. ``query`` is already scaled, so ``query · key`` is the logit. What was not asked for is None.
    """

    name: str
    unet_pass: Pass
    size: tuple[int, int]
    token_logits: Float[Tensor, "batch head query token"]
    text_normalizer: Float[Tensor, "batch head query"] | None = None
    mean_probabilities: Float[Tensor, "batch head query token"] | None = None
    query: Float[Tensor, "batch all_heads query channel"] | None = None

    @property
    def probabilities(self) -> Float[Tensor, "batch head query token"]:
        """The token columns of the softmax over text and learnable tokens together (rows sum to at most 1).

        Raises:
            InputError: captured with ``normalizer=False``.
        """
        if self.mean_probabilities is not None:
            return self.mean_probabilities
        if self.text_normalizer is None:
            raise InputError(f"{self.name} was captured with normalizer=False: only its logits are known")
        return probabilities(self.token_logits, self.text_normalizer)
