"""Record what the learnable tokens attend to inside a diffusers UNet, without disturbing the UNet.

Two ways to run the tokens, both exact:

- ``isolated``: the image branch sees the text tokens only, so its output is bit-identical to the UNet without
  tokens; the token columns are computed beside it.
- ``joint``: text tokens and learnable tokens share one softmax, so the tokens also feed back into the image.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from keyorbit.diffusion.choices import Mode
from keyorbit.diffusion.maps import LayerMaps
from keyorbit.errors import InputError
from keyorbit.geometry.views import grid_size

Pass = Literal["condition", "grid"]
Heads = Literal["each", "mean"]
PASSES: tuple[Pass, ...] = ("condition", "grid")
TEXT_TOKENS = 77


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
        return _probabilities(self.token_logits, self.text_normalizer)


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
        """Per layer, the logits of the learnable tokens, ready for :func:`keyorbit.diffusion.maps.view_maps`."""
        return [LayerMaps(r.name, r.token_logits, r.size) for r in self.layers(unet_pass)]

    def token_maps(self, unet_pass: Pass = "grid") -> list[LayerMaps]:
        """Per layer, the learnable tokens' columns of the softmax over all tokens (the attention maps)."""
        return [LayerMaps(r.name, r.probabilities, r.size) for r in self.layers(unet_pass)]

    def _start(self, unet_pass: Pass) -> None:
        self._layers = {key: record for key, record in self._layers.items() if key[0] != unet_pass}

    def _add(self, record: LayerRecord) -> None:
        self._layers[record.unet_pass, record.name] = record


class _LastLayerSeen(Exception):
    """Leaves the UNet behind the last chosen layer."""

    def __init__(self, unet_pass: Pass) -> None:
        super().__init__(unet_pass)
        self.unet_pass = unet_pass


@dataclass(frozen=True)
class _Wanted:
    """What :func:`capture_attention` was asked for, and the sizes of the latents that it saw."""

    record: AttentionRecord
    passes: tuple[Pass, ...]
    mode: Mode
    text_tokens: int
    heads: Heads
    normalizer: bool
    queries: bool
    stop_behind: str | None
    sizes: dict[Pass, tuple[int, int]]


class _Projections:
    """A layer that remembers the query and key its processor computes, so that nothing is projected twice."""

    def __init__(self, attn: Any) -> None:
        self._attn = attn
        self.query: Tensor | None = None
        self.key: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._attn, name)

    def to_q(self, *args: Any) -> Any:
        self.query = self._attn.to_q(*args)
        return self.query

    def to_k(self, *args: Any) -> Any:
        self.key = self._attn.to_k(*args)
        return self.key


class _CaptureProcessor(nn.Module):
    """Stands before a cross-attention layer's own processor, trims the context for it, and records."""

    def __init__(self, name: str, chained: Any, wanted: _Wanted, chosen: bool) -> None:
        super().__init__()
        self.name, self.chained, self.wanted, self.chosen = name, chained, wanted, chosen
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
        text, tokens = encoder_hidden_states.tensor_split([self.wanted.text_tokens], dim=1)
        # In one piece: a strided context may take another matrix kernel, whose last bits differ.
        seen = text.contiguous() if self.wanted.mode == "isolated" else encoder_hidden_states
        offered = {"temb": temb, "scale": scale, "mode": mode, "reference": reference}
        kwargs = {key: value for key, value in offered.items() if key in self._accepts and value is not None}
        unet_pass = _pass_of(mode)
        if not self.chosen or unet_pass not in self.wanted.passes:
            out = self.chained(attn, hidden_states, seen, attention_mask, **kwargs)
        else:
            layer = _Projections(attn)
            out = self.chained(layer, hidden_states, seen, attention_mask, **kwargs)
            query = attn.to_q(hidden_states) if layer.query is None else layer.query
            key = attn.to_k(seen) if layer.key is None else layer.key
            token_key = attn.to_k(tokens) if self.wanted.mode == "isolated" else key[:, text.shape[1] :]
            self._observe(unet_pass, attn, query, key[:, : text.shape[1]], token_key)
        if self.wanted.stop_behind == self.name:
            raise _LastLayerSeen(unet_pass)
        return out

    def _observe(self, unet_pass: Pass, attn: Any, query: Tensor, text_key: Tensor, token_key: Tensor) -> None:
        wanted = self.wanted
        averaged = wanted.heads == "mean"
        normalizer = probabilities = scaled = None
        with without_autocast(query.device.type):
            # The scale goes onto the keys, of which there are few.
            token_key, text_key = token_key.float() * attn.scale, text_key.float() * attn.scale
            by_head = _by_head(query, attn.heads)
            if not averaged or wanted.normalizer:
                logits = by_head.float() @ _by_head(token_key, attn.heads).mT
            if wanted.normalizer:
                normalizer = (by_head.float() @ _by_head(text_key, attn.heads).mT).logsumexp(-1)
            if averaged:
                if normalizer is not None:
                    probabilities, normalizer = _probabilities(logits, normalizer).mean(1, keepdim=True), None
                # All heads' channels side by side: their sum of products is the sum over the heads.
                logits = (query.float() @ (token_key / attn.heads).mT)[:, None]
            if wanted.queries:
                scaled = by_head.float() * attn.scale
        size = grid_size(query.shape[1], *wanted.sizes[unet_pass])
        wanted.record._add(LayerRecord(self.name, unet_pass, size, logits, normalizer, probabilities, scaled))


