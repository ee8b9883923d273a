"""Watch a UNet run without weights: shapes, dependence on the tokens, and arithmetic, as they happen.

Everything runs on the meta device, where tensors have shapes and gradients but no numbers, so the full-size model
takes seconds and no memory. Nothing here is worked out from a formula: shapes are those of the tensors that the
layers' projections give, and whether a tensor depends on the tokens comes from autograd's graph.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from keyorbit.diffusion.attention import capture_attention
from keyorbit.diffusion.captured import LayerRecord, Pass
from keyorbit.diffusion.choices import Mode
from keyorbit.diffusion.inspection.architectures import Architecture
from keyorbit.diffusion.inspection.passes import install_reference, run_passes, write_out
from keyorbit.diffusion.tokens import Tokens

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
        """Channels of one head."""
        return self.query[-1] // self.heads


@dataclass(frozen=True)
class Recorded:
    """What a :class:`~keyorbit.diffusion.captured.LayerRecord` holds.

    ``held`` counts the float32 values kept alive by it: a tensor that is a slice of a larger one keeps all of that.
    """

    name: str
    unet_pass: Pass
    token_logits: Shape
    held: int
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
        """The layers of one pass."""
        return [layer for layer in self.layers if layer.unet_pass == unet_pass]


@dataclass(frozen=True)
class Observation:
    """The same model four ways.

    ``bare`` has the text rows alone; ``appended`` has the learnable rows behind them and records nothing, as the
    first attempt's logs do; ``isolated`` and ``joint`` are the modes of
    :func:`~keyorbit.diffusion.attention.capture_attention`.
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
        InputError: see :func:`keyorbit.diffusion.attention.capture_attention`.
    """
    unet, vae, text_encoder = architecture.build_unet(), architecture.build_vae(), architecture.build_text_encoder()
    ids = torch.zeros(1, architecture.text_tokens, dtype=torch.long, device="meta")
    context = text_encoder(ids).last_hidden_state
    latents = _latents(architecture, vae)
    if "condition" in latents:
        install_reference(unet)
    runs = {way: _run(unet, context, latents, tokens, way) for way in WAYS}
    parts = {"unet": unet, "vae": vae, "text_encoder": text_encoder}
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    return Observation(architecture, tokens, tuple(context.shape), counts, **runs)


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


def _run(unet: Any, context: Tensor, latents: dict[Pass, Tensor], count: int, way: Way) -> Run:
    text_rows = context.shape[1]
    maps: list[tuple[int, int]] = []
    handles = [
        module.register_forward_pre_hook(lambda _, args: maps.append(tuple(args[0].shape[-2:])))
        for name, module in unet.named_modules()
        if name.rpartition(".")[0].endswith("attentions")
    ]
    seen: list[tuple[str, str, Tensor]] = []
    write_out(unet, lambda layer, name, tensor: seen.append((layer, name, tensor)))
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
    tensors = [output, *(tensor for _, _, tensor in seen), *(r.token_logits for r in records)]
    moved = _dependents(tensors, context, text_rows)
    return Run(
        tuple(context.shape),
        tuple(_layers(unet, tuple(latents), seen, maps, moved)),
        tuple(recorded(layer, moved) for layer in records),
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
    unet: Any,
    passes: Sequence[Pass],
    seen: Sequence[tuple[str, str, Tensor]],
    sizes: Sequence[tuple[int, int]],
    moved: set[Any],
) -> Iterator[LayerShapes]:
    """What was seen, a layer and pass at a time: each gave its four tensors and, before them, its map's size."""
    modules = dict(unet.named_modules())
    groups = [seen[i : i + 4] for i in range(0, len(seen), 4)]
    for i, (group, size) in enumerate(zip(groups, sizes, strict=True)):
        name = group[0][0]
        shapes = {part: tuple(tensor.shape) for _, part, tensor in group}
        depend = frozenset(part for _, part, tensor in group if tensor.grad_fn in moved)
        unet_pass = passes[i * len(passes) // len(groups)]
        yield LayerShapes(name, unet_pass, size, int(modules[name].heads), **shapes, moved=depend)


def recorded(layer: LayerRecord, moved: set[Any]) -> Recorded:
    """What a layer's record holds: its numbers in memory, and whether the tokens reach it, by ``moved`` functions."""
    values = [getattr(layer, field.name) for field in fields(layer)]
    storages = {s._cdata: s.nbytes() for s in (v.untyped_storage() for v in values if isinstance(v, Tensor))}
    reaches = layer.token_logits.grad_fn in moved
    return Recorded(layer.name, layer.unet_pass, tuple(layer.token_logits.shape), sum(storages.values()) // 4, reaches)
