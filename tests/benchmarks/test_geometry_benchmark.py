"""The comparison of kinds of agreement runs, and shows an object to the UNet once for all of them."""

import pytest

from keyorbit.diffusion.config import PrepareConfig
from keyorbit.discovery import memory as sources
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.synthetic.samples import SampleSpec, as_object, make_sample


@pytest.fixture(scope="module")
def geometry(benchmark_script):
    return benchmark_script("geometry")


def test_every_row_has_its_figures_and_objects_are_recorded_once(geometry, backend, monkeypatch):
    built = []
    real = sources.record_together
    monkeypatch.setattr(sources, "record_together", lambda *a, **k: built.append(1) or real(*a, **k))
    things = [as_object(make_sample(SampleSpec("mug", seed, 16))) for seed in range(4)]
    few = PrepareConfig(warps=1)
    config = DiscoverConfig(num_tokens=3, num_candidates=4, steps=1, batch=2, planting=2, exemplars=1, prepare=few)
    table = dict(geometry.rows(backend, things[:2], things[2:], config, 2))
    assert len(table) == len(geometry.WEIGHTS) * 2 + 3  # the constellation has three readings
    for figures in table.values():
        assert set(figures) == set(geometry.FIELDS)
        assert all(figures[name] is not None for name in geometry.FIELDS if name != "elevation")
        assert figures["reprojection_px"] == pytest.approx(16 * figures["reprojection"])
    assert built == [1, 1]
    geometry.show(table)
