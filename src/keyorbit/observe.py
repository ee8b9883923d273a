"""Watch a UNet run without weights: shapes, dependence on the tokens, and arithmetic, as they happen.

Everything runs on the meta device, where tensors have shapes and gradients but no numbers, so the full-size model
takes seconds and no memory. Nothing here is worked out from a formula: shapes come from hooks on the layers'
projections, and whether a tensor depends on the tokens comes from autograd's graph.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from keyorbit.architectures import Architecture
from keyorbit.attention import LayerRecord, Mode, Pass, capture_attention
from keyorbit.backends.zero123plus import ReferenceAttention
from keyorbit.tokens import Tokens

Shape = tuple[int, ...]
Way = Literal["bare", "appended", "isolated", "joint"]
WAYS: tuple[Way, ...] = ("bare", "appended", "isolated", "joint")


@dataclass(frozen=True)
class LayerShapes:
    """One cross-attention layer in one pass.

    ``size`` is rows × columns of the feature map. ``query`` is ``[batch positions channels]``, ``key`` and ``value``
    ``[batch rows channels]``, ``probabilities`` ``[batch·heads positions rows]``. ``moved`` names those of them that
    would change with the learnable tokens' values.
    """

    name: str
    unet_pass: Pass
    size: tuple[int, int]
    heads: int
    query: Shape
    key: Shape
    value: Shape
    probabilities: Shape
    moved: frozenset[str]

    @property
    def head_width(self) -> int:
        return self.query[-1] // self.heads


@dataclass(frozen=True)
class Recorded:
    """What a :class:`~keyorbit.attention.LayerRecord` holds: shapes of its tensors by name."""

    name: str
    unet_pass: Pass
    tensors: dict[str, Shape]
    reaches_tokens: bool


@dataclass(frozen=True)
class Run:
    """Every pass of the UNet, observed once. FLOPs count multiply and add as two."""

    context: Shape
    layers: tuple[LayerShapes, ...]
    recorded: tuple[Recorded, ...]
    latents: dict[Pass, Shape]
    output: Shape
    output_moved: bool
    flops: int
    cross_attention_flops: int

    def of(self, unet_pass: Pass) -> list[LayerShapes]:
        return [layer for layer in self.layers if layer.unet_pass == unet_pass]


@dataclass(frozen=True)
class Observation:
    """The same model four ways.

    ``bare`` has the text rows alone; ``appended`` has the learnable rows behind them and records nothing, as the
    first attempt's logs do; ``isolated`` and ``joint`` are :func:`~keyorbit.attention.capture_attention`'s modes.
    """

    architecture: Architecture
    tokens: int
    text_embeddings: Shape
    parameters: dict[str, int]
    bare: Run
    appended: Run
    isolated: Run
    joint: Run


def observe(architecture: Architecture, tokens: int = 16) -> Observation:
    """Run text encoder, VAE and UNet of a model on the meta device, four ways.

    Raises:
        InputError: see :func:`keyorbit.attention.capture_attention`.
    """
    unet, vae, text_encoder = architecture.build_unet(), architecture.build_vae(), architecture.build_text_encoder()
    ids = torch.zeros(1, architecture.text_tokens, dtype=torch.long, device="meta")
    context = text_encoder(ids).last_hidden_state
    latents = _latents(architecture, vae)
    watch = _install(unet, two_passes="condition" in latents)
    runs = {way: _run(unet, watch, context, latents, tokens, way) for way in WAYS}
    parts = {"unet": unet, "vae": vae, "text_encoder": text_encoder}
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    return Observation(architecture, tokens, tuple(context.shape), counts, **runs)


def run_passes(unet: nn.Module, latents: dict[Pass, Tensor], context: Tensor) -> Tensor:
    """The UNet as the model's pipeline calls it in one denoising step: condition pass, if it has one, then grid."""
    timestep = torch.full((context.shape[0],), 300, device=context.device)
    if "condition" not in latents:
        alone: Tensor = unet(latents["grid"], timestep, context).sample
        return alone
    reference: dict[str, Tensor] = {}
    unet(latents["condition"], timestep, context, cross_attention_kwargs={"mode": "w", "reference": reference})
    both: Tensor = unet(
        latents["grid"], timestep, context, cross_attention_kwargs={"mode": "r", "reference": reference}
    ).sample
    return both


def install_reference(unet: Any) -> None:
    """Let the grid pass read what the condition pass wrote, unless the UNet's backend has done so already."""
    installed = unet.attn_processors
    if not any(isinstance(processor, ReferenceAttention) for processor in installed.values()):
        unet.set_attn_processor({key: ReferenceAttention(key, value) for key, value in installed.items()})


class _Watch(nn.Module):
    """The innermost processor of cross-attention: attention written out (never fused), its tensors noted."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = AttnProcessor()
        self.seen: list[dict[str, Tensor]] = []

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Any:
        noted: dict[str, Tensor] = {}
        with _noting(attn, noted):
            out = self.plain(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        self.seen.append(noted)
        return out


@contextmanager
def _noting(attn: Any, noted: dict[str, Tensor]) -> Iterator[None]:
    """Keep what the projections and the softmax give while the layer's own processor runs."""
    scores = attn.get_attention_scores

    def keep_scores(*args: Any) -> Tensor:
        noted["probabilities"] = scores(*args)
        return noted["probabilities"]

    def keep(name: str) -> Any:
        return lambda module, args, out: noted.__setitem__(name, out)

    names = {"query": "to_q", "key": "to_k", "value": "to_v"}
    handles = [getattr(attn, part).register_forward_hook(keep(name)) for name, part in names.items()]
    attn.get_attention_scores = keep_scores
    try:
        yield
    finally:
        del attn.get_attention_scores
        for handle in handles:
            handle.remove()


