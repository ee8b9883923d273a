"""Which type a model computes in: half precision where its maps bear it, measured; what does not bear it is refused."""

import math

import pytest
import torch

from keyorbit.diffusion import precision
from keyorbit.diffusion.backends import loading
from keyorbit.diffusion.backends.base import Precision
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.precision import (
    NO_ROOM,
    Difference,
    Probe,
    difference,
    load_settled,
    probe,
    probe_tokens,
    settle_precision,
)
from keyorbit.discovery.config import DiscoverConfig, map_side
from keyorbit.geometry.heatmaps import spatial_softmax


@pytest.fixture
def model(model_folder):
    """One that may be changed."""
    return load_backend(model_folder, "cpu", "float32")


def weights(backend):
    return {name: value.clone() for name, value in backend.unet.state_dict().items()}


def same(found, wanted):
    return all(torch.equal(found[name], value) for name, value in wanted.items())


def test_the_tolerances_are_what_the_documentation_says():
    assert (precision.MEAN_TOLERANCE, precision.WORST_TOLERANCE, precision.PICTURE_TOLERANCE) == (0.03, 0.15, 0.02)
    assert precision.HALF_TYPES == ("float16", "bfloat16")


def test_heatmaps_are_compared_as_discovery_makes_them(model):
    assert DiscoverConfig().temperature == precision.TEMPERATURE
    found = probe(model, probe_tokens(model))
    side = map_side(model, DiscoverConfig().map_size)
    assert found.heatmaps.shape == (1, 6, 16, side, side)
    torch.testing.assert_close(found.heatmaps.sum((-2, -1)), torch.ones(1, 6, 16))
    assert torch.equal(probe(model, probe_tokens(model)).heatmaps, found.heatmaps)


def test_another_draw_of_noise_moves_more_than_is_tolerated(model):
    tokens = probe_tokens(model)
    found = difference(probe(model, tokens, draw=1), probe(model, tokens))
    assert found.mean > 3 * precision.MEAN_TOLERANCE
    assert found.picture == 0


def test_the_difference_is_the_share_that_is_elsewhere():
    """Of two heatmaps that are points, the first is moved by three quarters of itself; the second stays."""
    spot = torch.zeros(1, 1, 2, 4, 4)
    spot[..., 1, 1] = 1.0
    moved = spot.clone()
    moved[:, :, 0, 1, 1], moved[:, :, 0, 3, 3] = 0.25, 0.75
    picture = torch.zeros(1, 3, 2, 2)
    found = difference(Probe(moved, picture + 0.1), Probe(spot, picture))
    beyond_flat = 15 / 16
    assert found.mean == pytest.approx(0.75 / 2 / beyond_flat)
    assert found.worst == pytest.approx(0.75 / beyond_flat)
    assert found.picture == pytest.approx(0.1)


def test_maps_that_say_little_are_judged_by_what_they_say():
    """Nearly flat maps, as attention has them: the same relative change counts the same."""
    logits = torch.randn(1, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    noise, picture = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)), torch.zeros(1, 3, 2, 2)
    shares = []
    for scale in (1.0, 1e-3):
        one, other = (spatial_softmax(scale * x) for x in (logits, logits + 0.01 * noise))
        shares.append(difference(Probe(other, picture), Probe(one, picture)).mean)
    assert shares[1] == pytest.approx(shares[0], rel=0.3)


@pytest.mark.parametrize(
    ("mean", "worst", "picture", "tolerable"),
    [(0.03, 0.15, 0.02, True), (0.031, 0.15, 0.02, False), (0.03, 0.151, 0.02, False), (0.03, 0.15, 0.021, False)],
)
def test_each_tolerance_counts(mean, worst, picture, tolerable):
    assert Difference(mean, worst, picture).tolerable == tolerable


@pytest.mark.parametrize("broken", ["heatmaps", "picture"])
def test_what_is_not_finite_is_never_tolerable(broken):
    sound = Probe(torch.full((1, 1, 1, 2, 2), 0.25), torch.zeros(1, 3, 2, 2))
    spot = Probe(torch.tensor([1.0, 0, 0, 0]).reshape(1, 1, 1, 2, 2), sound.picture)
    assert difference(spot, spot).tolerable
    spoiled = {"heatmaps": spot.heatmaps, "picture": spot.picture, broken: getattr(spot, broken) * math.nan}
    assert not difference(Probe(**spoiled), spot).tolerable


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_keeps_the_maps(dtype, model, model_folder):
    found = settle_precision(model, (dtype,))
    assert found.dtype == dtype
    assert model.dtype == getattr(torch, dtype)
    assert 1e-4 < found.mean < found.worst < {"float16": 0.02, "bfloat16": 0.15}[dtype]
    assert found.words.startswith(f"{dtype}: maps within {100 * found.mean:.1f} % of float32")
    assert same(weights(model), weights(load_backend(model_folder, "cpu", dtype)))


