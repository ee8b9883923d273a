"""Discovery and training on the device: they run, and find what they find on the CPU."""

import json
import threading
from dataclasses import dataclass, field, replace
from functools import cache

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from keyorbit.diffusion.attention import capture_attention
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.config import PrepareConfig
from keyorbit.diffusion.maps import view_maps
from keyorbit.discovery.cache.build import build_cache
from keyorbit.discovery.cache.disk import open_cache
from keyorbit.discovery.cache.index import plan_cache
from keyorbit.discovery.discover import discover, discover_cached
from keyorbit.ranks import Ranks
from keyorbit.storage.checkpoint import load_checkpoint
from keyorbit.training.config import Lora, Term, Terms, TrainConfig
from keyorbit.training.train import train
from other_device.common import DEVICE, FEW, NEAR, moved

pytestmark = pytest.mark.filterwarnings("error:.*appears to be a view operator")

METHODS, MAPS = ("constellation", "consistency"), ("logits", "attention", "stablekeypoints")
BOTH = [replace(FEW, method=method, maps="logits") for method in METHODS]
# Through the UNet each step takes a hundred times as long.
ONCE = replace(FEW, steps=1, batch=1, planting=1, prepare=PrepareConfig(noises=1, warps=0))
TRAINING = TrainConfig(
    num_tokens=2,
    steps=2,
    accumulate=1,
    tokens_first=0.0,
    terms=Terms(equivariance=Term(1.0)),
    keypoint_timesteps=1000,
    warmup=1,
    lora=Lora(rank=2),
    unet_rate=1e-3,
    save_every=1,
    log_every=1,
)


def same_tokens(found, here):
    torch.testing.assert_close(found.embedding, here.embedding, **NEAR)
    torch.testing.assert_close(torch.tensor(found.info.places), torch.tensor(here.info.places), **NEAR)
    assert found.info.pairs == here.info.pairs


@pytest.fixture(scope="module")
def discovered(backend, there, objects):
    """Discovers once, on either device."""
    models = {"cpu": backend, DEVICE: there}
    return cache(lambda device, config: discover(models[device], objects, config))


@pytest.mark.parametrize("maps", MAPS)
@pytest.mark.parametrize("method", METHODS)
def test_discovery(method, maps, discovered):
    config = replace(FEW, method=method, maps=maps)
    same_tokens(discovered(DEVICE, config), discovered("cpu", config))


@pytest.mark.parametrize("maps", MAPS)
@pytest.mark.parametrize("method", METHODS)
def test_discovery_through_the_unet(method, maps, backend, there, objects):
    config = replace(ONCE, method=method, maps=maps, mode="joint")
    here, found = (discover(model, objects[:2], config) for model in (backend, there))
    same_tokens(found, here)


@pytest.mark.parametrize(("maps", "mode"), [*((maps, "isolated") for maps in MAPS), ("logits", "joint")])
def test_discovery_of_single_views(maps, mode, stable_diffusion, stable_diffusion_there, objects):
    pictures = [replace(thing, views=None, masks=None, cameras=None, truth=None) for thing in objects]
    config = replace(FEW if mode == "isolated" else ONCE, maps=maps, mode=mode)
    here, found = (discover(model, pictures, config) for model in (stable_diffusion, stable_diffusion_there))
    same_tokens(found, here)


def test_discovery_on_generated_views(backend, there, objects, few_denoising_steps):
    pictures = [replace(thing, views=None, masks=None, cameras=None, truth=None) for thing in objects[:2]]
    config = replace(FEW, prepare=PrepareConfig(noises=1, warps=1))
    here, found = (discover(model, pictures, config) for model in (backend, there))
    same_tokens(found, here)


class Stopped(Exception):
    """As if the run had been killed."""


def stop_in_the_second(stage, done, total, values):
    if stage == "step" and done == 2:
        raise Stopped


def test_discovery_from_a_cache_on_disk(there, discovered, objects, tmp_path):
    built = build_cache(there, objects, plan_cache(there, objects, BOTH[0]), tmp_path / "cache")
    assert built.device.type == DEVICE
    found = discover_cached(open_cache(tmp_path / "cache", DEVICE), BOTH[0], tmp_path / "run")
    same_tokens(found, discovered("cpu", BOTH[0]))
    with pytest.raises(Stopped):
        discover_cached(built, replace(BOTH[0], save_every=1), tmp_path / "stopped", report=stop_in_the_second)
    again = discover_cached(built, replace(BOTH[0], save_every=1), tmp_path / "stopped", resume=True)
    assert torch.equal(again.embedding, found.embedding)


