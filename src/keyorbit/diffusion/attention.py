"""Record what the learnable tokens attend to inside a diffusers UNet, without disturbing the UNet.

Two ways to run the tokens, both exact:

- ``isolated``: the image branch sees the text tokens only, so its output is bit-identical to the UNet without
  tokens; the token columns are computed beside it.
- ``joint``: text tokens and learnable tokens share one softmax, so the tokens also feed back into the image.
"""

import inspect
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from keyorbit.diffusion.choices import Mode
from keyorbit.diffusion.maps import LayerMaps
from keyorbit.diffusion.scores import each_head, mean_of_heads, probabilities, split_heads
from keyorbit.errors import InputError
from keyorbit.geometry.views import grid_size

Pass = Literal["condition", "grid"]
Heads = Literal["each", "mean"]
PASSES: tuple[Pass, ...] = ("condition", "grid")
TEXT_TOKENS = 77
_AS_THEY_RUN = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}


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


class _Cut:
    """A context as text rows and learnable rows. All layers of a forward get the same context: it is cut once."""

    def __init__(self, text_tokens: int) -> None:
        self._text_tokens = text_tokens
        self.forget()

    def forget(self) -> None:
        """Before a forward: a context may have been overwritten in place."""
        self._last: tuple[Tensor | None, bool] = None, False
        self._parts: tuple[Tensor, ...] = ()

    def __call__(self, context: Tensor) -> tuple[Tensor, ...]:
        # Gradient checkpointing may run one layer without gradients and the next one with them.
        with_gradients = torch.is_grad_enabled()
        if self._last[0] is not context or self._last[1] != with_gradients:
            self._last = context, with_gradients
            self._parts = split_context(context, self._text_tokens)
        return self._parts


@dataclass(frozen=True)
class _Wanted:
    """What :func:`capture_attention` was asked for, and what its layers share during a forward.

    latents: sizes of the latents; sizes: those of feature maps by their number of positions.
    """

    record: AttentionRecord
    passes: tuple[Pass, ...]
    mode: Mode
    text_tokens: int
    heads: Heads
    normalizer: bool
    queries: bool
    stop_behind: str | None
    cut: _Cut
    latents: dict[Pass, tuple[int, int]] = field(default_factory=dict)
    sizes: dict[tuple[Pass, int], tuple[int, int]] = field(default_factory=dict)

    def start(self, unet_pass: Pass, latent: tuple[int, int]) -> None:
        """A forward begins."""
        if self.latents.get(unet_pass) != latent:
            self.latents[unet_pass] = latent
            self.sizes.clear()
        self.cut.forget()
        self.record._start(unet_pass)

    def size(self, unet_pass: Pass, positions: int) -> tuple[int, int]:
        """Height and width of a layer's feature map."""
        key = unet_pass, positions
        if key not in self.sizes:
            self.sizes[key] = grid_size(positions, *self.latents[unet_pass])
        return self.sizes[key]


class _Projections:
    """A layer that remembers the query and key its processor computes, so that nothing is projected twice.

    A processor reads a dozen attributes of its layer: they are copied, which is cheaper than to forward each.
    """

    def __init__(self, attn: Any) -> None:
        vars(self).update(vars(attn))
        vars(self).update(attn._modules)
        self.query: Tensor | None = None
        self.key: Tensor | None = None
        self._attn = attn
        self.to_q, self.to_k = self._project_query, self._project_key

    def __getattr__(self, name: str) -> Any:
        return getattr(self._attn, name)

    def _project_query(self, *args: Any) -> Any:
        self.query = self._attn.to_q(*args)
        return self.query

    def _project_key(self, *args: Any) -> Any:
        self.key = self._attn.to_k(*args)
        return self.key


