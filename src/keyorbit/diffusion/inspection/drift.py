"""How far the tokens move the generated views from the original ones, in both modes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from keyorbit.diffusion.attention import capture_attention
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.layers import cross_attention_layers
from keyorbit.diffusion.tokens import Tokens
from keyorbit.geometry.views import split_views

COUNTS = (1, 4, 16, 64)
NORMS = (1.0, 4.0)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Drift:
    """The change that some tokens make.

    ``norm`` is a token's length over the mean length of the model's text rows. ``psnr`` (dB) and ``largest``
    (0…1) compare each view in joint mode with the same view without tokens; ``isolated_max`` is the largest change in
    isolated mode, ``isolated_equal`` whether all bits are the same.
    """

    tokens: int
    norm: float
    psnr: tuple[float, ...]
    largest: tuple[float, ...]
    isolated_max: float
    isolated_equal: bool


def measure_drift(
    backend: Zero123PlusBackend,
    picture: Image.Image | None = None,
    counts: Sequence[int] = COUNTS,
    norms: Sequence[float] = NORMS,
    steps: int = 28,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Drift]:
    """Generate the same views with more and longer tokens.

    Tokens look like the model's text rows, and fewer are the first of more. Every generation has the same noise.
    Without a picture a drawn box stands in.
    """
    rows = backend.text_statistics(torch.Generator().manual_seed(seed)).float().cpu()
    tokens = Tokens.initialise(rows, max(counts), torch.Generator().manual_seed(seed + 1)).embedding.detach()
    tokens = tokens * (rows.norm(dim=-1).mean() / tokens.norm(dim=-1, keepdim=True))
    image = picture or draw_box()
    layer = cross_attention_layers(backend.unet)[0]  # one recorded layer: capture is here to trim the context

    def views(chosen: Tensor | None, isolated: bool = False) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        if not isolated:
            return split_views(backend.generate([image], generator, steps, tokens=chosen)[0], backend.layout)
        with capture_attention(backend.unet, layer):
            return split_views(backend.generate([image], generator, steps, tokens=chosen)[0], backend.layout)

    original = views(None)
    found = []
    for norm in norms:
        for count in counts:
            chosen = (norm * tokens[:count]).to(backend.device)
            found.append(_compare(original, views(chosen), views(chosen, isolated=True), count, norm))
            if progress is not None:
                progress("drift", len(found), len(norms) * len(counts))
    return found


def _compare(
    original: Float[Tensor, "channel view height width"],
    joint: Float[Tensor, "channel view height width"],
    isolated: Float[Tensor, "channel view height width"],
    count: int,
    norm: float,
) -> Drift:
    squares = (joint - original).square().mean((0, 2, 3))
    largest = (joint - original).abs().amax((0, 2, 3))
    decibels = -10 * torch.log10(squares.clamp_min(1e-12))  # 120 dB stands for no change
    return Drift(
        count,
        norm,
        tuple(decibels.tolist()),
        tuple(largest.tolist()),
        float((isolated - original).abs().max()),
        torch.equal(isolated, original),
    )


def draw_box(side: int = 256) -> Image.Image:
    """A box in three shades on white, for when no picture is given."""
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    top, left, right = (
        ((0.5, 0.2), (0.8, 0.35), (0.5, 0.5), (0.2, 0.35)),
        ((0.2, 0.35), (0.5, 0.5), (0.5, 0.85), (0.2, 0.7)),
        ((0.5, 0.5), (0.8, 0.35), (0.8, 0.7), (0.5, 0.85)),
    )
    for corners, shade in ((top, "#d07050"), (left, "#a04830"), (right, "#703020")):
        draw.polygon([(x * side, y * side) for x, y in corners], fill=shade)
    return image
