"""Discovery from caches of 100 to 100,000 objects: what of it grows with their number, as a table and a picture.

    python benchmarks/growth.py --plot docs/images/growth.png --json growth.json

A cache holds the recordings of a few procedural chairs of 16 pixels by a Zero123++ of random weights, over and over,
each under a name of its own: a discovery cannot tell. Each size is measured in a process of its own, several times,
with the files out of the system's memory at its start. Seconds are of processor time in one thread, which a busy
machine changes little; those to open the cache are of the clock. ``--per-shard 1`` gives each object a file, as
full-size models do.
It needs Linux, for the memory and page faults of processes.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from helpers.models import SMALL
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.config import PrepareConfig
from keyorbit.discovery.cache.build import build_cache
from keyorbit.discovery.cache.disk import DiskCache, open_cache, shard_path, write_tensors
from keyorbit.discovery.cache.index import CacheIndex, plan_cache
from keyorbit.discovery.choices import CACHE
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import start_run
from keyorbit.ranks import Ranks
from keyorbit.storage.files import write_text
from keyorbit.storage.outputs import begin_output
from keyorbit.synthetic.samples import SampleSpec, as_object, make_samples
from tiny_model.model import make_tiny, save_folder

TEMPLATES = 32
COUNTS = (100, 1_000, 10_000, 100_000)
CONFIG = DiscoverConfig(num_tokens=8, num_candidates=12, planting=50, prepare=PrepareConfig(warps=0, noises=1))


@dataclass(frozen=True)
class Growth:
    """What one discovery took. Seconds; MiB of the process, without and with the pages of files that it has mapped."""

    objects: int
    files: int
    megabytes: float
    open: float
    plant: float
    step: float
    last_step: float
    choose: float
    anonymous: float
    peak: float
    minor_faults_a_step: float
    major_faults_a_step: float


def template(folder: Path) -> DiskCache:
    """The cache of a few objects that the others repeat."""
    model = folder / "model"
    save_folder(make_tiny(SMALL, seed=1), model, SMALL.view_size)
    backend = load_backend(model)
    objects = [as_object(one) for one in make_samples([SampleSpec("chair", i, 16) for i in range(TEMPLATES)], 1)]
    index = plan_cache(backend, objects, CONFIG)
    return build_cache(backend, objects, index, folder / "template")


def repeat(cache: DiskCache, folder: Path, objects: int, per_shard: int | None) -> None:
    """Write a cache of so many objects: the template's, in turn."""
    named = tuple((f"chair_{number:06d}", f"{number:016x}") for number in range(objects))
    index = replace(cache.index, objects=named, objects_per_shard=per_shard or cache.index.objects_per_shard)
    kept: list[dict[str, torch.Tensor]] = []
    for number in range(len(cache)):
        shown, layers = cache.shown(number), cache.queries(number).layers
        one = {"warps": shown.warps, "masks": shown.masks.to(torch.uint8), "distance": shown.distance}
        kept.append(
            {name: x.clone() for name, x in (one | {f"query.{i}": x.query for i, x in enumerate(layers)}).items()}
        )
    begin_output(folder, CACHE, resume=True)
    write_text(folder / "index.json", index.to_json())
    keys = {f"to_key.{i}": key for i, key in enumerate(cache.keys) if key is not None}
    write_tensors(folder / "model.safetensors", {"text_rows": cache.facts.text_rows, **keys}, index)
    for shard in range(index.shards):
        own = [kept[number % len(kept)] for number in index.in_shard(shard)]
        write_tensors(shard_path(folder, shard), {name: torch.stack([x[name] for x in own]) for name in own[0]}, index)