@pytest.mark.parametrize("config", BOTH, ids=METHODS)
def test_a_stopped_discovery_resumes(config, there, discovered, objects, tmp_path):
    saving = replace(config, save_every=1)
    with pytest.raises(Stopped):
        discover(there, objects, saving, tmp_path / "run", report=stop_in_the_second)
    assert load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[1]["step"] == 1
    again = discover(there, objects, saving, tmp_path / "run", resume=True)
    assert torch.equal(again.embedding, discovered(DEVICE, config).embedding)


@dataclass(frozen=True)
class ThreadRanks(Ranks):
    """Processes as threads, and their sums without torch.distributed: no backend of it knows the stand-in."""

    others: threading.Barrier = field(default_factory=lambda: threading.Barrier(1))
    given: list = field(default_factory=list)

    def wait(self):
        self.others.wait(timeout=60)

    def sum(self, tensor):
        self.given[self.index] = tensor.detach()
        self.wait()
        total = torch.stack(self.given).sum(0)
        self.wait()
        return total


@pytest.mark.parametrize("config", BOTH, ids=METHODS)
def test_discovery_by_two_processes(config, there, discovered, model_folder, objects):
    found, given, barrier = [None, None], [None, None], threading.Barrier(2)

    def work(index):
        model = there if index == 0 else load_backend(model_folder, DEVICE, "float32")
        try:
            found[index] = discover(model, objects, config, ranks=ThreadRanks(index, 2, barrier, given))
        except BaseException:
            barrier.abort()
            raise

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(found[0].embedding, found[1].embedding)
    # Bit for bit is promised on the CPU: a GPU computes all objects of a process at once, and sums in another order.
    same_tokens(found[0], discovered(DEVICE, config))


@pytest.mark.parametrize("mode", ["isolated", "joint"])
def test_capture(mode, backend, there):
    latents, context, tokens = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in SHAPES)
    given = latents, torch.tensor([300]), torch.cat([context, tokens], 1)
    maps = []
    for model, put in ((backend, lambda x: x), (there, moved)):
        with torch.no_grad(), capture_attention(model.unet, passes=("grid",), mode=mode, normalizer=True) as record:
            model.unet(*map(put, given))
        layers = record.token_logits(), record.token_maps()
        maps.append([view_maps(some, model.layout, (8, 8)) for some in layers])
    for here, found in zip(*maps, strict=True):
        assert found.device.type == DEVICE
        torch.testing.assert_close(found.cpu(), here, **NEAR)


SHAPES = (1, 4, 24, 16), (1, 77, 16), (1, 3, 16)


@pytest.fixture
def accelerators():
    """Accelerators on the device and on the CPU. Accelerate finds GPUs of names that it knows, so it is told of ours.

    fp16 is left out: its scaler of gradients is one of torch's own devices'.
    """

    def make(device, precision):
        AcceleratorState._reset_state(reset_partial_state=True)
        found = Accelerator(cpu=True, mixed_precision=precision)
        found.state.device = torch.device(device)
        return found

    yield make
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(
    ("trained", "more"),
    [
        ("tokens", {"mode": "isolated"}),
        ("lora", {"sample_every": 1, "sample_steps": 1}),
        ("full", {"checkpointing": True}),
        ("full", {"precision": "bf16"}),
    ],
)
def test_training(trained, more, model_folder, objects, tmp_path, accelerators):
    config = replace(TRAINING, train=trained, steps=1, **more)
    found, lines = [], []
    for device in ("cpu", DEVICE):
        model, out = load_backend(model_folder, device, "float32"), tmp_path / device
        found.append(train(model, objects, config, out, accelerator=accelerators(device, config.precision)))
        lines += [[json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]]
        assert (out / "model").is_dir() == (trained != "tokens")
    # Autocast rounds other operations there than on the CPU.
    near = {"atol": 0.1, "rtol": 0.1} if config.precision == "bf16" else {"atol": 1e-3, "rtol": 1e-3}
    torch.testing.assert_close(found[1].embedding, found[0].embedding, **near)
    for here, there in zip(*lines, strict=True):
        assert here.pop("stage") == there.pop("stage")
        assert there == pytest.approx(here, rel=near["rtol"], abs=near["atol"])


def test_a_stopped_training_resumes(model_folder, objects, tmp_path, accelerators):
    def stop(done, steps, terms):
        if done == 2:
            raise Stopped

    def run(out, **more):
        model = load_backend(model_folder, DEVICE, "float32")
        return train(model, objects, TRAINING, out, accelerator=accelerators(DEVICE, "no"), **more)

    with pytest.raises(Stopped):
        run(tmp_path / "run", report=stop)
    again = run(tmp_path / "run", resume=True)
    assert torch.equal(again.embedding, run(tmp_path / "whole").embedding)