def test_float16_is_nearer_than_bfloat16_and_taken_first(model):
    assert settle_precision(model).dtype == "float16"


def spoil_unet(model):
    """Activations a million times as large in one place, which the next normalization takes back."""
    model.unet.conv_in.weight.data.mul_(1e6)


def spoil_vae(model):
    model.parts.vae.decoder.conv_in.weight.data.mul_(1e7)


@pytest.mark.parametrize("spoil", [spoil_unet, spoil_vae])
def test_a_model_that_overflows_float16_gets_the_next_type(spoil, model):
    spoil(model)
    before = weights(model)
    assert settle_precision(model).dtype == "bfloat16"
    # Rounded once: from float32, not from float16.
    assert same(weights(model), {name: value.to(torch.bfloat16) for name, value in before.items()})


def test_a_model_that_bears_no_half_precision_stays_as_it_was(model, monkeypatch):
    before = weights(model)
    monkeypatch.setattr(precision, "MEAN_TOLERANCE", 1e-6)
    found = settle_precision(model)
    assert (found.dtype, found.mean) == ("float32", None)
    assert "no type of half precision" in found.words
    assert model.dtype == torch.float32
    assert same(weights(model), before)


def test_a_type_that_the_device_does_not_compute_in_is_left_out(model, monkeypatch):
    """By its own word, or where an operation is missing."""
    spoil_unet(model)
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    assert settle_precision(model).dtype == "float32"


def test_a_missing_operation_rules_a_type_out(model, monkeypatch):
    def lacking(backend, tokens):
        if backend.dtype == torch.float16:
            raise NotImplementedError("\"conv\" is not implemented for 'Half'")
        return probe(backend, tokens)

    monkeypatch.setattr(precision, "probe", lacking)
    assert settle_precision(model).dtype == "bfloat16"


def full(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_where_nothing_can_be_compared_float16_is_taken_and_said(dtype, model, monkeypatch):
    """Memory runs out in float32, or in float16 beside it."""
    monkeypatch.setattr(
        precision, "probe", lambda backend, *_: full() if backend.dtype == dtype else probe(backend, *_)
    )
    found = settle_precision(model)
    assert found == Precision("float16", reason=NO_ROOM)
    assert "not compared" in found.words
    assert model.dtype == torch.float16


def test_where_float32_does_not_even_load_float16_does(model_folder):
    def load(dtype):
        if dtype == torch.float32:
            full()
        return load_backend(model_folder, "cpu", str(dtype).removeprefix("torch."))

    loaded = load_settled(load)
    assert loaded.dtype == torch.float16
    assert loaded.precision.reason == NO_ROOM


@pytest.mark.parametrize("where", ["load", "measurement"])
def test_other_errors_are_not_hidden(where, model, monkeypatch):
    def fail(*_):
        raise RuntimeError("size mismatch")

    monkeypatch.setattr(precision, "probe", fail)
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_settled(fail if where == "load" else lambda dtype: model)


def test_on_the_cpu_nothing_is_measured(model_folder, monkeypatch):
    monkeypatch.setattr(loading, "load_settled", full)
    backend = load_backend(model_folder, "cpu")
    assert backend.dtype == torch.float32
    assert backend.precision == Precision("float32")
    assert load_backend(model_folder, "cpu", "bfloat16").precision == Precision("bfloat16")


def test_a_single_view_is_measured_by_its_attention(stable_diffusion_folder):
    """Random weights: their attention says next to nothing, of which bfloat16 keeps little."""
    model = load_backend(stable_diffusion_folder, "cpu", "float32")
    tokens = probe_tokens(model)
    reference = probe(model, tokens)
    assert reference.heatmaps.shape[:3] == (1, 1, 16)
    assert settle_precision(model, ("bfloat16",)).dtype == "float32"
    assert torch.equal(probe(model, tokens).heatmaps, reference.heatmaps)