def cross_attention_layers(unet: nn.Module, pattern: str | Sequence[str] = "*") -> list[str]:
    """The names of a UNet's cross-attention layers that match a glob pattern (or one of several), as they run.

    Names are the module paths, such as ``up_blocks.1.attentions.0.transformer_blocks.0.attn2``; patterns match from
    the start and may leave out the middle: ``"up_blocks.*.attn2"``.

    Raises:
        InputError: nothing matches.
    """
    patterns = [pattern] if isinstance(pattern, str) else list(pattern)
    names = [name.removesuffix(".processor") for name in _processors(unet)]
    cross = [name for name in names if name.endswith("attn2")]
    # diffusers lists the middle block behind the up blocks, and runs it before them.
    cross.sort(key=lambda name: ("down_blocks", "mid_block", "up_blocks").index(name.split(".")[0]))
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
    *,
    heads: Heads = "each",
    normalizer: bool = True,
    queries: bool = False,
    stop: bool = False,
) -> Iterator[AttentionRecord]:
    """Record the learnable tokens' cross-attention in every UNet forward inside the ``with`` block.

    The context given to the UNet is ``[batch text_tokens+K width]``, learnable tokens last
    (:meth:`keyorbit.diffusion.tokens.Tokens.append_to`). Only the K columns are kept; gradients flow through them. The
    processors that were installed before run behind ours and are put back at the end, also after an exception. With
    gradient checkpointing, call ``backward`` inside the block: the layers run once more there.

    Args:
        unet: a diffusers UNet, before or after its pipeline installed processors of its own.
        layers: glob pattern(s) on the layers' names; see :func:`cross_attention_layers`.
        passes: which of Zero123++'s two UNet passes to record. A forward that names no pass is a grid pass.
        mode: ``isolated`` or ``joint``; see the module's text.
        text_tokens: context rows before the learnable ones (77 for CLIP).
        heads: ``each`` keeps K columns per head, ``mean`` K columns of logits and K of attention for all heads.
        normalizer: without it only the logits are known, and the text tokens cost nothing.
        queries: keep the scaled queries too, from which the logits of any other token follow.
        stop: leave the UNet behind the last chosen layer. The condition pass then returns None, and **the block ends**
            with the first pass that completes the record (the grid pass, if asked for): what stands behind
            that call in the block does not run. Not for gradient checkpointing or a compiled UNet.

    Raises:
        InputError: nothing matches ``layers``, or another capture is active on this UNet.
    """
    chosen = cross_attention_layers(unet, layers)
    installed = dict(_processors(unet))
    if any(isinstance(processor, _CaptureProcessor) for processor in installed.values()):
        raise InputError("attention of this UNet is being captured already; end that with block first")
    record = AttentionRecord()
    last = chosen[-1] if stop else None
    wanted = _Wanted(record, tuple(passes), mode, text_tokens, heads, normalizer, queries, last, {})

    def note_forward(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sample = args[0] if args else kwargs["sample"]
        reading: Mapping[str, Any] = kwargs.get("cross_attention_kwargs") or {}
        unet_pass = _pass_of(reading.get("mode"))
        wanted.sizes[unet_pass] = (sample.shape[-2], sample.shape[-1])
        record._start(unet_pass)

    wrapped = {}
    for key, processor in installed.items():
        name = key.removesuffix(".processor")
        if name.endswith("attn2"):
            processor = _CaptureProcessor(name, processor, wanted, name in chosen)
        wrapped[key] = processor
    hook = unet.register_forward_pre_hook(note_forward, with_kwargs=True)
    try:
        unet.set_attn_processor(wrapped)  # type: ignore[operator]
        with _returning_early(unet, wanted.passes) if stop else nullcontext():
            yield record
    finally:
        hook.remove()
        unet.set_attn_processor(installed)  # type: ignore[operator]


@contextmanager
def _returning_early(unet: nn.Module, passes: Sequence[Pass]) -> Iterator[None]:
    """Ends the ``with`` block at the pass that completes the record; an earlier pass only ends itself."""
    completing = "grid" if "grid" in passes else "condition"
    own, forward = vars(unet).get("forward"), unet.forward

    def shortened(*args: Any, **kwargs: Any) -> Any:
        try:
            return forward(*args, **kwargs)
        except _LastLayerSeen as seen:
            if seen.unet_pass == completing:
                raise
            return None

    unet.forward = shortened
    try:
        yield
    except _LastLayerSeen:
        pass
    finally:
        del unet.forward
        if own is not None:
            unet.forward = own


def _by_head(x: Float[Tensor, "batch row inner"], heads: int) -> Float[Tensor, "batch head row channel"]:
    return rearrange(x, "b r (h c) -> b h r c", h=heads)


def _probabilities(
    logits: Float[Tensor, "batch head query token"], text_normalizer: Float[Tensor, "batch head query"]
) -> Float[Tensor, "batch head query token"]:
    normalizer = torch.logaddexp(text_normalizer, logits.logsumexp(-1))
    return (logits - normalizer[..., None]).exp()


def without_autocast(device_type: str) -> Any:
    """Scores are float32 whatever the UNet computes in."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _pass_of(mode: str | None) -> Pass:
    """The condition pass is the one that writes the reference (``mode="w"``)."""
    return "condition" if mode == "w" else "grid"


def _processors(unet: nn.Module) -> dict[str, Any]:
    processors: dict[str, Any] = unet.attn_processors  # type: ignore[assignment]
    return processors


def _named_parameters(processor: Any) -> frozenset[str]:
    return frozenset(inspect.signature(processor.__call__).parameters)
