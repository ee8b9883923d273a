"""Training on the device: between two lines of the log nobody waits for it, neither joint training nor the recipe."""

from contextlib import ExitStack
from dataclasses import replace

import jaxtyping
import pytest
import torch
from accelerate import Accelerator

import pretend_device
from helpers.counting import Counting
from helpers.models import SMALL
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.tokens import Tokens
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.geometry.views import Layout
from keyorbit.training.config import Lora, TrainConfig
from keyorbit.training.schedule import OptimiseConfig
from keyorbit.training.state import TrainingState
from keyorbit.training.step import TrainingStep, training_step
from keyorbit.training.train import train
from tiny_model.denoising import DenoisingConfig, DenoisingTask, train_denoising
from tiny_model.grounding import render_places
from tiny_model.model import make_tiny
from tiny_model.teacher import Teacher
from tiny_model.texts import below
from tiny_model.training_data import Stock, encode_training_set, render_training_set, training_specs
from tiny_model.vision import VisionConfig, VisionTask

DEVICE = pretend_device.NAME
CATEGORIES = ("chair", "mug")
CONFIG = TrainConfig(
    num_tokens=3,
    steps=5,
    batch=3,
    accumulate=1,
    tokens_first=0.0,
    keypoint_timesteps=1000,
    log_every=100,
    save_every=100,
    lora=Lora(rank=2),
)


class PerStep:
    """Stands before a function that every step calls first, and counts from one call to the next."""

    def __init__(self, function):
        self.function, self.open, self.steps = function, ExitStack(), []

    def __call__(self, *arguments):
        self.open.close()
        self.steps.append(self.open.enter_context(pretend_device.reads()))
        return self.function(*arguments)

    def between(self):
        """All but the last step, behind which the log is written and the state saved."""
        self.open.close()
        return self.steps[:-1]


@pytest.mark.parametrize("trained", ["tokens", "lora", "full"])
def test_joint_training_reads_nothing_between_the_lines_of_its_log(
    trained, model_folder, objects, tmp_path, monkeypatch
):
    model = load_backend(model_folder, DEVICE, "float32")
    real, loads = TrainingStep.__call__, []
    counted = PerStep(lambda step, draw: real(step, draw))
    monkeypatch.setattr(TrainingStep, "__call__", lambda step, draw: counted(step, draw))
    passes = []
    for name, kept in (("load", loads), ("novel_views", passes)):
        method = getattr(TrainingStep, name)

        def counting(*arguments, method=method, kept=kept):
            with pretend_device.reads() as traffic:
                kept.append(traffic)
                return method(*arguments)

        monkeypatch.setattr(TrainingStep, name, counting)
    found = train(model, objects, replace(CONFIG, train=trained), tmp_path, Tokens(torch.randn(3, 16)))
    assert found.embedding.isfinite().all()
    assert [step.reads for step in counted.between()] == [[]] * 4
    # In the first step every object is encoded; then only its noise and its condition's are brought to the device.
    assert [len(traffic.writes) for traffic in loads[1:]] == [2 * 3] * 4
    assert len(loads[0].writes) > 2 * 3
    assert [traffic.writes for traffic in passes] == [[]] * 5


