"""Cost and drift on a random model: every way runs, the UNet is left as it was, and the figures add up."""

import importlib.util
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from keyorbit.diffusion.inspection.architectures import load_architecture
from keyorbit.diffusion.inspection.cost import Subject, measure, random_weights
from keyorbit.diffusion.inspection.drift import draw_box, measure_drift
from keyorbit.diffusion.inspection.passes import run_passes
from keyorbit.diffusion.inspection.variants import MEANING, VARIANTS, Cost

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "full_size.py"


@pytest.fixture
def no_process(monkeypatch):
    """Processes that are started to measure their memory return 7 at once."""
    pool = SimpleNamespace(apply=lambda function, arguments: 7)
    context = SimpleNamespace(Pool=lambda count: nullcontext(pool))
    monkeypatch.setattr("multiprocessing.get_context", lambda method: context)


@pytest.mark.parametrize("random", [True, False])
def test_every_way_runs_and_the_processors_are_put_back(model_folder, random, monkeypatch, no_process):
    seen = []

    def run(unet, latents, context):
        seen.append(dict(unet.attn_processors))
        return run_passes(unet, latents, context)

    monkeypatch.setattr("keyorbit.diffusion.inspection.cost.run_passes", run)
    costs = measure(Subject(str(model_folder), tokens=4, random=random), VARIANTS, repeats=2)
    assert [cost.variant for cost in costs] == list(VARIANTS)
    assert all(len(cost.seconds) == 2 and min(cost.seconds) > 0 for cost in costs)
    assert set(MEANING) == set(VARIANTS)
    # A warm-up, then two rounds of every way: the second begins as the first did.
    assert VARIANTS[0] == "bare"
    assert len(seen) == 1 + 2 * len(VARIANTS)
    assert seen[0] == seen[1] == seen[1 + len(VARIANTS)]


def test_random_weights_keep_activations_near_unit_size(model_folder, generator):
    with torch.no_grad():
        unet, again = (
            random_weights(
                load_architecture(str(model_folder)).build_unet(),
                torch.device("cpu"),
                torch.float32,
                torch.Generator().manual_seed(0),
            )
            for _ in range(2)
        )
        weights, others = (torch.cat([weight.flatten() for weight in one.parameters()]) for one in (unet, again))
        assert weights.isfinite().all()
        assert torch.equal(weights, others)
        out = unet(torch.randn(1, 4, 24, 16, generator=generator), 300, torch.randn(1, 93, 16, generator=generator))
    assert 0.01 < out.sample.std() < 100


def test_ratios_are_of_the_same_round():
    # The machine gets three times slower after the first round; side by side nothing changed.
    bare, other = Cost("bare", (1.0, 3.0, 3.0), 100), Cost("joint", (1.1, 3.3, 3.3), 110)
    assert other.slower_than(bare) == pytest.approx(1.1)
    assert (bare.median, bare.slower_than(bare)) == (3.0, 1.0)


def test_the_benchmark_on_a_small_model(model_folder, tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("full_size", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    file = tmp_path / "costs.json"
    words = ["--model", model_folder, "--ways", "isolated", "--repeats", 2, "--tokens", 4, "--json", file]
    monkeypatch.setattr(sys, "argv", ["full_size.py", *map(str, words)])
    module.main()
    costs = json.loads(file.read_text())
    assert [cost["variant"] for cost in costs] == ["bare", "isolated"]
    assert all(len(cost["seconds"]) == 2 and cost["peak_bytes"] > 10**8 for cost in costs)
    said = capsys.readouterr().out
    assert "isolated against bare" in said
    assert "7/7 time isolated" in said
    missed = module.verdict([Cost("bare", (1.0,), 100), Cost("isolated", (1.02,), 106)])
    assert "time 1.020 (goal 1.03): met" in missed
    assert "memory 1.060 (goal 1.05): missed" in missed


def test_drift_is_exactly_nothing_in_isolated_mode_only(backend):
    found = measure_drift(backend, counts=(1, 3), norms=(1.0, 4.0), steps=1)
    assert [(one.tokens, one.norm) for one in found] == [(1, 1.0), (3, 1.0), (1, 4.0), (3, 4.0)]
    for one in found:
        assert one.isolated_equal
        assert one.isolated_max == 0
        assert len(one.psnr) == len(one.largest) == 6
        assert max(one.psnr) < 120
        assert min(one.largest) > 0


@pytest.mark.parametrize("change", [0.0, 1e-7])
def test_drift_is_measured_for_each_view(change, backend, monkeypatch):
    original = torch.zeros(1, 3, 48, 32)
    joint = original.clone()
    joint[..., :16, 16:] = 0.1  # the second view
    pictures = iter([original, joint, original + change])  # without tokens, with them, and with them isolated
    monkeypatch.setattr(backend, "generate", lambda *_, **__: next(pictures), raising=False)
    (one,) = measure_drift(backend, counts=(1,), norms=(1.0,), steps=1)
    assert one.psnr == pytest.approx((120.0, 20.0, *[120.0] * 4), abs=1e-4)
    assert one.largest == pytest.approx((0.0, 0.1, *[0.0] * 4))
    assert one.isolated_equal == (change == 0)


def test_the_box_is_on_white():
    pixels = draw_box(64)
    assert pixels.getpixel((0, 0)) == (255, 255, 255)
    assert len(pixels.getcolors()) == 4


def test_progress_counts_to_its_total(model_folder, no_process):
    seen = []
    costs = measure(
        Subject(str(model_folder), 2, random=True), ("bare", "joint"), 2, lambda stage, i, n: seen.append((i, n))
    )
    assert seen == [(i, 7) for i in range(1, 8)]
    assert [cost.peak_bytes for cost in costs] == [7, 7]
