"""Discovery with a model of a single view."""

import numpy as np
import pytest
from PIL import Image

from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import discover
from keyorbit.objects.dataset import ObjectViews


def picture(seed=0, size=(40, 48), mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture(scope="module")
def pictures():
    return [ObjectViews(f"picture{i}", picture(i)) for i in range(3)]


@pytest.mark.parametrize(
    ("kind", "rate", "share"),
    # A random model's attention starts at 1/85 everywhere, where a squared error to a Gaussian has next to no gradient.
    [("logits", 0.05, 0.97), ("attention", 0.005, 0.9995), ("stablekeypoints", 0.05, 0.97)],
)
def test_discovery_lowers_its_objective(stable_diffusion, pictures, kind, rate, share):
    totals = []
    config = DiscoverConfig(
        num_tokens=3, num_candidates=8, steps=60, batch=3, rate=rate, maps=kind, start_temperature=0.01
    )
    found = discover(stable_diffusion, pictures, config, report=lambda s, i, n, v: totals.append(v.get("total")))
    totals = [total for total in totals if total is not None]
    assert sum(totals[-3:]) < share * sum(totals[:3])
    assert found.info.timestep == 0
    assert found.info.layers == stable_diffusion.default_layers
    assert found.info.settings["maps"] == kind


def test_joint_mode_and_half_precision(stable_diffusion_folder, pictures):
    half = load_backend(stable_diffusion_folder, dtype="bfloat16")
    config = DiscoverConfig(num_tokens=2, num_candidates=3, steps=1, batch=2, mode="joint")
    assert discover(half, pictures[:2], config).embedding.isfinite().all()