def forget(folder: Path) -> None:
    """Take a cache's files out of the system's memory."""
    os.sync()
    for path in folder.iterdir():
        place = os.open(path, os.O_RDONLY)
        os.posix_fadvise(place, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(place)


def status(name: str) -> float:
    """A line of the kernel's about this process, MiB."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(text.split(f"{name}:")[1].split()[0]) / 1024


def seconds(work: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> tuple[float, Any]:
    """How long it takes, and what it returns."""
    began = clock()
    found = work()
    return clock() - began, found


def measured(folder: Path, steps: int) -> Growth:
    """One discovery, in this process."""
    torch.set_num_threads(1)
    opened, cache = seconds(lambda: open_cache(folder, "cpu"), time.perf_counter)
    index: CacheIndex = cache.index
    settled = replace(CONFIG, steps=steps).settled_as(index.pattern, index.maps, index.prepare)
    run = start_run(cache, settled, Ranks())
    planted, _ = seconds(lambda: run.begin(lambda done, total: None))
    before = resource.getrusage(resource.RUSAGE_SELF)
    spent = [seconds(lambda number=number: run.step(number))[0] for number in range(steps)]
    after = resource.getrusage(resource.RUSAGE_SELF)
    chosen, _ = seconds(run.select)
    return Growth(
        objects=len(cache),
        files=index.shards,
        megabytes=index.bytes / 1e6,
        open=opened,
        plant=planted,
        step=statistics.median(spent),
        last_step=statistics.median(spent[-max(1, steps // 5) :]),
        choose=chosen,
        anonymous=status("RssAnon"),
        peak=status("VmHWM"),
        minor_faults_a_step=(after.ru_minflt - before.ru_minflt) / steps,
        major_faults_a_step=(after.ru_majflt - before.ru_majflt) / steps,
    )


def apart(folder: Path, steps: int) -> Growth:
    """The same in a process of its own."""
    forget(folder)
    command = [sys.executable, __file__, "--measure", str(folder), "--steps", str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8", env=environment)
    return Growth(**json.loads(done.stdout))


def middle(rows: Sequence[Growth]) -> Growth:
    """The median of each figure."""
    return Growth(**{name: statistics.median(asdict(row)[name] for row in rows) for name in asdict(rows[0])})


def line(row: Growth) -> str:
    """A row of the table."""
    return (
        f"| {row.objects:,} | {row.files:,} | {row.megabytes:,.0f} MB | {row.open:.2f} s | {row.plant:.1f} s | "
        f"{1e3 * row.step:.1f} ms | {1e3 * row.last_step:.1f} ms | {row.minor_faults_a_step:,.0f} | "
        f"{row.major_faults_a_step:,.0f} | {row.choose:.1f} s | {row.anonymous:.0f} MiB | {row.peak:.0f} MiB |"
    )


def plot(rows: Sequence[Growth], path: Path) -> None:
    """Time and memory against the number of objects."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    count = [row.objects for row in rows]
    for name, told in (("open", "opening the cache"), ("step", "a step"), ("choose", "choosing the keypoints")):
        time_axes.plot(count, [getattr(row, name) for row in rows], "o-", label=told)
    time_axes.set(xscale="log", yscale="log", xlabel="objects in the cache", ylabel="seconds")
    for name, told in (("megabytes", "the cache, MB"), ("peak", "the process's peak, MiB")):
        memory_axes.plot(count, [getattr(row, name) for row in rows], "o-", label=told)
    memory_axes.set(xscale="log", yscale="log", xlabel="objects in the cache", ylabel="megabytes")
    for axes in (time_axes, memory_axes):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--per-shard", type=int, help="objects a file; default as 'keyorbit cache' would")
    parser.add_argument("--folder", type=Path, help="where the caches are made, one at a time; default a temporary one")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(asdict(measured(given.measure, given.steps))))
        return
    print("| objects | files | cache | open | plant | step | last fifth | minor faults | major | choose | own | peak |")
    print("|" + "---|" * 12, flush=True)
    rows = []
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        few = template(Path(name))
        for objects in given.objects:
            with tempfile.TemporaryDirectory(dir=name) as place:
                repeat(few, Path(place) / "cache", objects, given.per_shard)
                rows.append(middle([apart(Path(place) / "cache", given.steps) for _ in range(given.repeats)]))
            print(line(rows[-1]), flush=True)
    if given.plot:
        plot(rows, given.plot)
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
