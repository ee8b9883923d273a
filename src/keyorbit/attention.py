"""Record what the learnable tokens attend to inside a diffusers UNet, without disturbing the UNet.

Two ways to run the tokens, both exact:

- ``isolated``: the image branch sees the text tokens only, so its output is bit-identical to the UNet without
  tokens; the token columns are computed beside it.
- ``joint``: text tokens and learnable tokens share one softmax, so the tokens also feed back into the image.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from keyorbit.errors import InputError
from keyorbit.heatmaps import LayerMaps
from keyorbit.views import grid_size

Mode = Literal["isolated", "joint"]
Pass = Literal["condition", "grid"]
PASSES: tuple[Pass, ...] = ("condition", "grid")
TEXT_TOKENS = 77


@dataclass(frozen=True)
class LayerRecord:
    """What one cross-attention layer computed in one pass, in float32.

    ``query`` is already scaled, so ``query · key`` is the logit. ``text_normalizer`` is the log-sum-exp of the
    text tokens' logits: with it, the softmax over all tokens follows from the token columns alone.
    """

    name: str
    unet_pass: Pass
    size: tuple[int, int]
    query: Float[Tensor, "batch head query channel"]
    token_logits: Float[Tensor, "batch head query token"]
    text_normalizer: Float[Tensor, "batch head query"]

    @property
    def probabilities(self) -> Float[Tensor, "batch head query token"]:
        """The token columns of the softmax over text and learnable tokens together (rows sum to at most 1)."""
        normalizer = torch.logaddexp(self.text_normalizer, self.token_logits.logsumexp(-1))
        return (self.token_logits - normalizer[..., None]).exp()


class AttentionRecord:
    """The layers recorded by :func:`capture_attention`, in the order in which the UNet ran them.

    A new forward of the same pass replaces the records of the one before.
    """

    def __init__(self) -> None:
        self._layers: dict[tuple[Pass, str], LayerRecord] = {}

    def layers(self, unet_pass: Pass = "grid") -> list[LayerRecord]:
        """The recorded layers of one pass.

        Raises:
            InputError: that pass did not run inside the ``with`` block, or was not asked for.
        """
        found = [record for (which, _), record in self._layers.items() if which == unet_pass]
        if not found:
            raise InputError(f"no attention of the {unet_pass} pass was recorded: run it inside the with block")
        return found

    def token_logits(self, unet_pass: Pass = "grid") -> list[LayerMaps]:
        """Per layer, the logits of the learnable tokens, ready for :func:`keyorbit.heatmaps.view_maps`."""
        return [LayerMaps(r.name, r.token_logits, r.size) for r in self.layers(unet_pass)]

    def token_maps(self, unet_pass: Pass = "grid") -> list[LayerMaps]:
        """Per layer, the learnable tokens' columns of the softmax over all tokens (the attention maps)."""
        return [LayerMaps(r.name, r.probabilities, r.size) for r in self.layers(unet_pass)]

    def _start(self, unet_pass: Pass) -> None:
        self._layers = {key: record for key, record in self._layers.items() if key[0] != unet_pass}

    def _add(self, record: LayerRecord) -> None:
        self._layers[record.unet_pass, record.name] = record


class _CaptureProcessor(nn.Module):
    """Stands before a cross-attention layer's own processor, trims the context for it, and records."""

    def __init__(
        self,
        name: str,
        chained: Any,
        record: AttentionRecord | None,
        passes: Sequence[Pass],
        mode: Mode,
        text_tokens: int,
        sizes: dict[Pass, tuple[int, int]],
    ) -> None:
        super().__init__()
        self.name, self.chained, self.record, self.passes = name, chained, record, passes
        self.mode, self.text_tokens, self.sizes = mode, text_tokens, sizes
        self._accepts = _named_parameters(chained)

    # diffusers hands a processor only the keyword arguments that its __call__ names.
    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        scale: float | None = None,
        mode: str | None = None,
        reference: dict[str, Tensor] | None = None,
    ) -> Any:
        if encoder_hidden_states is None:
            raise InputError(f"{self.name} got no context; capture works on cross-attention layers")
        context = encoder_hidden_states
        unet_pass = _pass_of(mode)
        if self.record is not None and unet_pass in self.passes:
            self.record._add(self._observe(attn, hidden_states, context, unet_pass))
        if self.mode == "isolated":
            # In one piece: a strided context may take another matrix kernel, whose last bits differ.
            encoder_hidden_states = context[:, : self.text_tokens].contiguous()
        offered = {"temb": temb, "scale": scale, "mode": mode, "reference": reference}
        kwargs = {key: value for key, value in offered.items() if key in self._accepts and value is not None}
        return self.chained(attn, hidden_states, encoder_hidden_states, attention_mask, **kwargs)

    def _observe(self, attn: Any, hidden: Tensor, context: Tensor, unet_pass: Pass) -> LayerRecord:
        query = rearrange(attn.to_q(hidden), "b q (h c) -> b h q c", h=attn.heads).float() * attn.scale
        key = rearrange(attn.to_k(context), "b t (h c) -> b h t c", h=attn.heads).float()
        logits = query @ key.transpose(-1, -2)
        size = grid_size(hidden.shape[1], *self.sizes[unet_pass])
        text, tokens = logits[..., : self.text_tokens], logits[..., self.text_tokens :]
        return LayerRecord(self.name, unet_pass, size, query, tokens, text.logsumexp(-1))


