"""Commands that write folders, killed or refused by the disk at every operation: the same command again ends alike."""

import os
import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from helpers.disk import FORBIDDEN, FULL, Disk, apart, contents, put
from helpers.hostile import answer
from helpers.models import SMALL
from keyorbit.diffusion.tokens import Tokens
from keyorbit.training.optimise import OptimiseConfig
from tiny_model import train as recipe
from tiny_model.denoising import DenoisingConfig
from tiny_model.probe import ProbeConfig
from tiny_model.vision import VisionConfig

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

NAMES = (
    "cache", "discover", "discover, joint", "discover, consistency", "discover over another", "train tokens",
    "train lora", "train full", "train over another", "detect", "detect over another", "dataset make", "the tiny model",
)  # fmt: skip
# Those of which `make test` tries a few operations.
QUICK = ("cache", "discover", "train lora", "dataset make")
FEW = 2
STEPS = OptimiseConfig(2, 1e-3, save_every=1, log_every=2)
RECIPE = recipe.TrainTinyConfig(
    categories=("chair",),
    objects=2,
    vae=STEPS,
    vae_batch=2,
    vision=VisionConfig(2, looks=2, optimise=STEPS),
    denoising=DenoisingConfig(2, optimise=replace(STEPS, steps=3, log_every=2, save_every=1)),
    probe=ProbeConfig(every=2, train_objects=2, test_objects=2, steps=2, samples=1, sample_steps=1),
    workers=1,
)
SETTINGS = {
    "discover.toml": "save_every = 2\nplanting = 1\nsteps = 5\nbatch = 1\nnum_tokens = 2\nnum_candidates = 3",
    "train.toml": "save_every = 2\nlog_every = 3\nsample_every = 2\nsample_steps = 1\nsteps = 5\nbatch = 1\n"
    "accumulate = 1\nnum_tokens = 2\nkeep = 1\ntimesteps = [300, 301]\n[lora]\nrank = 2",
}


class World:
    """The commands, what they start from, and what they leave when nobody disturbs them.

    All write below ``root``, always to the same place: where a model lies is among what they write.
    """

    def __init__(self, folder, model_folder, chairs):
        self.folder, self.root, out = folder, folder / "root", folder / "root" / "out"
        for name, text in SETTINGS.items():
            (folder / name).write_text(text)
        Tokens(torch.randn(2, SMALL.width, generator=torch.Generator().manual_seed(0))).save(folder / "tokens")
        model, data = ["--model", model_folder], [chairs / "chair_1_00000", chairs / "chair_1_00001"]
        discover = ["discover", chairs, *model, "--out", out, "--config", folder / "discover.toml", "--warps", 0]
        train = ["train", chairs, *model, "--out", out, "--config", folder / "train.toml", "--cpu"]
        detect = ["detect", folder / "tokens", *data, *model, "--out", out, "--noises", 1]
        make = ["dataset", "make", out, "--objects", 2, "--size", 8]
        again, anew = ["--resume"], ["--overwrite"]
        # The command, and what is added when it is called again.
        self.commands = {
            "cache": (["cache", chairs, *model, "--out", out, "--noises", 1, "--warps", 0], []),
            "discover": (discover, again),
            "discover, joint": ([*discover, "--mode", "joint", "--noises", 1], again),
            "discover, consistency": ([*discover, "--method", "consistency", "--noises", 1], again),
            "discover over another": ([*discover, "--overwrite"], []),
            "train tokens": ([*train, "--train", "tokens"], again),
            "train lora": ([*train, "--train", "lora"], again),
            "train full": ([*train, "--train", "full"], again),
            "train over another": ([*train, "--train", "lora", "--overwrite"], []),
            "detect": ([*detect, "--format", "json,coco,glb,ply,colmap,csv"], []),
            "detect over another": ([*detect, "--format", "json", "--overwrite"], []),
            "dataset make": (make, anew),
            "the tiny model": (None, []),
        }
        assert tuple(self.commands) == NAMES
        self.known = {}

    def call(self, name, again=False):
        """Call the command in this process."""
        words, more = self.commands[name]
        if words is None:
            (self.root / "out").mkdir(exist_ok=True)
            recipe.note_config(self.root / "out" / "log.jsonl", RECIPE)
            recipe.train(RECIPE, self.root / "out", self.root / "model", SMALL)
            return {"status": 0, "sentence": False, "said": ""}
        got = answer(*words, *(more if again else []))
        return {"status": got.status, "sentence": got.sentence, "said": got.escaped or got.said}

    def run(self, name, disk=None, again=False):
        return apart(partial(self.call, name, again), disk or Disk(str(self.root)))

    def before(self, name):
        """What is there before the command: nothing, or what another call left."""
        if not name.endswith("over another"):
            return {}
        return self.undisturbed({"train": "train full"}.get(name.split()[0], name.split()[0]))[0]

    def undisturbed(self, name):
        """What there is after the command, and the operations that it took."""
        if name not in self.known:
            before = self.before(name)
            put(self.root, before)
            done = self.run(name)
            assert done.said.get("status") == 0, done.said
            self.known[name] = contents(self.root), done.operations
        return self.known[name]


