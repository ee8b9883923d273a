"""Discovery from cached queries beside discovery through the UNet: ``python benchmarks/discovery.py --json out.json``.

Seconds are of processor time in one thread, which a busy machine does not change. Weights and pictures are random where
only time is measured. ``--quick`` takes a small random model in place of the full-size one: a smoke test.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from rich.console import Console
from rich.table import Table
from transformers import CLIPImageProcessorPil

import keyorbit as ko
from keyorbit.diffusion.attention import TEXT_TOKENS
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.backends.stable_diffusion import first_up_layers
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.config import PrepareConfig, RecordConfig
from keyorbit.diffusion.inspection.architectures import load_architecture
from keyorbit.diffusion.inspection.cost import random_weights
from keyorbit.diffusion.layers import cross_attention_layers
from keyorbit.diffusion.model_facts import model_facts
from keyorbit.diffusion.prepare import Prepared, object_generator, prepare
from keyorbit.diffusion.queries import QueryCache
from keyorbit.diffusion.recording import Recording, layer_outlines, record_prepared, run_unet
from keyorbit.discovery.consistency_run import ConsistencyRun
from keyorbit.discovery.memory import MemorySource
from keyorbit.evaluation.evaluate import detect_all
from keyorbit.geometry.heatmaps import resize
from keyorbit.ranks import Ranks
from keyorbit.synthetic.samples import SampleSpec, as_object, make_samples
from tiny_model.model import TinyConfig, make_tiny

SECTIONS = ("losses", "enlarging", "quality", "cached", "unet")
GRIDS = 4  # a step, in every comparison
FIELDS = ("reprojection", "landmark_3d", "landmark_2d", "dual_alignment", "coverage", "on_object")
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Sizes:
    """What is measured: of the full-size model, or of a small one."""

    quick: bool
    tokens: int = 16
    repeats: int = 5
    maps: tuple[int, int, int] = (20, 9600, 93)
    train: int = 24
    test: int = 24
    steps: int = 100
    planting: int = ko.DiscoverConfig().planting


QUICK = Sizes(True, 4, 1, (2, 96, 7), 2, 2, 1, 1)


def timed(work: Callable[[], Any], repeats: int = 1) -> float:
    """Median seconds of processor time."""
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return statistics.median(seconds)


def peak_gigabytes(work: Callable[[], Any]) -> float | None:
    """The process's greatest resident memory while it works, weights included; None where Linux does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        work()
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        work()
        return None
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


def random_backend(sizes: Sizes) -> Zero123PlusBackend:
    """Zero123++ with the full-size UNet at its own latent sizes; VAE and encoders are small, and not measured."""
    if sizes.quick:
        small = TinyConfig(16, 16, (16, 32), (2, 4), vae_channels=(8, 8), text_layers=1, vision_layers=1)
        parts, side = make_tiny(small, 0), 16
    else:
        side, architecture = 160, load_architecture("zero123plus-v1.2")
        parts = make_tiny(TinyConfig(side, 1024, text_layers=1, vision_layers=1), 0)
        unet = architecture.build_unet().to_empty(device="cpu")  # takes memory only where it is written
        # The condition picture's latent is 64 x 64, as the published model's.
        seen = {"size": {"shortest_edge": 256}, "crop_size": {"height": 256, "width": 256}}
        parts = replace(parts, unet=unet, feature_extractor_vae=CLIPImageProcessorPil(**seen))
    return Zero123PlusBackend(parts, ko.Layout(3, 2), ko.zero123plus_cameras(), side, "random", "random")


def fill(backend: Zero123PlusBackend, sizes: Sizes) -> None:
    """Give the full-size UNet random weights."""
    if not sizes.quick:
        random_weights(backend.unet, torch.device("cpu"), torch.float32, torch.Generator())


def noise_object(backend: Zero123PlusBackend, number: int) -> ko.ObjectViews:
    generator = torch.Generator().manual_seed(number)
    views = torch.rand(6, 3, backend.view_size, backend.view_size, generator=generator)
    return ko.ObjectViews(f"noise_{number}", Image.effect_noise((256, 256), 50), views)


def prepared_noise(backend: Zero123PlusBackend) -> Prepared:
    once = PrepareConfig().settled(backend.default_timestep)
    return prepare(noise_object(backend, 0), backend, once, object_generator(0, 0))[0]


