"""Cost and drift on a random model: every way runs, the UNet is left as it was, and the figures add up."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from keyorbit.diffusion.inspection.cost import Subject, _Bench, measure
from keyorbit.diffusion.inspection.drift import _compare, draw_box, measure_drift
from keyorbit.diffusion.inspection.variants import MEANING, VARIANTS, Cost

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "full_size.py"


@pytest.mark.parametrize("random", [True, False])
def test_every_way_runs_and_the_processors_are_put_back(model_folder, random):
    bench = _Bench(Subject(str(model_folder), tokens=4, random=random))
    before = dict(bench.unet.attn_processors)
    for variant in VARIANTS:
        seconds, peak = bench.run(variant)
        assert seconds > 0
        assert peak is None  # known on a GPU only
        assert dict(bench.unet.attn_processors) == before
    assert set(MEANING) == set(VARIANTS)


def test_random_weights_keep_activations_near_unit_size(model_folder):
    bench = _Bench(Subject(str(model_folder), random=True))
    weights = torch.cat([weight.flatten() for weight in bench.unet.parameters()])
    assert weights.isfinite().all()
    again = _Bench(Subject(str(model_folder), random=True))
    assert torch.equal(weights, torch.cat([weight.flatten() for weight in again.unet.parameters()]))
    with torch.no_grad():
        out = bench.unet(bench.latents["grid"], 300, bench.context).sample
    assert 0.01 < out.std() < 100


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


def test_drift_is_measured_for_each_view():
    original = torch.zeros(3, 2, 4, 4)
    joint = original.clone()
    joint[:, 1] = 0.1
    one = _compare(original, joint, original, 1, 1.0)
    assert one.psnr == pytest.approx((120.0, 20.0), abs=1e-4)
    assert one.largest == pytest.approx((0.0, 0.1))
    changed = _compare(original, joint, original + 1e-7, 1, 1.0)
    assert not changed.isolated_equal


def test_the_box_is_on_white():
    pixels = draw_box(64)
    assert pixels.getpixel((0, 0)) == (255, 255, 255)
    assert len(pixels.getcolors()) == 4


def test_progress_counts_to_its_total(model_folder, monkeypatch):
    monkeypatch.setattr("keyorbit.diffusion.inspection.cost._in_a_process_of_its_own", lambda subject, variant: 7)
    seen = []
    costs = measure(
        Subject(str(model_folder), 2, random=True), ("bare", "joint"), 2, lambda stage, i, n: seen.append((i, n))
    )
    assert seen == [(i, 7) for i in range(1, 8)]
    assert [cost.peak_bytes for cost in costs] == [7, 7]
