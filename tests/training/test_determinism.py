"""Training under ``--deterministic``: no operation that a GPU would refuse then."""

from dataclasses import replace

import pytest
import torch

from helpers.unordered import Refused
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.tokens import Tokens
from keyorbit.training.config import Lora, Term, Terms, TrainConfig
from keyorbit.training.optimise import Draw
from keyorbit.training.step import TrainingStep
from keyorbit.training.weights import learning

CONFIG = TrainConfig(
    num_tokens=3, keypoint_timesteps=1000, terms=Terms(equivariance=Term(1.0)), lora=Lora(rank=2), checkpointing=True
)


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (lambda x: x.median(dim=-1).values.sum(), "median.dim"),
        (lambda x: torch.nn.functional.adaptive_avg_pool2d(x, 2).sum(), "_adaptive_avg_pool2d_backward.default"),
        (lambda x: torch.nn.functional.interpolate(x, 9, mode="bicubic").sum(), "upsample_bicubic2d_backward.default"),
        (lambda x: x.cumsum(-1).sum(), "cumsum.default"),
        (lambda x: x.median() + x.long().cumsum(-1).sum() + x.sort(-1).values.sum(), None),
    ],
)
def test_what_a_gpu_refuses_is_found(operation, name):
    x = torch.rand(1, 1, 4, 4, requires_grad=True)
    with Refused() as seen:
        operation(x).backward()
    assert (name in seen.found) if name else not seen.found


@pytest.mark.parametrize("mode", ["joint", "isolated"])
@pytest.mark.parametrize("trained", ["lora", "full"])
def test_a_training_step_has_an_order(mode, trained, model_folder, objects, deterministic):
    model, config = load_backend(model_folder), replace(CONFIG, train=trained, mode=mode)
    tokens = Tokens.initialise(model.text_statistics(torch.Generator().manual_seed(0)), 3, torch.Generator())
    with learning(model, config):
        step = TrainingStep(model, objects, tokens, config, config.reading(model, None))
        with step.recording(), Refused() as seen:
            step(Draw(0, 0))["loss"].backward()
    assert tokens.embedding.grad.abs().sum() > 0
    assert not seen.found