def unet_step(backend: Zero123PlusBackend, item: Prepared, tokens: torch.Tensor) -> None:
    """StableKeypoints' way for one grid: forward with every token's maps of every layer, loss, backward."""
    embedding = tokens.clone().requires_grad_()
    context = torch.cat([item.context, embedding.expand(len(item.context), *embedding.shape)], dim=1)
    with ko.capture_attention(backend.unet, "*", ("grid",), "joint", text_tokens=0) as record:
        run_unet(backend, item, context)
    side = 2 * backend.latent_size(backend.view_size, backend.view_size)[0]
    maps = ko.view_maps(record.token_maps(), backend.layout, (side, side))
    ko.losses.sharpening(maps[:, :, TEXT_TOKENS:]).backward()


def cached_run(
    backend: Zero123PlusBackend, queries: QueryCache, item: Prepared, objects: int, tokens: int
) -> ConsistencyRun:
    """A discovery on copies of one object's queries, each in memory of its own."""
    config = ko.DiscoverConfig(num_tokens=min(tokens, 16), num_candidates=tokens, batch=objects, method="consistency")
    settled, thing, shown = config.settled(backend), noise_object(backend, 0), item.shown()
    assert thing.views is not None
    assert backend.cameras is not None

    def copy() -> Recording:
        own = QueryCache(tuple(replace(x, query=x.query.clone()) for x in queries.layers), queries.versions)
        return Recording(thing, thing.views, backend.cameras, shown, {"grid": own}, settled.recording)

    facts = model_facts(backend, "*", backend.cameras)
    source = MemorySource(facts, queries.versions, backend.device, objects, {i: copy() for i in range(objects)})
    return ConsistencyRun(source, settled, Ranks(), backend.cameras)


def layer_choices(backend: Zero123PlusBackend) -> dict[str, Sequence[str]]:
    few = first_up_layers(backend.unet, backend.latent_size(*backend.grid_size), most_positions=2400)
    return {"all layers": cross_attention_layers(backend.unet), "first 4 up": few}


def cached_steps(backend: Zero123PlusBackend, sizes: Sizes) -> Rows:
    """Seconds of a step of 4 grids from queries, which are random: no weight of the UNet is looked at."""
    item, rows = prepared_noise(backend), []
    for name, layers in layer_choices(backend).items():
        run = cached_run(backend, random_queries(backend, item, layers), item, GRIDS, sizes.tokens)
        run.step(0)
        rows.append({"layers": name, "cached_step": timed(lambda run=run: run.step(1), sizes.repeats)})
    return rows


def unet_forward(backend: Zero123PlusBackend) -> Rows:
    """Seconds and peak memory of the whole UNet, and up to the last layer that is read, with its queries merged."""
    item, rows, once = prepared_noise(backend), [], PrepareConfig().settled(backend.default_timestep)

    def measured(name: str, work: Callable[[], Any]) -> None:
        seconds: list[float] = []
        peak = peak_gigabytes(lambda: seconds.append(timed(work)))
        rows.append({"layers": name, "seconds": seconds[0], "peak_gb": peak})

    with torch.no_grad():
        measured("whole UNet", lambda: run_unet(backend, item, item.context))
    for name, layers in layer_choices(backend).items():
        measured(
            name, lambda layers=layers: record_prepared(backend, item, RecordConfig(tuple(layers), "logits", once))
        )
    return [{**row, "of_whole": row["seconds"] / rows[0]["seconds"]} for row in rows]


def unet_seconds(backend: Zero123PlusBackend, sizes: Sizes) -> float:
    """Of a step of 4 grids through the UNet; one is measured."""
    tokens = torch.randn(sizes.tokens, backend.unet.config.cross_attention_dim, generator=torch.Generator())
    return GRIDS * timed(lambda: unet_step(backend, prepared_noise(backend), tokens))


def totals(cached: Rows, forward: Rows, slow: float, objects: int = 100, versions: int = 4) -> Rows:
    """Whole discoveries with their cache, scaled from what a grid and a step take."""
    record, rows = {row["layers"]: row["seconds"] for row in forward}, []
    for row in cached:
        rows.append({"layers": row["layers"], "of": "one step", "unet": slow, "cached": row["cached_step"]})
        for steps in (500, 10_000):
            fast = objects * versions * record[row["layers"]] + steps * row["cached_step"]
            rows.append({"layers": row["layers"], "of": f"{steps} steps", "unet": steps * slow, "cached": fast})
    return [{**row, "ratio": row["unet"] / row["cached"]} for row in rows]


