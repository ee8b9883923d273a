"""Time and peak memory of the UNet's passes: bare, captured both ways, and with every attention map stored.

The times are interleaved in one process, a round of all ways after the other, so that a machine that slows down
slows all of them. On the CPU each way's peak memory is that of a process of its own, which holds the UNet alone.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from keyorbit.devices import AUTO
from keyorbit.diffusion.attention import capture_attention
from keyorbit.diffusion.backends.loading import device_and_dtype, load_backend
from keyorbit.diffusion.backends.reference_attention import ReferenceAttention
from keyorbit.diffusion.captured import Pass
from keyorbit.diffusion.choices import FROM_FOLDER, ViewChoice
from keyorbit.diffusion.inspection.architectures import ARCHITECTURES, Architecture, load_architecture
from keyorbit.diffusion.inspection.passes import install_reference, run_passes, write_out
from keyorbit.diffusion.inspection.variants import CAPTURES, Cost, Variant

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Subject:
    """What is measured; ``random`` weights are enough, since time and memory do not depend on their values.

    ``device`` and ``dtype`` are those of :func:`keyorbit.load_backend`. A type that is chosen (``auto``) is float16 for
    random weights on a GPU, whose maps say nothing. ``views`` is how the model's views lie, where somebody says so.
    """

    model: str
    tokens: int = 16
    random: bool = False
    device: str = AUTO
    dtype: str = AUTO
    views: ViewChoice = FROM_FOLDER


def measure(
    subject: Subject, variants: Sequence[Variant] = CAPTURES, repeats: int = 3, progress: Progress | None = None
) -> list[Cost]:
    """Time and peak memory of both passes on random inputs, no gradients, batch 1.

    Raises:
        InputError: the model cannot be loaded, or there is no such device or type.
    """
    on_cpu = device_and_dtype(subject.device, subject.dtype)[0].type == "cpu"
    done, total = 0, len(variants) * (repeats + on_cpu) + 1

    def tick(stage: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(stage, done, total)

    peaks: dict[Variant, int | None] = {}
    if on_cpu:  # before this process grows: some systems count the parent's memory as the child's
        for variant in variants:
            peaks[variant] = _in_a_process_of_its_own(replace(subject, random=True), variant)
            tick(f"memory {variant}")
    bench = _Bench(subject)
    bench.run(variants[0])
    tick("warm-up")
    times: dict[Variant, list[float]] = {variant: [] for variant in variants}
    for _ in range(repeats):
        for variant in variants:
            seconds, peak = bench.run(variant)
            times[variant].append(seconds)
            peaks.setdefault(variant, peak)
            tick(f"time {variant}")
    return [Cost(variant, tuple(times[variant]), peaks[variant]) for variant in variants]


class _Bench:
    """A UNet and its inputs, ready to run every way."""

    def __init__(self, subject: Subject) -> None:
        architecture = load_architecture(subject.model, subject.views.layout)
        generator = torch.Generator().manual_seed(0)
        if subject.random or subject.model in ARCHITECTURES:
            device, dtype = device_and_dtype(subject.device, subject.dtype)
            self.unet = random_weights(architecture.build_unet(), device, dtype, generator)
        else:
            views = subject.views
            backend = load_backend(subject.model, subject.device, subject.dtype, rig=views.rig, layout=views.layout)
            self.unet = backend.unet
        if architecture.condition_size is not None:
            install_reference(self.unet)
        self.text = architecture.text_tokens
        like = {"device": self.unet.device, "dtype": self.unet.dtype}
        width = self.unet.config.cross_attention_dim
        self.context = torch.randn(1, self.text + subject.tokens, width, generator=generator).to(**like)
        self.latents = {
            which: torch.randn(shape, generator=generator).to(**like) for which, shape in _shapes(architecture).items()
        }

    @torch.no_grad()
    def run(self, variant: Variant) -> tuple[float, int | None]:
        """Seconds and, on a GPU, peak bytes."""
        gpu = None if self.unet.device.type == "cpu" else torch.get_device_module(self.unet.device)
        if gpu is not None:
            gpu.synchronize()
            gpu.reset_peak_memory_stats()
        context = self.context[:, : self.text] if variant == "bare" else self.context
        with _prepared(self.unet, variant, self.text):
            began = time.perf_counter()
            run_passes(self.unet, self.latents, context)
            if gpu is not None:
                gpu.synchronize()
            seconds = time.perf_counter() - began
        return seconds, None if gpu is None else int(gpu.max_memory_allocated())


def random_weights(unet: Any, device: torch.device, dtype: torch.dtype, generator: torch.Generator) -> Any:
    """Give a UNet or VAE from the meta device memory, and weights that keep activations near unit size.

    They are drawn where the generator is.
    """
    unet = nn.Module.to(unet, dtype).to_empty(device=device)
    for name, weight in unet.named_parameters():
        if weight.ndim == 1:
            weight.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            spread = weight[0].numel() ** -0.5
            drawn = torch.empty(weight.shape, dtype=dtype, device=generator.device)
            weight.copy_(drawn.normal_(0.0, spread, generator=generator))
    return unet


def _shapes(architecture: Architecture) -> dict[Pass, tuple[int, ...]]:
    factor = 2 ** (len(architecture.vae["block_out_channels"]) - 1)
    height, width = architecture.picture_size
    channels = int(architecture.unet.get("in_channels", 4))
    shapes: dict[Pass, tuple[int, ...]] = {"grid": (1, channels, height // factor, width // factor)}
    if architecture.condition_size is not None:
        side = architecture.condition_size // factor
        shapes["condition"] = (1, channels, side, side)
    return shapes


@contextmanager
def _prepared(unet: Any, variant: Variant, text: int) -> Iterator[None]:
    """The UNet's processors as the variant wants them, and as they were afterwards."""
    if variant == "bare":
        yield
    elif variant in ("isolated", "joint"):
        with capture_attention(unet, mode="joint" if variant == "joint" else "isolated", text_tokens=text):
            yield
    else:
        installed, stored = dict(unet.attn_processors), list[Tensor]()
        write_out(unet, lambda layer, name, tensor: stored.append(tensor) if name == "probabilities" else None)
        if variant == "unfused":
            _unfuse_self_attention(unet)
        try:
            yield
        finally:
            unet.set_attn_processor(installed)


def _unfuse_self_attention(unet: Any) -> None:
    processors = dict(unet.attn_processors)
    for key, processor in processors.items():
        if key.endswith("attn1.processor"):
            referring = isinstance(processor, ReferenceAttention)
            processors[key] = ReferenceAttention(key, AttnProcessor()) if referring else AttnProcessor()
    unet.set_attn_processor(processors)


def _in_a_process_of_its_own(subject: Subject, variant: Variant) -> int | None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (subject, variant))


def _peak(subject: Subject, variant: Variant) -> int | None:
    _Bench(subject).run(variant)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
