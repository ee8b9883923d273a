"""Many objects detected by two processes, of which one is killed half-way: counts, memory and speed, as a table.

    python benchmarks/scale.py --objects 2000
    python benchmarks/scale.py --objects 2000 --engine ray

Objects are procedural chairs of 16 pixels, and the model is a Zero123++ of random weights, small enough that the rest
counts: reading, writing and what is kept. It needs torchrun or Ray, and Linux for the memory of processes. torchrun
ends where one of its processes is gone, and the same command is called again; Ray goes on by itself.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from helpers.models import SMALL
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.synthetic.dataset import make_dataset
from keyorbit.synthetic.plan import DatasetSpec
from tiny_model.model import make_tiny, save_folder

PAUSE = 2.0


def prepare(folder: Path, objects: int) -> None:
    """Make the objects, the model and tokens that nothing has trained."""
    make_dataset(folder / "objects", DatasetSpec("chair", objects, seed=0, size=SMALL.view_size))
    save_folder(make_tiny(SMALL, seed=1), folder / "model", SMALL.view_size)
    tokens = untrained(load_backend(folder / "model"), DiscoverConfig(num_tokens=3, num_candidates=3))
    tokens.save(folder / "tokens.safetensors")


def start(folder: Path, ranks: int, ray: bool) -> subprocess.Popen[bytes]:
    """Start the command, the same each time."""
    words = ["detect", "tokens.safetensors", "objects", "--model", "model", "--noises", "1", "--per-object", "none"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    if ray:
        launcher, words = [sys.executable], [*words, "--engine", "ray", "--workers", str(ranks)]
    command = [*launcher, "-m", "keyorbit", "-q", *words, "--out", "out"]
    return subprocess.Popen(command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"})


def children(process: subprocess.Popen[bytes]) -> dict[int, tuple[str, float]]:
    """Each rank's process, by its number, with its memory in MiB."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            status = dict(
                line.split(":", 1)
                for line in (place / "status").read_text(encoding="utf-8").splitlines()
                if ":" in line
            )
            if int(status["PPid"]) == process.pid:
                variables = (place / "environ").read_bytes().split(b"\0")
                rank = next(one for one in variables if one.startswith(b"RANK=")).decode()
                found[int(place.name)] = rank, int(status["VmRSS"].split()[0]) / 1024
        except (OSError, KeyError, StopIteration):  # it has just ended
            continue
    return found


def workers(process: subprocess.Popen[bytes]) -> dict[int, tuple[str, float]]:
    """Each of Ray's workers that has loaded the model, and the process that writes; likewise."""
    found = {}
    with suppress(psutil.Error):
        found[process.pid] = "writes", psutil.Process(process.pid).memory_info().rss / 2**20
        for one in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                title = one.name() + " ".join(one.cmdline())
                if "MapWorker" in title and "__init__" not in title:
                    found[one.pid] = "RANK=1", one.memory_info().rss / 2**20
    return found


def lines(folder: Path) -> int:
    """Objects that are finished."""
    return sum(path.read_bytes().count(b"\n") for path in (folder / "out").glob("results*.jsonl"))


def watched(folder: Path, ranks: int, kill_at: int | None, ray: bool = False) -> str:
    """Run the command, and kill its second process at so many objects; a row of the table."""
    began, process, ours = time.monotonic(), start(folder, ranks, ray), lines(folder)
    memory, writes, first, begun = list[float](), list[float](), ours, None
    while process.poll() is None:
        there, ours = workers(process) if ray else children(process), max(ours, lines(folder))
        if ours > first:
            begun = begun or time.monotonic()
            memory += [size for what, size in there.values() if what != "writes"]
            writes += [size for what, size in there.values() if what == "writes"]
        if kill_at is not None and ours >= kill_at:
            for number in [number for number, (what, _) in there.items() if what == "RANK=1"][:1]:
                os.kill(number, signal.SIGKILL)
                print(f"killed one at {ours:,}", file=sys.stderr, flush=True)
            kill_at = None
        time.sleep(PAUSE)
    spent, done = time.monotonic() - began, lines(folder)
    size = f"{min(memory):.0f} to {max(memory):.0f} MiB" if memory else "-"
    size += f", and {min(writes):.0f} to {max(writes):.0f}" if writes else ""
    # Until the first object is finished: libraries, the model and, with Ray, the cluster.
    ready = "-" if begun is None else f"{begun - began:.0f} s"
    speed = f"{(done - first) / spent:.2f}"
    return f"| {first:,} | {done:,} | {process.returncode} | {spent:.0f} s | {ready} | {speed} | {size} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=2000)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--engine", choices=("torchrun", "ray"), default="torchrun")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, given.objects)
        print("| finished before | after | exit status | time | of it to begin | objects/s | memory of a process |")
        print("|---|---|---|---|---|---|---|", flush=True)
        ray = given.engine == "ray"
        for kill_at in (given.objects // 2, None)[: 1 if ray else 2]:
            print(watched(folder, given.ranks, kill_at, ray), flush=True)
        rows = [
            json.loads(line) for line in (folder / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        whole = [row["number"] for row in rows] == list(range(given.objects))
        print(f"{len(rows):,} lines, each object once: {whole}")


if __name__ == "__main__":
    main()
