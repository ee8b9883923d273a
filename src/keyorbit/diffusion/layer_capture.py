"""One attention layer during a capture: it gets its part of the context, and what it computes is recorded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from keyorbit.diffusion.captured import LayerRecord, Pass
from keyorbit.diffusion.choices import Mode
from keyorbit.diffusion.context import ContextCut, cut_mask
from keyorbit.diffusion.scores import each_head, mean_of_heads, split_heads, without_autocast
from keyorbit.errors import InputError
from keyorbit.geometry.views import grid_size

Heads = Literal["each", "mean"]


class LastLayerSeen(Exception):
    """Leaves the UNet behind the last chosen layer."""

    def __init__(self, unet_pass: Pass) -> None:
        super().__init__(unet_pass)
        self.unet_pass = unet_pass


@dataclass(frozen=True)
class Wanted:
    """What :func:`keyorbit.diffusion.attention.capture_attention` was asked for, and what layers share in a forward.

    layers: what is recorded; latents: sizes of the latents; rows: those of the context that the model was given; sizes:
    of feature maps by their number of positions.
    """

    passes: tuple[Pass, ...]
    mode: Mode
    text_tokens: int
    heads: Heads
    normalizer: bool
    queries: bool
    stop_behind: str | None
    layers: dict[tuple[Pass, str], LayerRecord] = field(default_factory=dict)
    cut: ContextCut = field(default_factory=ContextCut)
    latents: dict[Pass, tuple[int, int]] = field(default_factory=dict)
    rows: dict[Pass, int] = field(default_factory=dict)
    sizes: dict[tuple[Pass, int], tuple[int, int]] = field(default_factory=dict)

    def __reduce__(self) -> Any:
        """In a copy of the model, without what was recorded: tensors with a gradient cannot be copied."""
        asked = self.passes, self.mode, self.text_tokens, self.heads, self.normalizer, self.queries, self.stop_behind
        return Wanted, asked

    def start(self, unet_pass: Pass, latent: tuple[int, int], rows: int | None) -> None:
        """A forward begins; ``rows`` is None where its context is not known."""
        if self.latents.get(unet_pass) != latent:
            self.latents[unet_pass] = latent
            self.sizes.clear()
        if rows is None:
            self.rows.pop(unet_pass, None)
        else:
            self.rows[unet_pass] = rows
        self.cut.forget()
        for key in [key for key in self.layers if key[0] == unet_pass]:
            del self.layers[key]

    def size(self, unet_pass: Pass, positions: int, name: str) -> tuple[int, int]:
        """Height and width of a layer's feature map."""
        key = unet_pass, positions
        if key not in self.sizes:
            if unet_pass not in self.latents:
                raise InputError(
                    f"{name} ran outside of the captured model: call that itself, not its forward or a part of it"
                )
            try:
                self.sizes[key] = grid_size(positions, *self.latents[unet_pass])
            except ValueError as error:
                raise InputError(f"{name} has no map of the picture's places: {error}") from error
        return self.sizes[key]


class _Projection:
    """What a layer's projection makes of one input, noted as it does, so that nothing is projected twice."""

    def __init__(self, attn: Any, name: str) -> None:
        self.attn, self.name, self.module = attn, name, getattr(attn, name)
        self.expected: Tensor | None = None
        self.made: Tensor | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        """A forward hook."""
        if args[0] is self.expected or (self.made is None and _begins(self.expected, args[0])):
            self.made = out

    def take(self) -> Tensor | None:
        """What was made of the input that was expected; nothing is kept alive."""
        made, self.expected, self.made = self.made, None, None
        # Another module may have been put in its place meanwhile, such as one with a LoRA around it.
        return made if getattr(self.attn, self.name) is self.module else None


def _begins(whole: Tensor | None, part: Tensor) -> bool:
    """Older processors, as of InstantID, find an adapter's pictures at the context's end and project the rest."""
    if whole is None or part.shape[::2] != whole.shape[::2] or part.shape[1] >= whole.shape[1]:
        return False
    return torch.equal(part, whole[:, : part.shape[1]])


def is_captured(layers: Iterable[Any]) -> bool:
    """Whether one of these attention layers is being captured."""
    return any(isinstance(vars(layer).get("forward"), LayerCapture) for layer in layers)