class _CaptureProcessor(nn.Module):
    """Stands before a cross-attention layer's own processor, trims the context for it, and records.

    accepts: names of the arguments that the own processor takes.
    """

    def __init__(self, name: str, chained: Any, accepts: frozenset[str], wanted: _Wanted, chosen: bool) -> None:
        super().__init__()
        self.name, self.chained, self.accepts, self.wanted, self.chosen = name, chained, accepts, wanted, chosen
        # diffusers hands a processor those keyword arguments that the signature of its __call__ names, which it reads
        # at every call: here all that the own one takes, and the pass. (A reference that keeps nothing alive: records
        # would stay on the GPU until garbage is collected.)
        signed = partial(type(self).__call__, cast(_CaptureProcessor, weakref.proxy(self)))
        keyword = inspect.Parameter.KEYWORD_ONLY
        vars(signed)["__signature__"] = inspect.Signature([inspect.Parameter(x, keyword) for x in accepts | {"mode"}])
        vars(self)["__call__"] = signed

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | tuple[Tensor, Any] | None = None,
        attention_mask: Tensor | None = None,
        **others: Any,
    ) -> Any:
        wanted, isolated = self.wanted, self.wanted.mode == "isolated"
        unet_pass = _pass_of(others.get("mode"))
        if "mode" not in self.accepts:
            others.pop("mode", None)
        # With an IP-Adapter, the second part is of pictures, for its own projections.
        context, *pictures = (
            encoder_hidden_states if isinstance(encoder_hidden_states, tuple) else [encoder_hidden_states]
        )
        if context is None:
            raise InputError(f"{self.name} got no context; capture works on cross-attention layers")
        if self.chosen:
            self._check(context)
        if pictures and _takes_no_pictures(self.chained):
            raise InputError(
                f"{self.name} got a context with a part of pictures, as an IP-Adapter makes it, and its "
                f"{type(self.chained).__name__} takes none: pipe.load_ip_adapter installs processors that do"
            )
        seen = tokens = context
        if isolated:
            seen, tokens = wanted.cut(context)
        mask, bias = _masks(attention_mask, wanted.text_tokens, context.shape[1], isolated)
        layer = attn
        if observes := self.chosen and unet_pass in wanted.passes:
            layer = _Projections(attn)
        given = (seen, *pictures) if pictures else seen
        out = self.chained(layer, hidden_states, encoder_hidden_states=given, attention_mask=mask, **others)
        if observes:
            query = attn.to_q(hidden_states) if layer.query is None else layer.query
            key = attn.to_k(_normed(attn, seen)) if layer.key is None else layer.key
            keys = [key]
            if isolated:
                keys.append(attn.to_k(_normed(attn, tokens)) if tokens.shape[1] else key[:, :0])
            with without_autocast(query.device.type):
                self._observe(unet_pass, attn, query, keys, bias)
        if wanted.stop_behind == self.name:
            raise _LastLayerSeen(unet_pass)
        return out

    def _check(self, context: Tensor) -> None:
        """Raise InputError for a context without learnable rows; where queries are kept these may come later."""
        wanted = self.wanted
        if context.shape[1] < wanted.text_tokens or not (context.shape[1] > wanted.text_tokens or wanted.queries):
            raise InputError(
                f"{self.name} got a context of {context.shape[1]} rows, and with {wanted.text_tokens} of text none is "
                "left for learnable tokens: append these (tokens.append_to(context)), or give text_tokens"
            )

    def _observe(self, unet_pass: Pass, attn: Any, query: Tensor, keys: Sequence[Tensor], bias: Tensor | None) -> None:
        """Record a layer. ``keys`` are the text's and the tokens', or both in one tensor."""
        wanted, scale = self.wanted, attn.scale
        size = wanted.size(unet_pass, query.shape[1])
        scaled = None
        if wanted.queries:
            query, scale = query.float() * scale, 1.0
            scaled = split_heads(query, attn.heads)
        read = each_head if wanted.heads == "each" else mean_of_heads
        record = read(query, keys, wanted.text_tokens, attn.heads, scale, wanted.normalizer, bias)
        wanted.record._add(LayerRecord(self.name, unet_pass, size, *record, scaled))


def _takes_no_pictures(processor: Any) -> bool:
    """Of diffusers' processors those for IP-Adapters have it in their name; others are trusted."""
    kind = type(processor)
    return kind.__module__.startswith("diffusers.") and "IPAdapter" not in kind.__name__


def _normed(attn: Any, context: Tensor) -> Tensor:
    """The context as a layer projects it to keys."""
    normed: Tensor = context if attn.norm_cross is None else attn.norm_encoder_hidden_states(context)
    return normed


def _masks(
    mask: Tensor | None, text_tokens: int, rows: int, isolated: bool
) -> tuple[Tensor | None, Float[Tensor, "batch _ row"] | None]:
    """The mask for the layer's own processor, and the bias on all rows' logits; the tokens' is 0 if it has none.

    diffusers makes a bias of it, ``[batch 1 row]``: 0 for rows that count, -10000 for others. Whoever masks the text
    does not know of the tokens behind it.
    """
    if mask is None:
        return None, None
    columns = mask.shape[-1]
    if mask.ndim != 3 or columns not in (text_tokens, rows):
        raise InputError(
            f"a mask of shape {list(mask.shape)} does not fit a context of {text_tokens} text rows and "
            f"{rows - text_tokens} learnable ones: give encoder_attention_mask a column for each row, or each text row"
        )
    whole = nn.functional.pad(mask, (0, rows - columns))
    return whole[..., :text_tokens] if isolated else whole, whole.float()


def split_context(
    context: Float[Tensor, "batch all width"], text_tokens: int
) -> tuple[Float[Tensor, "batch text width"], Float[Tensor, "batch token width"]]:
    """The text rows, and the learnable rows that :meth:`keyorbit.diffusion.tokens.Tokens.append_to` put behind them.

    Both get the strides of a tensor of their own: with others a product may take another kernel, whose last bits
    differ. (A slice of a single item counts as contiguous and keeps the whole context's stride.)
    """
    text, tokens = (part.flatten(0, 1).view(part.shape) for part in context.tensor_split([text_tokens], dim=1))
    return text, tokens