def scaling(backend: Zero123PlusBackend, sizes: Sizes) -> dict[str, Rows]:
    """Seconds of a cached step against objects a step, tokens and layers; queries are random, of the right sizes."""
    item, names = prepared_noise(backend), cross_attention_layers(backend.unet)
    counts = {"objects": (1, 2, 4, 8), "tokens": (8, 16, 32, 64), "layers": (4, 8, 12, 16)}
    if sizes.quick:
        counts = {"objects": (1, 2), "tokens": (2, 4), "layers": (1, 2)}
    found: dict[str, Rows] = {}
    every = random_queries(backend, item, names)
    for axis, values in counts.items():
        for value in values:
            queries = random_queries(backend, item, names[:value]) if axis == "layers" else every
            objects, tokens = value if axis == "objects" else 2, value if axis == "tokens" else sizes.tokens
            run = cached_run(backend, queries, item, objects, tokens)
            run.step(0)
            seconds = timed(lambda run=run: run.step(1), sizes.repeats)
            found.setdefault(axis, []).append({axis: value, "seconds": seconds})
    return found


def random_queries(backend: Zero123PlusBackend, item: Prepared, layers: Sequence[str]) -> QueryCache:
    generator = torch.Generator().manual_seed(0)
    filled = (
        replace(x, query=torch.randn(1, *x.query.shape[1:], generator=generator))
        for x in layer_outlines(backend, layers, "logits")
    )
    return QueryCache(tuple(filled), len(item.latents))


def compare_losses(sizes: Sizes) -> Rows:
    """Localisation per view and consistency between views on maps [head position token], with and without loops."""
    heads, positions, tokens = sizes.maps
    maps = torch.rand(heads, positions, tokens, generator=torch.Generator()).softmax(-1)
    side = round((positions / 6) ** 0.5)
    mean = maps.mean(0)

    def vectorised() -> torch.Tensor:
        views = rearrange(mean, "(r h c w) t -> 1 (r c) t h w", r=3, c=2, h=side, w=side)
        return ko.losses.multi_view(views, consistency="pixel").total

    assert torch.allclose(vectorised(), looped(mean, side), rtol=1e-3)
    rows = [("averaged over heads", vectorised, lambda: looped(mean, side))]
    seconds = [(name, timed(fast, sizes.repeats), timed(slow)) for name, fast, slow in rows]
    return [{"maps": name, "loops": slow, "vectorised": fast, "ratio": slow / fast} for name, fast, slow in seconds]


def compare_enlarging(sizes: Sizes) -> Rows:
    """The maps of one object to the size that discovery works at, forward and backward: interpolate and `resize`."""
    count, rows = 6 * 3 * 2 * sizes.tokens, []  # views, versions, two candidates a token
    for old, new in ((4, 32), (8, 32), (16, 32), (10, 80), (40, 80)):
        maps = torch.rand(count, 1, old, old, generator=torch.Generator(), requires_grad=True)
        gradient = torch.rand(count, 1, new, new, generator=torch.Generator())
        interpolate = partial(F.interpolate, mode="bilinear", align_corners=False)
        work = (partial(there_and_back, way, maps, gradient) for way in (interpolate, resize))
        slow, fast = (timed(one, sizes.repeats) for one in work)
        rows.append({"from": old, "to": new, "interpolate": slow, "resize": fast, "ratio": slow / fast})
    return rows


def there_and_back(way: Callable[..., torch.Tensor], maps: torch.Tensor, gradient: torch.Tensor) -> None:
    way(maps, size=tuple(gradient.shape[-2:])).backward(gradient)