class LayerCapture:
    """Stands before an attention layer's ``forward``: trims the context for it, and records.

    The layer's processor is left alone: whoever exchanges or changes processors meanwhile finds them as they are.
    """

    def __init__(self, name: str, attn: Any, wanted: Wanted, chosen: bool) -> None:
        self.name, self.attn, self.wanted, self.chosen = name, attn, wanted, chosen
        self.forward = attn.forward
        self.own = vars(attn).get("forward")  # accelerate puts one there
        self.to_q, self.to_k = _Projection(attn, "to_q"), _Projection(attn, "to_k")
        self.hooks: list[RemovableHandle] = []
        self.ended = False

    def __reduce__(self) -> Any:
        """In a copy of the model, the layer's forward without capture."""
        return getattr, (self.attn, "forward")

    def install(self) -> None:
        """Begin."""
        vars(self.attn)["forward"] = self
        if self.chosen:
            self.hooks = [x.module.register_forward_hook(x) for x in (self.to_q, self.to_k)]

    def remove(self) -> None:
        """End: the layer is as it was. What others put before this one meanwhile stays, and goes on to the layer."""
        self.ended = True
        inside = vars(self.attn)
        if inside.get("forward") is self:
            del inside["forward"]
            if self.own is not None:
                inside["forward"] = self.own
        for hook in self.hooks:
            hook.remove()

    def __call__(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | tuple[Tensor, Any] | None = None,
        attention_mask: Tensor | None = None,
        **others: Any,
    ) -> Any:
        if self.ended:
            return self.forward(hidden_states, encoder_hidden_states, attention_mask, **others)
        wanted, isolated = self.wanted, self.wanted.mode == "isolated"
        unet_pass = pass_of(others.get("mode"))
        # With an IP-Adapter, the second part is of pictures, for its own projections.
        context, *pictures = (
            encoder_hidden_states if isinstance(encoder_hidden_states, tuple) else [encoder_hidden_states]
        )
        if context is None:
            raise InputError(f"{self.name} got no context; capture works on cross-attention layers")
        self._check(context, bool(pictures), wanted.rows.get(unet_pass))
        seen = tokens = context
        if isolated:
            seen, tokens = wanted.cut(context, wanted.text_tokens)
        mask, bias = cut_mask(attention_mask, wanted.text_tokens, context.shape[1], isolated, hidden_states.shape[0])
        observes = self.chosen and unet_pass in wanted.passes
        if observes:
            self.to_q.expected, self.to_k.expected = hidden_states, seen
        given = (seen, *pictures) if pictures else seen
        out = self.forward(hidden_states, encoder_hidden_states=given, attention_mask=mask, **others)
        if observes:
            query, key = self.to_q.take(), self.to_k.take()
            if query is None:
                query = self._project("to_q", hidden_states)
            if key is None:
                key = self._key(seen)
            keys = [key]
            if not isolated and key.shape[1] != context.shape[1]:
                raise InputError(
                    f"the processor of {self.name} reads the last {context.shape[1] - key.shape[1]} rows of its "
                    "context as something else than text, and the tokens stand there: capture with mode='isolated', "
                    "and count those rows as text_tokens"
                )
            if isolated:
                keys.append(self._key(tokens) if tokens.shape[1] else key[:, :0])
            with without_autocast(query.device.type):
                self._observe(unet_pass, query, keys, bias)
        if wanted.stop_behind == self.name:
            raise LastLayerSeen(unet_pass)
        return out

    def _project(self, name: str, x: Tensor) -> Tensor:
        """As the processor does it: that of Custom Diffusion has projections of its own."""
        project = getattr(self.attn.processor, f"{name}_custom_diffusion", None)
        made: Tensor = getattr(self.attn, name)(x) if project is None else project(x.to(project.weight.dtype))
        return made

    def _key(self, context: Tensor) -> Tensor:
        attn = self.attn
        return self._project("to_k", context if attn.norm_cross is None else attn.norm_encoder_hidden_states(context))

    def _check(self, context: Tensor, pictures: bool, given: int | None) -> None:
        """Raise InputError for a context that the tokens do not end; where queries are kept these may come later."""
        wanted, rows = self.wanted, context.shape[1]
        if given is not None and given != rows:
            raise InputError(
                f"{self.name} got a context of {rows} rows where the model was given {given}: it joins rows of its own "
                "to the text, among which learnable tokens cannot be told"
            )
        if self.chosen and (rows < wanted.text_tokens or not (rows > wanted.text_tokens or wanted.queries)):
            raise InputError(
                f"{self.name} got a context of {rows} rows, and with {wanted.text_tokens} of text none is "
                "left for learnable tokens: append these (tokens.append_to(context)), or give text_tokens"
            )
        if pictures and _takes_no_pictures(self.attn.processor):
            raise InputError(
                f"{self.name} got a context with a part of pictures, as an IP-Adapter makes it, and its "
                f"{type(self.attn.processor).__name__} takes none: pipe.load_ip_adapter installs processors that do"
            )

    def _observe(self, unet_pass: Pass, query: Tensor, keys: Sequence[Tensor], bias: Tensor | None) -> None:
        """Record a layer. ``keys`` are the text's and the tokens', or both in one tensor."""
        wanted, scale, heads = self.wanted, self.attn.scale, self.attn.heads
        size = wanted.size(unet_pass, query.shape[1], self.name)
        scaled = None
        if wanted.queries:
            query, scale = query.float() * scale, 1.0
            scaled = split_heads(query, heads)
        read = each_head if wanted.heads == "each" else mean_of_heads
        text_tokens = keys[0].shape[1] if len(keys) == 2 else wanted.text_tokens
        record = read(query, keys, text_tokens, heads, scale, wanted.normalizer, bias)
        wanted.layers[unet_pass, self.name] = LayerRecord(self.name, unet_pass, size, *record, scaled)


def _takes_no_pictures(processor: Any) -> bool:
    """Of diffusers' processors those for IP-Adapters have it in their name; others are trusted."""
    kind = type(processor)
    return kind.__module__.startswith("diffusers.") and "IPAdapter" not in kind.__name__


def pass_of(mode: Any) -> Pass:
    """The condition pass is the one that writes the reference (``mode="w"``)."""
    return "condition" if mode == "w" else "grid"
