"""What keyorbit does on a GPU, and how fast: ``python benchmarks/gpu.py --json gpu.json --markdown gpu.md``.

Offline, with random weights of Zero123++'s sizes that are drawn on the card; about four minutes on one CUDA machine.
Every ratio is of times that were taken in turns in one process. A section that fails says so, and the others go on.
``--device cpu --quick`` takes a small model instead, to see that all of it runs.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

import keyorbit as ko
from keyorbit.diffusion.attention import capture_attention
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.captured import PASSES, Pass
from keyorbit.diffusion.inspection.architectures import load_architecture
from keyorbit.diffusion.inspection.cost import random_weights
from keyorbit.diffusion.inspection.passes import run_passes
from keyorbit.discovery.cache.build import build_cache
from keyorbit.discovery.cache.disk import open_cache
from keyorbit.discovery.cache.held import HeldCache
from keyorbit.discovery.cache.index import plan_cache
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import discover_from, start_run
from keyorbit.discovery.memory import open_source
from keyorbit.discovery.run import DiscoveryRun
from keyorbit.discovery.source import Source
from keyorbit.evaluation.evaluate import detect_all
from keyorbit.ranks import Ranks
from tiny_model.model import TinyConfig, make_tiny

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    batches: tuple[int, ...] = (1, 4, 8)
    rounds: int = 7
    objects: int = 8
    candidates: int = 32
    steps: int = 100
    pictures: int = 8
    denoising: int = 28
    grids: tuple[int, ...] = (64, 256)


QUICK = Sizes((1, 2), 1, 2, 4, 3, 2, 2, (2,))


@dataclass(frozen=True)
class Card:
    """Where it is measured."""

    device: torch.device
    dtype: torch.dtype

    @property
    def name(self) -> str:
        """As its maker calls it."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)

    @property
    def is_gpu(self) -> bool:
        """Whether there is something to wait for."""
        return self.device.type != "cpu"

    def wait(self) -> None:
        """Until everything that was asked for is done."""
        if self.is_gpu:
            torch.get_device_module(self.device).synchronize()

    def seconds(self, work: Callable[[], Any]) -> float:
        """Of one call, on an idle card."""
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def peak(self, work: Callable[[], Any]) -> int:
        """Bytes that were allocated at once; 0 on the CPU."""
        if not self.is_gpu:
            work()
            return 0
        module = torch.get_device_module(self.device)
        module.reset_peak_memory_stats()
        work()
        self.wait()
        return int(module.max_memory_allocated())

    def in_turns(self, ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
        """Median seconds of each, taken in turns after a round that does not count."""
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, work in ways.items():
                spent = self.seconds(work)
                if number:
                    taken[name].append(spent)
        return {name: statistics.median(some) for name, some in taken.items()}


def random_backend(card: Card, quick: bool) -> Zero123PlusBackend:
    """UNet and VAE of Zero123++'s sizes (with ``quick`` of small ones), random, drawn on the card; small encoders."""
    if quick:
        parts, side = make_tiny(TinyConfig(16, 16, (16, 32), (2, 4), vae_channels=(8, 8), text_layers=1), 0), 16
    else:
        architecture, side = load_architecture("zero123plus-v1.2"), 320
        parts = make_tiny(TinyConfig(64, 1024, text_layers=1, vision_layers=1), 0)
        generator = torch.Generator(card.device).manual_seed(0)
        seen = {"size": {"shortest_edge": 512}, "crop_size": {"height": 512, "width": 512}}
        parts = replace(
            parts,
            unet=random_weights(architecture.build_unet(), card.device, card.dtype, generator),
            vae=random_weights(architecture.build_vae(), card.device, card.dtype, generator),
            feature_extractor_vae=CLIPImageProcessorPil(**seen),
        )
    for module in (parts.vae, parts.unet, parts.text_encoder, parts.vision_encoder):
        module.to(card.device, card.dtype)
    cameras = ko.zero123plus_cameras().to(card.device)
    return Zero123PlusBackend(parts, ko.Layout(3, 2), cameras, side, "random", "random")


def picture(number: int) -> Image.Image:
    return Image.effect_noise((256, 256), 20 + number).convert("RGB")


def objects(backend: Zero123PlusBackend, number: int) -> list[ko.ObjectViews]:
    """Blocks of noise on white, one for each number."""
    side, found = backend.view_size, []
    for i in range(number):
        views = torch.ones(6, 3, side, side)
        inner = slice(side // 4, side - side // 4)
        views[..., inner, inner] = torch.rand(
            views[..., inner, inner].shape, generator=torch.Generator().manual_seed(i)
        )
        found.append(ko.ObjectViews(f"noise_{i}", picture(i), views))
    return found


@torch.no_grad()
def capture(card: Card, backend: Zero123PlusBackend, sizes: Sizes) -> Rows:
    """Both passes with and without capture of all layers."""
    ways: dict[str, dict[str, Any] | None] = {
        "bare": None,
        "isolated, each head, probabilities": {},
        "isolated, heads averaged, logits only": {"heads": "mean", "normalizer": False},
        "joint, each head, probabilities": {"mode": "joint"},
    }
    rows: Rows = []
    side = backend.latent_size(backend.view_size, backend.view_size)[0]
    width, tokens = backend.unet.config.cross_attention_dim, 16
    like: dict[str, Any] = {"device": card.device, "dtype": card.dtype}
    for batch in sizes.batches:
        latents: dict[Pass, torch.Tensor] = {
            "grid": torch.randn(batch, 4, 3 * side, 2 * side, **like),
            "condition": torch.randn(batch, 4, 8 * side // 5, 8 * side // 5, **like),
        }
        context = torch.randn(batch, 77 + tokens, width, **like)

        def run(options: dict[str, Any] | None, latents: Any = latents, context: torch.Tensor = context) -> None:
            if options is None:
                run_passes(backend.unet, latents, context[:, :77])
                return
            with capture_attention(backend.unet, "*", PASSES, **options) as record:
                run_passes(backend.unet, latents, context)
            for which in PASSES:
                record.token_logits(which) if options.get("normalizer") is False else record.token_maps(which)

        works = {name: (lambda options=options, run=run: run(options)) for name, options in ways.items()}
        seconds = card.in_turns(works, sizes.rounds)
        peaks = {name: card.peak(work) for name, work in works.items()}
        for name, spent in seconds.items():
            more = peaks[name] / peaks["bare"] if peaks["bare"] else None
            goal = {1: "goal 1.10, memory 1.03", 8: "goal 1.03, memory 1.03"}.get(batch, "")
            goal = goal if name == "isolated, each head, probabilities" else ""
            rows.append(row(f"batch {batch}: {name}", spent, spent / seconds["bare"], "bare", more, goal))
    return rows


def discovery(card: Card, backend: Zero123PlusBackend, sizes: Sizes) -> Rows:
    """Steps from memory, from a cache on disk, through the UNet, and as one CUDA graph."""
    things = objects(backend, sizes.objects)
    config = DiscoverConfig(
        num_tokens=min(16, sizes.candidates), num_candidates=sizes.candidates, batch=sizes.objects, exemplars=1
    )
    settled, rows = config.settled(backend), []
    sources: dict[str, Source] = {}

    def from_memory() -> None:
        sources["memory"] = open_source(backend, things, settled, Ranks(), lambda done, total: None)

    recorded = card.seconds(from_memory)
    rows.append(row(f"record {sizes.objects} objects in {settled.prepare.versions} versions", recorded))
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("float32", "float16"):
            place = Path(folder) / kind
            build_cache(backend, things, plan_cache(backend, things, config, kind), place)
            opened = open_cache(place, str(card.device))
            sources[f"a {kind} cache, kept on the card"] = HeldCache(opened)
            sources[f"a {kind} cache, kept in memory"] = HeldCache(opened, 0)
            sources[f"a {kind} cache, read at every step"] = HeldCache(opened, 0, 0)
        runs = {name: started(source, settled) for name, source in sources.items()}
        seconds = {}
        for name, run in runs.items():
            numbers = count()
            each = [card.seconds(lambda run=run, numbers=numbers: run.step(next(numbers))) for _ in range(5)]
            several = max(1, sizes.steps // 5) if "read" in name else sizes.steps

            def steps(run: DiscoveryRun = run, numbers: Iterator[int] = numbers, several: int = several) -> None:
                for _ in range(several):
                    run.step(next(numbers))

            seconds[name] = card.seconds(steps) / several
            ratio, about = seconds[name] / seconds["memory"], f"the first took {each[0]:.3g} s"
            about += "; goal 0.003 s" if name == "memory" else "; goal 1.5" if "kept" in name else ""
            rows.append(row(f"step from {name}", seconds[name], ratio, "memory", note=about))
    planted = sizes.steps
    run = start_run(sources["memory"], replace(settled, planting=planted), Ranks())
    rows.append(row("a step of planting", card.seconds(lambda: run.begin(lambda done, total: None)) / planted))
    some = replace(settled, mode="joint", batch=min(4, sizes.objects))
    through = started(open_source(backend, things[: some.batch], some, Ranks(), lambda done, total: None), some)
    through.step(0)
    spent = statistics.median(card.seconds(lambda i=i: through.step(i)) for i in range(1, 3))
    fewer = started(sources["memory"], replace(settled, batch=some.batch))
    fewer.step(0)
    cached = statistics.median(card.seconds(lambda i=i: fewer.step(i)) for i in range(1, 6))
    through_unet = f"step of {some.batch} objects through the UNet (joint)"
    rows.append(row(through_unet, spent, spent / cached, "the same cached", note="goal 300"))
    try:
        rows.append(graphed(card, runs["memory"], seconds["memory"]))
    except (RuntimeError, AssertionError) as error:  # the other figures stay
        rows.append(row("step as one CUDA graph", None, note=f"failed: {error}"))
    return rows


def started(source: Source, config: Any) -> DiscoveryRun:
    """A run whose tokens are planted nowhere: times do not depend on it."""
    run = start_run(source, replace(config, planting=0), Ranks())
    run.begin(lambda done, total: None)
    return run


def graphed(card: Card, run: DiscoveryRun, eager: float) -> dict[str, Any]:
    """The same step of the same objects as one CUDA graph: what launching costs the step."""
    if card.device.type != "cuda":
        return row("step as one CUDA graph", None, note="needs CUDA")
    optimizer = torch.optim.Adam(run.tokens.parameters(), lr=torch.tensor(0.05, device=card.device), capturable=True)
    picked = run.picked(0)

    def step() -> None:
        tokens = run.tokens.embedding.detach().repeat(len(picked), 1, 1).requires_grad_()
        terms = run.terms(picked, run.maps(picked, tokens, run.config.temperature))
        (gradient,) = torch.autograd.grad(terms["total"], [tokens])
        run.tokens.embedding.grad = gradient.sum(0)
        optimizer.step()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    graph.replay()
    spent = card.seconds(lambda: [graph.replay() for _ in range(50)]) / 50
    return row("step as one CUDA graph", spent, spent / eager, "memory")


def pictures(card: Card, backend: Zero123PlusBackend, sizes: Sizes, quick: bool) -> Rows:
    """Views of pictures generated, and keypoints read on them, one by one and together."""
    things = [ko.ObjectViews(f"picture_{i}", picture(i)) for i in range(sizes.pictures)]
    config = DiscoverConfig(num_tokens=4, num_candidates=4, steps=0, planting=0, exemplars=1, method="consistency")
    settled = config.settled(backend)
    source = open_source(backend, objects(backend, 1), settled, Ranks(), lambda done, total: None)
    detector = ko.KeypointDetector(backend, discover_from(source, settled))
    steps = sizes.denoising
    ways: dict[str, Callable[[], Any]] = {}
    for batch in dict.fromkeys((1, sizes.pictures)):
        ways[f"generate, {batch} together"] = lambda batch=batch: [
            backend.generate(
                [one.input_image for one in things[i : i + batch]], torch.Generator().manual_seed(0), steps
            )
            for i in range(0, len(things), batch)
        ]
    for batch in dict.fromkeys((1, sizes.pictures)):
        ways[f"detect, {batch} together"] = lambda batch=batch: detect_all(detector, things, batch=batch)
    seconds = card.in_turns(ways, 1)
    rows = []
    for name, spent in seconds.items():
        alone = seconds[f"{name.split(',')[0]}, 1 together"]
        goal = "goal 4 for 8" if name.startswith("detect") else ""
        rows.append(row(f"{name}, a picture", spent / len(things), alone / spent, "one by one, throughput", note=goal))
    if not quick:  # the compiler takes a minute
        backend.compile_unet()
        once = ways["generate, 1 together"]
        once()
        spent = card.seconds(once) / len(things)
        ratio = seconds["generate, 1 together"] / len(things) / spent
        rows.append(row("generate, compiled, a picture", spent, ratio, "uncompiled, throughput", note="goal 1.5"))
    return rows


def determinism(card: Card, backend: Zero123PlusBackend, sizes: Sizes) -> Rows:
    """The same discovery twice, without and with deterministic algorithms."""
    config = DiscoverConfig(
        num_tokens=4, num_candidates=8, batch=2, exemplars=1, planting=10, steps=min(20, sizes.steps)
    ).settled(backend)
    things, rows, seconds = objects(backend, 2), [], {}
    for strict in (False, True):
        torch.use_deterministic_algorithms(strict)
        try:
            source = open_source(backend, things, config, Ranks(), lambda done, total: None)
            found: list[torch.Tensor] = []
            for _ in range(2):
                seconds[strict] = card.seconds(
                    lambda found=found, s=source: found.append(discover_from(s, config).embedding)
                )
        finally:
            torch.use_deterministic_algorithms(False)
        same = "bit-identical" if torch.equal(*found) else f"differ by {float((found[0] - found[1]).abs().max()):.2g}"
        name = "discovery twice, deterministic algorithms" if strict else "discovery twice"
        rows.append(row(name, seconds[strict], seconds[strict] / seconds[False], "without", note=same))
    return rows


def training(card: Card, quick: bool, sizes: Sizes) -> Rows:
    """A step of the tiny model's UNet: forward, backward and AdamW; the losses beside it are the recipe's own."""
    small = TinyConfig(16, 16, (16, 32), (2, 4), vae_channels=(8, 8), text_layers=1)
    parts = make_tiny(small if quick else TinyConfig(), 0)
    for module in (parts.vae, parts.unet, parts.text_encoder, parts.vision_encoder):
        module.to(card.device)
    cameras = ko.zero123plus_cameras().to(card.device)
    backend = Zero123PlusBackend(parts, ko.Layout(3, 2), cameras, 16 if quick else 64, "random", "random")
    backend.unet.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(backend.unet.parameters(), lr=0.0, fused=card.is_gpu)
    side, rows = backend.latent_size(backend.view_size, backend.view_size)[0], []

    def loss(grid: torch.Tensor, condition: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        timestep = torch.full((len(grid),), 300, device=grid.device)
        return (backend.denoise(grid, timestep, context, condition, condition).float() - grid).square().mean()

    # To rehearse, it is enough that the function can be traced in one piece.
    how: dict[str, Any] = {"backend": "aot_eager"} if quick else {"mode": "reduce-overhead"}
    compiled = torch.compile(loss, fullgraph=True, dynamic=False, **how)
    for batch in sizes.grids:
        grid = torch.randn(batch, 4, 3 * side, 2 * side, device=card.device)
        condition = torch.randn(batch, 4, side, side, device=card.device)
        context = torch.randn(batch, 77, backend.unet.config.cross_attention_dim, device=card.device)

        def step(way: Any, half: bool, inputs: tuple[torch.Tensor, ...] = (grid, condition, context)) -> None:
            with torch.autocast(card.device.type, torch.bfloat16, enabled=half):
                value = way(*inputs)
            value.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        ways = {
            "float32": lambda step=step: step(loss, False),
            "bfloat16": lambda step=step: step(loss, True),
            "bfloat16, compiled": lambda step=step: step(compiled, True),
        }
        seconds = card.in_turns(ways, sizes.rounds)
        for name, spent in seconds.items():
            goal = "goal 5 with 256 grids" if "compiled" in name else ""
            ratio = seconds["float32"] / spent
            rows.append(row(f"a training step of {batch} grids, {name}", spent, ratio, "× faster", note=goal))
    return rows


def commands(card: Card) -> Rows:
    """The commands with the model that is shipped, each in a process of its own."""
    device = ["--device", str(card.device)]
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "few.toml"
        settings.write_text("planting = 2\nexemplars = 1\n", encoding="utf-8")
        few = ["--config", str(settings), "--tokens", "4", "--candidates", "6", "--steps", "3", "--batch", "2"]
        at = {name: str(Path(folder) / name) for name in ("data", "run", "cached", "cache", "found", "j", "lora")}
        lines = {
            "dataset make": ["dataset", "make", at["data"], "--objects", "4"],
            "discover": ["discover", at["data"], "--out", at["run"], *few, *device],
            "discover --resume": ["discover", at["data"], "--out", at["run"], *few, "--resume", *device],
            "discover, joint": ["discover", at["data"], "--out", at["j"], "--mode", "joint", *few, *device],
            "cache": ["cache", at["data"], "--out", at["cache"], *device],
            "discover --cache": ["discover", "--cache", at["cache"], "--out", at["cached"], *few, *device],
            "detect": ["detect", at["run"], at["data"], "--out", at["found"], *device],
            "train --train lora": ["train", at["data"], "--out", at["lora"], "--train", "lora", "--steps", "2"],
            "evaluate": ["evaluate", at["run"], at["data"], *device],
            "report": ["report", at["run"], at["data"], "--objects", "1", *device],
            "inspect --measure": ["inspect", "--model", "tiny", "--measure", *device],
        }
        rows = []
        for name, words in lines.items():
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "keyorbit", "--quiet", *words],
                capture_output=True,
                text=True,
                encoding="utf-8",
                check=False,
            )
            note = "" if done.returncode == 0 else f"exit status {done.returncode}: {done.stderr.strip()[-300:]}"
            rows.append(row(f"keyorbit {name}", time.perf_counter() - began, note=note))
    return rows


def row(
    what: str,
    seconds: float | None,
    ratio: float | None = None,
    beside: str = "",
    memory: float | None = None,
    note: str = "",
) -> dict[str, Any]:
    """One line: seconds, its ratio to another of the same run, memory as a multiple of that one's."""
    return {"what": what, "seconds": seconds, "ratio": ratio, "beside": beside, "memory": memory, "note": note}


def table(results: dict[str, Rows]) -> str:
    """All sections as one Markdown table."""
    lines = ["| what | seconds | ratio | to | memory | |", "|---|---|---|---|---|---|"]
    for rows in results.values():
        for one in rows:
            numbers = ["" if one[key] is None else f"{one[key]:.3g}" for key in ("seconds", "ratio", "memory")]
            cells = (one["what"], numbers[0], numbers[1], one["beside"], numbers[2], one["note"].replace("\n", " "))
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", help="default float16, on the CPU float32")
    parser.add_argument("--quick", action="store_true", help="a small model and few rounds, to see that it runs")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    device = torch.device(args.device)
    card = Card(device, getattr(torch, args.dtype or ("float32" if device.type == "cpu" else "float16")))
    sizes = QUICK if args.quick else Sizes()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for deterministic algorithms; read once
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.manual_seed(0)
    about = f"{card.name}, torch {torch.__version__}, {str(card.dtype).removeprefix('torch.')}"
    results = measured(card, sizes, args.quick, args.sections)
    text = f"{about}{', small sizes' if args.quick else ''}\n\n{table(results)}\n"
    print(text)
    if args.json:
        args.json.write_text(
            json.dumps({"machine": about, "quick": args.quick, "sections": results}, indent=1) + "\n", encoding="utf-8"
        )
    if args.markdown:
        args.markdown.write_text(text, encoding="utf-8")
    if any("failed" in one["what"] for rows in results.values() for one in rows):
        sys.exit(1)


SECTIONS = ("capture", "discovery", "determinism", "pictures", "training", "commands")


def measured(card: Card, sizes: Sizes, quick: bool, wanted: Sequence[str]) -> dict[str, Rows]:
    """Every section that is asked for."""
    backend = random_backend(card, quick)
    sections: dict[str, Callable[[], Rows]] = {
        "capture": lambda: capture(card, backend, sizes),
        "discovery": lambda: discovery(card, backend, sizes),
        "pictures": lambda: pictures(card, backend, sizes, quick),
        "determinism": lambda: determinism(card, backend, sizes),
        "training": lambda: training(card, quick, sizes),
        "commands": lambda: commands(card),
    }
    results: dict[str, Rows] = {}
    for name in wanted:
        began = time.perf_counter()
        try:
            results[name] = sections[name]()
        except (RuntimeError, ValueError, ko.InputError) as error:  # the others can still be measured
            results[name] = [row(f"{name} failed", None, note=str(error)[:500])]
        with contextlib.suppress(AttributeError):
            torch.get_device_module(card.device).empty_cache()
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    return results


if __name__ == "__main__":
    main()