@pytest.fixture(scope="module")
def world(tmp_path_factory, model_folder, chairs):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked process has none of the others
    made = World(tmp_path_factory.mktemp("chaos"), model_folder, chairs)
    for first in ("cache", "detect"):  # what they import need not be imported by each process
        put(made.root, {})
        assert made.call(first)["status"] == 0
    yield made
    torch.set_num_threads(threads)


@pytest.fixture(params=NAMES)
def name(request, chaos):
    if not chaos and request.param not in QUICK:
        pytest.skip("make chaos")
    return request.param


def places(operations, chaos, name, few=FEW):
    """All of the operations' numbers, or a few."""
    numbers = range(1, len(operations) + 1)
    return numbers if chaos else sorted(random.Random(name).sample(numbers, few))


def differences(found, expected):
    """Names of what is not the same."""
    return sorted(key for key in found.keys() | expected.keys() if found.get(key, 0) != expected.get(key, 0))


def ends_alike(world, name, where):
    """Call the command again, on a disk that works: all is as if nothing had happened."""
    expected, _ = world.undisturbed(name)
    last = world.run(name, again=True)
    assert last.said["status"] == 0, (where, last.said)
    assert differences(contents(world.root), expected) == [], where


def test_killed_at_any_operation_the_same_command_ends_alike(world, name, chaos, tally):
    _, operations = world.undisturbed(name)
    for at in places(operations, chaos, name):
        put(world.root, world.before(name))
        assert world.run(name, Disk(str(world.root), at)).killed, at
        ends_alike(world, name, f"killed at {at}, {operations[at - 1]}")
        tally["kills", f"{name}: killed, called again", "nothing lost"] += 1


@pytest.mark.parametrize("how", [FULL, FORBIDDEN])
def test_a_disk_that_refuses_is_told_in_one_sentence(world, name, how, chaos, tally):
    if name == "the tiny model":
        pytest.skip("no command")
    if not chaos and how == FORBIDDEN and name != "cache":
        pytest.skip("make chaos")
    _, operations = world.undisturbed(name)
    for at in places(operations, chaos, f"{name}{how}", 1):
        put(world.root, world.before(name))
        where = f"{os.strerror(how)} from {at} on, {operations[at - 1]}"
        got = world.run(name, Disk(str(world.root), at, how))
        if got.said.get("status") == 0:  # a link that became a copy, or something left behind
            outcome = "done all the same"
        else:
            assert got.said.get("sentence"), (where, got.said)
            outcome = "one sentence"
        ends_alike(world, name, where)
        tally["disk", f"{name}: {os.strerror(how).lower()}", outcome] += 1


STATES = {"discover": "checkpoint.safetensors", "train lora": "train.safetensors", "train full": "train.safetensors"}


def damaged(data, draw):
    """What a file may hold after a fault of the disk, and what that fault was."""
    places = {0, len(data) // 2, max(0, len(data) - 1)}
    yield from ((f"cut to {place} bytes", data[:place]) for place in sorted(places))
    for _ in range(5):
        place, bit = draw.randrange(max(1, len(data))), draw.randrange(8)
        flipped = bytes(byte ^ (1 << bit) if i == place else byte for i, byte in enumerate(data))
        yield f"bit {bit} of byte {place} flipped", flipped


@pytest.mark.parametrize("run", STATES)
def test_a_damaged_run_is_told_or_goes_on_to_the_same_end(world, run, chaos, tally):
    """What a run learns from is its checkpoint: damage there is told. Other files change no result."""
    if not chaos and run != "train lora":
        pytest.skip("make chaos")
    expected, operations = world.undisturbed(run)
    put(world.root, {})
    assert world.run(run, Disk(str(world.root), 3 * len(operations) // 4)).killed
    there, draw = contents(world.root / "out"), random.Random(chaos)
    assert STATES[run] in there
    files = [name for name, data in there.items() if data and not name.endswith((".png", ".partial"))]
    trials = [(name, *fault) for name in files for fault in damaged(there[name], draw)]
    for name, fault, data in trials if chaos else draw.sample(trials, 3):
        put(world.root / "out", there | {name: data})
        got = world.run(run, again=True)
        if got.said.get("status") == 0:
            differing = differences(contents(world.root), expected)
            allowed = () if name == STATES[run] else (f"out/{name}",)
            watching = ("log.jsonl", "losses.jsonl", "config.toml", "discover.toml", "train_", "samples_")
            assert all(one in allowed or Path(one).name.startswith(watching) for one in differing), (name, fault)
            outcome = "identical" if not differing else "results identical"
        else:
            assert got.said.get("sentence"), (name, fault, got.said)
            outcome = "one sentence"
        tally["disk", f"{run}: {Path(name).name} cut or flipped, resumed", outcome] += 1