def _install(unet: Any, two_passes: bool) -> dict[str, _Watch]:
    """Watching processors in every cross-attention layer, behind the reference attention if there are two passes."""
    names = [key.removesuffix(".processor") for key in unet.attn_processors if key.endswith("attn2.processor")]
    watch = {name: _Watch() for name in names}
    unet.set_attn_processor(
        {key: watch.get(key.removesuffix(".processor"), value) for key, value in unet.attn_processors.items()}
    )
    if two_passes:
        install_reference(unet)
    return watch


def _latents(architecture: Architecture, vae: Any) -> dict[Pass, Tensor]:
    """The latents that the VAE makes of pictures of the model's sizes."""
    sizes: dict[Pass, tuple[int, int]] = {}
    if architecture.condition_size is not None:
        sizes["condition"] = (architecture.condition_size, architecture.condition_size)
    sizes["grid"] = architecture.picture_size
    with torch.no_grad():
        return {
            which: vae.encode(torch.empty(1, 3, *size, device="meta")).latent_dist.mean for which, size in sizes.items()
        }


def _run(
    unet: Any, watch: dict[str, _Watch], context: Tensor, latents: dict[Pass, Tensor], count: int, way: Way
) -> Run:
    text_rows = context.shape[1]
    maps: list[tuple[int, int]] = []
    handles = [
        module.register_forward_pre_hook(lambda _, args: maps.append(tuple(args[0].shape[-2:])))
        for name, module in unet.named_modules()
        if name.rpartition(".")[0].endswith("attentions")
    ]
    for seen in watch.values():
        seen.seen.clear()
    capture: Any = nullcontext(None)
    if way != "bare":
        context = Tokens(torch.zeros(count, context.shape[-1])).to("meta").append_to(context)
    if way in ("isolated", "joint"):
        mode: Mode = "joint" if way == "joint" else "isolated"
        capture = capture_attention(unet, mode=mode, text_tokens=text_rows)
    counter = FlopCounterMode(display=False)
    with capture as record, counter:
        output = run_passes(unet, latents, context)
    for handle in handles:
        handle.remove()
    counts = counter.get_flop_counts()
    records = [] if record is None else [layer for which in latents for layer in record.layers(which)]
    noted = [t for seen in watch.values() for tensors in seen.seen for t in tensors.values()]
    moved = _dependents([output, *noted, *(r.token_logits for r in records)], context, text_rows)
    return Run(
        tuple(context.shape),
        tuple(_layers(unet, watch, tuple(latents), maps, moved)),
        tuple(_recorded(layer, moved) for layer in records),
        {which: tuple(latent.shape) for which, latent in latents.items()},
        tuple(output.shape),
        output.grad_fn in moved,
        counter.get_total_flops(),
        sum(sum(ops.values()) for name, ops in counts.items() if name.endswith("attn2")),
    )


def _dependents(tensors: Sequence[Tensor], context: Tensor, text_rows: int) -> set[Any]:
    """The nodes of autograd's graph whose values depend on the tokens, the context's last rows.

    Autograd itself would also follow a slice that holds text rows only; here such a slice ends the way.
    """
    readers: dict[Any, list[Any]] = defaultdict(list)
    visited: set[Any] = set()
    waiting: list[Any] = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    while waiting:
        node = waiting.pop()
        if node in visited:
            continue
        visited.add(node)
        for source in (below for below, _ in node.next_functions if below is not None):
            text_only = "Slice" in node.name() and source is context.grad_fn and node._saved_end <= text_rows
            if not text_only:
                readers[source].append(node)
            waiting.append(source)
    moved: set[Any] = set()
    waiting = [context.grad_fn] if context.grad_fn is not None else []
    while waiting:
        node = waiting.pop()
        if node not in moved:
            moved.add(node)
            waiting += readers[node]
    return moved


def _layers(
    unet: Any, watch: dict[str, _Watch], passes: tuple[Pass, ...], maps: list[tuple[int, int]], moved: set[Any]
) -> Iterator[LayerShapes]:
    """Pass by pass, in the order of the UNet's forward; the feature maps were seen in the same order."""
    modules = dict(unet.named_modules())
    order = sorted(watch, key=lambda name: ("down", "mid", "up").index(name.split("_")[0]))
    sizes = iter(maps)
    for number, which in enumerate(passes):
        for name in order:
            seen = watch[name].seen[number]
            yield LayerShapes(
                name,
                which,
                next(sizes),
                int(modules[name].heads),
                tuple(seen["query"].shape),
                tuple(seen["key"].shape),
                tuple(seen["value"].shape),
                tuple(seen["probabilities"].shape),
                frozenset(part for part, tensor in seen.items() if tensor.grad_fn in moved),
            )


def _recorded(layer: LayerRecord, moved: set[Any]) -> Recorded:
    values = {field.name: getattr(layer, field.name) for field in fields(layer)}
    tensors = {name: tuple(value.shape) for name, value in values.items() if isinstance(value, Tensor)}
    return Recorded(layer.name, layer.unet_pass, tensors, layer.token_logits.grad_fn in moved)
