"""What each of two processes does in test_ranks.py; see there. Arguments: model folder, data folder, working folder."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from keyorbit.cli import main
from keyorbit.cli.work import several
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.config import PrepareConfig
from keyorbit.discovery.cache.build import build_cache
from keyorbit.discovery.cache.index import plan_cache
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import discover, discover_cached
from keyorbit.errors import InputError
from keyorbit.objects.dataset import load_dataset
from keyorbit.ranks import start_ranks

CONFIG = DiscoverConfig(
    num_tokens=3, num_candidates=5, steps=6, batch=2, prepare=PrepareConfig(warps=1), save_every=2, planting=3
)


def work(model, data, folder):
    torch.set_num_threads(1)
    ranks = start_ranks()
    assert ranks.count == 2
    backend, objects = load_backend(model), load_dataset(data)
    config = replace(CONFIG, weights=replace(CONFIG.weights, sharpening=1.0, on_object=1.0))
    if ranks.main:
        discover(backend, objects, config).save(folder / "alone.safetensors")
        discover(backend, objects, replace(config, mode="joint", steps=2)).save(folder / "alone_joint.safetensors")
    discover(backend, objects, config, ranks=ranks).save(folder / f"memory_{ranks.index}.safetensors")
    joint = discover(backend, objects, replace(config, mode="joint", steps=2), ranks=ranks)
    joint.save(folder / f"joint_{ranks.index}.safetensors")
    index = replace(plan_cache(backend, objects, config), objects_per_shard=1)
    built = []
    cache = build_cache(backend, objects, index, folder / "cache", lambda done, total: built.append(done), ranks)
    (folder / f"built_{ranks.index}").write_text(str(len(built)))
    discover_cached(cache, config, ranks=ranks).save(folder / f"disk_{ranks.index}.safetensors")
    (folder / f"few_{ranks.index}.toml").write_text("planting = 3")
    sys.argv = ["keyorbit", "discover", "--cache", str(folder / "cache"), "--out", str(folder / "run"), "--steps", "2"]
    main_status(["--tokens", "2", "--candidates", "3", "--config", str(folder / f"few_{ranks.index}.toml")])
    ranks.wait()
    read, reading = [], several.read_source
    several.read_source = lambda source, *rest: read.append(source.name) or reading(source, *rest)
    sys.argv = ["keyorbit", "detect", str(folder / "run"), str(data), "--out", str(folder / "found"), "--noises", "1"]
    main_status(["--per-object", "json", "--skeleton", "auto"])
    (folder / f"read_{ranks.index}").write_text(" ".join(read))
    ranks.wait()
    sys.argv = ["keyorbit", "evaluate", str(folder / "run"), str(data), "--out", str(folder / "measured")]
    main_status(["--no-baseline"])
    ranks.wait()

    def killed(stage, done, total, values):
        if ranks.index == 1 and done == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        discover(backend, objects, config, folder / "killed", report=killed, ranks=ranks)
    except InputError as error:
        (folder / "message").write_text(str(error))
        discover(backend, objects, config, folder / "killed", resume=True).save(folder / "after.safetensors")


def main_status(words):
    sys.argv += words
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"{sys.argv} ended with {end.code}") from end


def stopped_runs(model, data, folder):
    """Runs that are killed after each number of steps in a process of their own, and then resumed."""
    torch.set_num_threads(1)
    backend, objects = load_backend(model), load_dataset(data)
    config = replace(CONFIG, steps=4, save_every=1)
    discover(backend, objects, config).save(folder / "alone.safetensors")
    for step in range(1, 5):
        out = folder / f"run_{step}"
        child = os.fork()
        if child == 0:

            def kill(stage, done, total, values, step=step):
                if stage == "step" and done == step:
                    os.kill(os.getpid(), signal.SIGKILL)

            discover(backend, objects, config, out, report=kill)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert (out / "checkpoint.safetensors").exists() == (step > 1)
        discover(backend, objects, config, out, resume=True).save(folder / f"resumed_{step}.safetensors")


if __name__ == "__main__":
    job = {"work": work, "stopped_runs": stopped_runs}[sys.argv[1]]
    job(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