def looped(mean: torch.Tensor, side: int) -> torch.Tensor:
    """The same by loops over views, tokens and pairs of views."""
    grid, views = mean.reshape(3 * side, 2 * side, -1), []
    for row in range(3):
        for col in range(2):
            views.append(grid[row * side : (row + 1) * side, col * side : (col + 1) * side])
    localization, consistency = torch.zeros(()), torch.zeros(())
    ys, xs = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    for token in range(mean.shape[-1]):
        peaks = []
        for view in views:
            one = view[..., token]
            y, x = divmod(int(one.argmax()), side)
            peaks.append(torch.tensor([y, x], dtype=torch.float32))
            target = torch.exp(-((ys - y) ** 2 + (xs - x) ** 2) / (2 * 2.0**2))
            localization = localization + ((one - target) ** 2).mean()
        for i in range(len(peaks)):
            for j in range(i + 1, len(peaks)):
                consistency = consistency + ((peaks[i] - peaks[j]) ** 2).sum()
    return localization / (6 * mean.shape[-1]) + consistency / (15 * mean.shape[-1])


def compare_quality(backend: Backend, sizes: Sizes) -> Rows:
    """Isolated and joint at the same number of steps, on chairs that were not learned from."""
    specs = [SampleSpec("chair", 1000 * split + i, backend.view_size) for split in (1, 3) for i in range(sizes.train)]
    chairs = [as_object(sample) for sample in make_samples(specs, 1)]
    train, test = chairs[: sizes.train], chairs[sizes.train :][: sizes.test]
    rows: Rows = []
    for mode in ("isolated", "joint"):
        once = PrepareConfig(warps=0, noises=1)
        steps, planting = sizes.steps, sizes.planting
        config = ko.DiscoverConfig(8, 12, mode=mode, steps=steps, batch=GRIDS, planting=planting, prepare=once)
        seconds, found = [0.0], []
        seconds[0] = timed(lambda config=config, found=found: found.append(ko.discover(backend, train, config)))
        detector = ko.KeypointDetector(backend, found[0])
        judged = ko.evaluate(detect_all(detector, test), test, detect_all(detector, train), train)
        rows.append({"mode": mode, "seconds": seconds[0], **{name: getattr(judged, name) for name in FIELDS}})
    return rows


def plot(found: dict[str, Rows], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, (axis, rows) in zip(figure.subplots(1, len(found), sharey=True), found.items(), strict=True):
        axes.plot([row[axis] for row in rows], [row["seconds"] for row in rows], "o-")
        axes.set(xlabel=f"{axis} a step" if axis == "objects" else axis, xlim=(0, None), ylim=(0, None))
    figure.axes[0].set_ylabel("seconds a step")
    figure.savefig(path, dpi=120)


def show(title: str, rows: Rows) -> None:
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=160).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, metavar="SECTION")
    parser.add_argument("--steps", type=int, help="of each discovery in the comparison of quality")
    parser.add_argument("--model", default="tiny", help="for the comparison of quality")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="a picture of seconds against objects, tokens and layers")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sizes = QUICK if args.quick else Sizes(False)
    sizes = sizes if args.steps is None else replace(sizes, steps=args.steps)
    wanted = args.sections or SECTIONS
    results: dict[str, Any] = {"sizes": asdict(sizes)}
    if "losses" in wanted:
        results["losses"] = compare_losses(sizes)
        show("losses: loops and without", results["losses"])
    if "enlarging" in wanted:
        results["enlarging"] = compare_enlarging(sizes)
        show("enlarging maps", results["enlarging"])
    if "quality" in wanted:
        results["quality"] = compare_quality(ko.load_backend(args.model), sizes)
        show("the same steps, isolated and joint", results["quality"])
    if {"cached", "unet"} & set(wanted):
        backend = random_backend(sizes)
    if "cached" in wanted:
        results["cached"], results["scaling"] = cached_steps(backend, sizes), scaling(backend, sizes)
        show(f"a step of {GRIDS} grids from queries", results["cached"])
        for rows in results["scaling"].values():
            show("a step from queries", rows)
        if args.plot:
            plot(results["scaling"], args.plot)
    if "unet" in wanted:
        fill(backend, sizes)
        results["forward"], results["unet_step"] = unet_forward(backend), unet_seconds(backend, sizes)
        show("forward, one grid", results["forward"])
        print(f"a step of {GRIDS} grids through the UNet: {results['unet_step']:.4g} s")
    if {"cached", "unet"} <= set(wanted):
        results["totals"] = totals(results["cached"], results["forward"], results["unet_step"])
        show("100 objects x 4 versions, scaled", results["totals"])
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