def cross_attention_layers(unet: nn.Module, pattern: str | Sequence[str] = "*") -> list[str]:
    """The names of a UNet's cross-attention layers that match a glob pattern (or one of several), in UNet order.

    Names are the module paths, such as ``up_blocks.1.attentions.0.transformer_blocks.0.attn2``; patterns match from
    the start and may leave out the middle: ``"up_blocks.*.attn2"``.

    Raises:
        InputError: nothing matches.
    """
    patterns = [pattern] if isinstance(pattern, str) else list(pattern)
    names = [name.removesuffix(".processor") for name in _processors(unet)]
    cross = [name for name in names if name.endswith("attn2")]
    found = [name for name in cross if any(fnmatchcase(name, p) for p in patterns)]
    if not found:
        raise InputError(f"no cross-attention layer matches {pattern!r}; there are: {', '.join(cross)}")
    return found


@contextmanager
def capture_attention(
    unet: nn.Module,
    layers: str | Sequence[str] = "*",
    passes: Sequence[Pass] = PASSES,
    mode: Mode = "isolated",
    text_tokens: int = TEXT_TOKENS,
) -> Iterator[AttentionRecord]:
    """Record the learnable tokens' cross-attention in every UNet forward inside the ``with`` block.

    The context given to the UNet is ``[batch text_tokens+K width]``, learnable tokens last
    (:meth:`keyorbit.tokens.Tokens.append_to`). Only the K columns are kept; gradients flow through them. The
    processors that were installed before run behind ours and are put back at the end, also after an exception. With
    gradient checkpointing, call ``backward`` inside the block: the layers run once more there.

    Args:
        unet: a diffusers UNet, before or after its pipeline installed processors of its own.
        layers: glob pattern(s) on the layers' names; see :func:`cross_attention_layers`.
        passes: which of Zero123++'s two UNet passes to record. A forward that names no pass is a grid pass.
        mode: ``isolated`` or ``joint``; see the module's text.
        text_tokens: context rows before the learnable ones (77 for CLIP).

    Raises:
        InputError: nothing matches ``layers``, or another capture is active on this UNet.
    """
    chosen = set(cross_attention_layers(unet, layers))
    installed = dict(_processors(unet))
    if any(isinstance(processor, _CaptureProcessor) for processor in installed.values()):
        raise InputError("attention of this UNet is being captured already; end that with block first")
    record = AttentionRecord()
    sizes: dict[Pass, tuple[int, int]] = {}

    def note_forward(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sample = args[0] if args else kwargs["sample"]
        reading: Mapping[str, Any] = kwargs.get("cross_attention_kwargs") or {}
        unet_pass = _pass_of(reading.get("mode"))
        sizes[unet_pass] = (sample.shape[-2], sample.shape[-1])
        record._start(unet_pass)

    wrapped = {}
    for key, processor in installed.items():
        name = key.removesuffix(".processor")
        if name.endswith("attn2"):
            kept = record if name in chosen else None
            processor = _CaptureProcessor(name, processor, kept, tuple(passes), mode, text_tokens, sizes)
        wrapped[key] = processor
    hook = unet.register_forward_pre_hook(note_forward, with_kwargs=True)
    try:
        unet.set_attn_processor(wrapped)  # type: ignore[operator]
        yield record
    finally:
        hook.remove()
        unet.set_attn_processor(installed)  # type: ignore[operator]


def _pass_of(mode: str | None) -> Pass:
    """The condition pass is the one that writes the reference (``mode="w"``)."""
    return "condition" if mode == "w" else "grid"


def _processors(unet: nn.Module) -> dict[str, Any]:
    processors: dict[str, Any] = unet.attn_processors  # type: ignore[assignment]
    return processors


def _named_parameters(processor: Any) -> frozenset[str]:
    return frozenset(inspect.signature(processor.__call__).parameters)