def cross_attention_layers(unet: nn.Module, pattern: str | Sequence[str] = "*") -> list[str]:
    """The names of a UNet's cross-attention layers that match a glob pattern (or one of several), as they run.

    Names are the module paths, such as ``up_blocks.1.attentions.0.transformer_blocks.0.attn2``; patterns match from
    the start and may leave out the middle: ``"up_blocks.*.attn2"``. Layers whose queries are moments and not places, as
    in Stable Video Diffusion's temporal blocks, have no map and are not among them.

    Raises:
        InputError: nothing matches, or the model has no cross-attention.
    """
    return _chosen(_layers_with_context(unet), pattern, unet)


def _chosen(layers: Mapping[str, Any], pattern: str | Sequence[str], unet: nn.Module) -> list[str]:
    patterns = [pattern] if isinstance(pattern, str) else list(pattern)
    cross = [name for name in layers if "temporal" not in name]
    if not cross:
        raise InputError(
            f"{type(unet).__name__} has no layer of cross-attention ('attn2' with a context), where tokens are read: "
            "models whose text and picture share one attention (Stable Diffusion 3, Flux) cannot be captured"
        )
    # diffusers lists the middle block of a UNet behind the up blocks, and runs it before them.
    cross.sort(key=lambda name: _AS_THEY_RUN.get(name.split(".")[0], 0))
    found = [name for name in cross if any(fnmatchcase(name, p) for p in patterns)]
    if not found:
        raise InputError(f"no cross-attention layer matches {pattern!r}; there are: {', '.join(cross)}")
    for name in found:
        if getattr(layers[name], "norm_q", None) is not None or isinstance(layers[name].norm_cross, nn.GroupNorm):
            raise InputError(
                f"{name} of {type(unet).__name__} normalises its queries, or its context over all rows: its logits are "
                "not those of queries and keys, and cannot be captured"
            )
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
        unet: a diffusers UNet, before or after its pipeline installed processors of its own; also one with an
            IP-Adapter, a motion adapter or of videos, a ControlNet, or a transformer with cross-attention (PixArt).
            ``encoder_attention_mask`` may have a column for each text row, or for each row; masked rows do not count.
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
    attentions = _layers_with_context(unet)
    chosen = _chosen(attentions, layers, unet)
    installed = {name: attention.get_processor() for name, attention in attentions.items()}
    if any(isinstance(processor, _CaptureProcessor) for processor in installed.values()):
        raise InputError("attention of this UNet is being captured already; end that with block first")
    record = AttentionRecord()
    last = chosen[-1] if stop else None
    wanted = _Wanted(record, tuple(passes), mode, text_tokens, heads, normalizer, queries, last, _Cut(text_tokens))

    def note_forward(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sample = args[0] if args else kwargs["sample"] if "sample" in kwargs else kwargs["hidden_states"]
        reading: Mapping[str, Any] = kwargs.get("cross_attention_kwargs") or {}
        wanted.start(_pass_of(reading.get("mode")), (sample.shape[-2], sample.shape[-1]))

    # Layers that are not chosen are left alone where they see the whole context.
    watched = chosen if mode == "joint" else list(attentions)
    accepts = {kind: _named_parameters(kind) for kind in {type(processor) for processor in installed.values()}}
    hook = unet.register_forward_pre_hook(note_forward, with_kwargs=True)
    try:
        for name in watched:
            chained = installed[name]
            processor = _CaptureProcessor(name, chained, accepts[type(chained)], wanted, name in chosen)
            attentions[name].set_processor(processor)
        with _returning_early(unet, wanted.passes) if stop else nullcontext():
            yield record
    finally:
        hook.remove()
        for name in watched:
            attentions[name].set_processor(installed[name])


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


def without_autocast(device_type: str) -> Any:
    """Scores are float32 whatever the UNet computes in."""
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _pass_of(mode: str | None) -> Pass:
    """The condition pass is the one that writes the reference (``mode="w"``)."""
    return "condition" if mode == "w" else "grid"


def _layers_with_context(unet: nn.Module) -> dict[str, Any]:
    """The layers that read a context, by name, in the order in which they are registered.

    The UNet's own ``attn_processors`` and ``set_attn_processor`` look for attributes of all modules: 10 ms a capture.
    """
    # Bound to the UNet inside a wrapper (compiled, PEFT).
    setter: Any = getattr(unet, "set_attn_processor", unet.forward)
    found: dict[str, Any] = {}
    _find_layers(setter.__self__, "", found)
    return found


def _find_layers(module: nn.Module, within: str, found: dict[str, Any]) -> None:
    for name, child in module._modules.items():
        if name == "attn2" and getattr(child, "is_cross_attention", False):
            found[within + name] = child
        elif child is not None:
            _find_layers(child, f"{within}{name}.", found)


def _named_parameters(processor: type) -> frozenset[str]:
    return frozenset(inspect.signature(processor.__call__).parameters)