def test_joint_training_there_is_that_of_the_cpu(model_folder, objects, tmp_path):
    start = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    found, steps = [], []
    for device in ("cpu", DEVICE):
        steps.append(training_step(load_backend(model_folder, device, "float32"), objects[0], Tokens(start)))
        model, config = load_backend(model_folder, device, "float32"), replace(CONFIG, train="full", save_every=2)
        found.append(train(model, objects, config, tmp_path / device, Tokens(start)))
    torch.testing.assert_close(found[1].embedding, found[0].embedding, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(steps[1].total.cpu(), steps[0].total, atol=1e-4, rtol=1e-4)


def test_adamw_is_one_operation_and_goes_on_from_a_file_in_any_order_of_memory(tmp_path):
    """Convolutions whose channels lie last: a fused kernel takes no moments in another order than their weight's."""

    def state_of(seed):
        torch.manual_seed(seed)
        module = torch.nn.Conv2d(3, 4, 3).to(DEVICE).to(memory_format=torch.channels_last)
        return TrainingState({"module": module}, 0.99, 1e-2, Accelerator(cpu=True))

    def updated(state, step):
        for i, p in enumerate(state.weights.values()):
            p.grad = torch.full_like(p, 0.1 * (step + i + 1))
        with Counting() as counted:
            state.update(step)
        assert counted.operations["_fused_adamw_"] == 1
        assert counted.operations["addcdiv_"] == counted.operations["_foreach_addcdiv_"] == 0

    whole = state_of(0)
    updated(whole, 0)
    whole.save(tmp_path / "state.safetensors", 1, {}, 0)
    again = state_of(1)
    assert again.restore(tmp_path / "state.safetensors", {}).step == 1
    for p, moments in again.optimizer.state.items():
        assert moments["step"].device.type == DEVICE
        assert moments["exp_avg"].stride() == moments["exp_avg_sq"].stride() == p.stride()
    updated(whole, 1)
    updated(again, 1)
    for key, value in whole.weights.items():
        assert torch.equal(again.weights[key].cpu(), value.cpu())
        assert torch.equal(again.average[key].cpu(), whole.average[key].cpu())


@pytest.fixture
def own_generators(monkeypatch):
    """The stand-in has no random generators; without one it draws from torch's own."""
    real = torch.Generator

    class OfTheDevice:
        def manual_seed(self, seed):
            return None

    def generator(device="cpu"):
        return real() if torch.device(device).type == "cpu" else OfTheDevice()

    monkeypatch.setattr(torch, "Generator", generator)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # None is no generator


def test_numbers_below_limits_are_drawn_there(own_generators):
    limits = torch.tensor([1, 2, 5]).repeat(300).to(DEVICE)
    drawn = below(limits, torch.Generator(DEVICE).manual_seed(0)).cpu().reshape(300, 3)
    assert [sorted(set(column)) for column in drawn.T.tolist()] == [[0], [0, 1], [0, 1, 2, 3, 4]]


def test_the_recipe_neither_reads_nor_writes_between_the_lines_of_its_log(tmp_path, own_generators, monkeypatch):
    device = torch.device(DEVICE)

    def there(parts):
        for module in (parts.vae, parts.unet, parts.text_encoder, parts.vision_encoder):
            module.to(device)
        return Zero123PlusBackend(parts, Layout(3, 2), zero123plus_cameras().to(device), SMALL.view_size, "there")

    backend = there(make_tiny(SMALL))
    knows = torch.arange(len(CATEGORIES) + 1).to(device) == 0
    teacher = Teacher(there(make_tiny(SMALL, seed=1)), knows, 4.0)
    data = render_training_set(CATEGORIES, 2, 0, SMALL.view_size, 1, tmp_path / "data.safetensors")
    encoded = encode_training_set(data, backend, tmp_path / "encoded.safetensors").to(device)
    specs = training_specs(CATEGORIES, 2, 0, SMALL.view_size // 2)
    places = render_places(specs, 1, tmp_path / "places.safetensors").to(device)
    looks = tmp_path / "looks.safetensors"
    stock = Stock(CATEGORIES, 2, device)
    vision = VisionTask(VisionConfig(2, looks=2), CATEGORIES, 0, stock, encoded, specs, [], backend, looks, 1)
    few = OptimiseConfig(9, 1e-3, save_every=100, log_every=100)
    task = DenoisingTask(DenoisingConfig(2, optimise=few), stock, encoded, places, vision, backend, True, teacher)
    kinds = []

    def draw(draw):
        shown = DenoisingTask.draw(task, draw)
        kinds.append(shown.sought is None)
        return shown

    counted = PerStep(draw)
    monkeypatch.setattr(task, "draw", counted)
    train_denoising(task, 0, tmp_path, Accelerator(cpu=True), float("inf"), lambda step: None)
    assert [step.reads + step.writes for step in counted.between()] == [[]] * 8
    assert set(kinds[:8]) == {True, False}  # coarse steps and others
