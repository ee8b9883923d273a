"""What a command would do: how much, where, how large, how long. A little of it is done to measure that."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyorbit.cli.terminal import console
from keyorbit.results import number_of

if TYPE_CHECKING:
    from PIL import Image

    from keyorbit.detection.detector import KeypointDetector
    from keyorbit.diffusion.backends.base import Backend
    from keyorbit.discovery.config import DiscoverConfig
    from keyorbit.objects.dataset import ObjectViews

DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, tell what would be done, its size and time; write nothing.")
]
# Of a discovery, objects and steps that are done to measure the others.
_OBJECTS, _STEPS = 2, 3


@dataclass
class Stages:
    """Seconds for each item of a stage, from a progress report."""

    began: float = field(default_factory=time.monotonic)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def __call__(self, stage: str, done: int, total: int, values: dict[str, float]) -> None:
        now = time.monotonic()
        self.seconds.setdefault(stage, []).append(now - self.began)
        self.began = now

    def each(self, stage: str) -> float:
        """The least of an item: the first has to warm up."""
        return min(self.seconds.get(stage, [0.0]))


def tell_detection(
    detector: "KeypointDetector", thing: "ObjectViews", count: int, out: Path, write: Callable[..., object]
) -> dict[str, Any]:
    """Detect on one of ``count`` objects; ``write(folder, detection)`` writes its files."""
    began = time.monotonic()
    with TemporaryDirectory(prefix="keyorbit_") as scratch:
        write(Path(scratch) / "out", detector.detect_object(thing))
        size = sum(path.stat().st_size for path in Path(scratch).rglob("*") if path.is_file())
    each = time.monotonic() - began
    return _tell(
        f"{len(detector.tokens)} keypoints on {number_of(count, 'object')}",
        out,
        size * count,
        each * count,
        detector.backend,
    )


def tell_discovery(
    backend: "Backend", objects: "Sequence[ObjectViews]", config: "DiscoverConfig", out: Path
) -> dict[str, Any]:
    """Discover for a few steps on a few objects, keeping nothing."""
    from keyorbit.discovery.discover import discover

    some, stages = objects[:_OBJECTS], Stages()
    discover(backend, some, replace(config, steps=_STEPS, planting=0), None, False, stages)
    share = min(config.batch, len(objects)) / min(config.batch, len(some))
    seconds = stages.each("cache") * len(objects) + stages.each("step") * share * (config.steps + config.planting)
    size = 2 * 4 * backend.unet.config.cross_attention_dim * config.num_candidates * 3
    what = f"{config.num_tokens} keypoints from {number_of(len(objects), 'object')} in {config.steps} steps"
    return _tell(what, out, size, seconds, backend)


def tell_generation(
    backend: "Backend", image: "Image.Image", pictures: int, sets: int, steps: int, out: Path
) -> dict[str, Any]:
    """Generate one picture's views, of ``pictures``, with two denoising steps."""
    import torch

    began = time.monotonic()
    views: torch.Tensor = backend.generate([image], torch.Generator().manual_seed(0), steps=2)  # type: ignore
    seconds, count = (time.monotonic() - began) / 2 * steps * sets * pictures, sets * pictures
    # The views twice, as one picture and each alone; of PNGs about half of the bytes are left.
    return _tell(
        f"{number_of(count, 'set')} of views of {number_of(pictures, 'picture')}",
        out,
        views[0].numel() * count,
        seconds,
        backend,
    )


def _tell(what: str, out: Path, size: int, seconds: float, backend: "Backend") -> dict[str, Any]:
    """Print it, and return it for --json."""
    lines = (
        f"would make {what}, with {backend.name} on {backend.device}, in {out}",
        f"about {size / 2**20:.1f} MiB, in about {_duration(seconds)}, judged by a little of it; nothing is written",
    )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    on = {"model": backend.name, "device": str(backend.device)}
    return {"out": str(out), "dry_run": True, "would_make": what, "bytes": size, "seconds": seconds, **on}


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
