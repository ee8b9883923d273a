"""One step of joint training by itself, and what the shape analysis' own code does when it is run."""

import pytest
import torch

import keyorbit as ko
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.discovery import losses
from keyorbit.errors import InputError
from keyorbit.geometry.heatmaps import gaussian
from keyorbit.training.config import TrainConfig
from keyorbit.training.optimise import Draw
from keyorbit.training.step import TrainingStep, training_step

LOSSES = ("nvs", "localization", "consistency", "geometric")


@pytest.fixture
def tokens():
    return ko.Tokens(torch.randn(4, 16, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("mode", ["joint", "isolated"])
def test_it_is_a_step_of_joint_training(mode, backend, objects, tokens):
    found = training_step(backend, objects[1], tokens, 250, mode, seed=3)
    config = TrainConfig(num_tokens=4, mode=mode, seed=3, dropped=0.0, timesteps=(250, 251))
    step = TrainingStep(backend, [objects[1]], tokens, config, config.reading(backend, tokens))
    with step.recording():
        terms = step(Draw(3, 0))
    for name in LOSSES:
        torch.testing.assert_close(getattr(found, name), terms[name])
    torch.testing.assert_close(found.total, terms["loss"])


def test_its_shapes_are_those_that_are_documented(backend, objects, tokens):
    step = training_step(backend, objects[0], tokens)
    assert step.v.shape == (1, 4, 24, 16)
    layers = step.record.layers()
    assert {layer.size for layer in layers} == {(24, 16), (12, 8)}
    for layer in layers:
        assert layer.probabilities.shape[2:] == layer.token_logits.shape[2:] == (layer.size[0] * layer.size[1], 4)
    step.total.backward()
    assert tokens.embedding.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in backend.unet.parameters())
    weights = dict(zip(LOSSES, (1, 0.5, 0.3, 0.2), strict=True))
    torch.testing.assert_close(step.total, sum(weight * getattr(step, name) for name, weight in weights.items()))


def test_only_in_joint_mode_the_tokens_change_the_views(backend, objects, tokens):
    others = ko.Tokens(-tokens.embedding)
    for mode, same in (("isolated", True), ("joint", False)):
        one, other = (training_step(backend, objects[0], these, mode=mode) for these in (tokens, others))
        assert torch.equal(one.v, other.v) == same
        assert torch.equal(one.nvs, other.nvs) == same


def test_a_step_in_another_layout(model_folder, objects, tokens):
    wide = load_backend(model_folder, layout="2x3")
    assert training_step(wide, objects[0], tokens).v.shape == (1, 4, 16, 24)


def test_what_has_no_step_is_refused(backend, stable_diffusion, model_folder, objects, tokens):
    with pytest.raises(InputError, match="single view"):
        training_step(stable_diffusion, objects[0], tokens)
    for timestep in (-1, 1000):
        with pytest.raises(InputError, match="timestep cannot be"):
            training_step(backend, objects[0], tokens, timestep)
    with pytest.raises(InputError, match="has no views"):
        training_step(backend, ko.ObjectViews("bare", objects[0].input_image), tokens)
    with pytest.raises(InputError, match="has 6 views; the model has 4"):
        training_step(load_backend(model_folder, layout="2x2", rig="mvdream"), objects[0], tokens)


# What docs/shape-analysis.md says of the document's code. Its maps are [head, position, token], its views 40 x 40.


def test_a_region_of_the_grid_cannot_be_viewed_flat():
    region = torch.rand(5, 9600, 93).view(5, 80, 120, 93)[:, :40, :40, 77:]
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        region.view(5, 1600, 16)
    assert region.reshape(5, 1600, 16).shape == (5, 1600, 16)


def test_unsqueezing_puts_the_tokens_where_a_column_of_pixels_should_be():
    peaks = 0.1 + 0.8 * torch.rand(16, 2, generator=torch.Generator().manual_seed(0))
    sharp = gaussian(((peaks * 40).floor() + 0.5) / 40, 40, 40, 2.0).movedim(0, -1)  # [row, column, token], as there
    assert losses.sharpening(sharp.movedim(-1, 0)) < 1e-12  # one Gaussian a token: nothing to sharpen
    assert losses.sharpening(sharp.unsqueeze(0)) > 0.01  # 40 maps of 40 columns x 16 tokens


@pytest.mark.parametrize(("width", "right"), [(40, True), (20, False), (10, False)])
def test_a_fixed_width_finds_the_peak_of_one_layer_only(width, right):
    view = torch.zeros(width, width)
    view[width // 2, width // 4] = 1
    found = divmod(int(view.flatten().argmax()), 40)
    assert (found == (width // 2, width // 4)) == right
    assert losses.argmax_rowcol(view[None]).tolist() == [[width // 2, width // 4]]
