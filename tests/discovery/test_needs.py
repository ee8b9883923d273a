"""What a step is said to take is what it takes, within a factor of two; and what cannot be had is not begun."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from keyorbit import budget
from keyorbit.diffusion.config import PrepareConfig
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import discover, start_run
from keyorbit.discovery.memory import open_source
from keyorbit.discovery.needs import step_needs
from keyorbit.errors import InputError
from keyorbit.geometry.constellation_config import ConstellationConfig
from keyorbit.objects.dataset import load_dataset
from keyorbit.ranks import Ranks

ONE = PrepareConfig(noises=1, warps=0)


def peak(work):
    """Bytes that torch held at once beyond what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = sorted(
        (event.start_ns(), event.nbytes())
        for event in profiler.profiler.kineto_results.events()
        if event.name() == "[memory]"
    )
    held = most = 0
    for _, size in events:
        held += size
        most = max(most, held)
    return most


@pytest.mark.parametrize(
    "config",
    [
        DiscoverConfig(method="consistency", map_size=48, batch=2, prepare=ONE),
        DiscoverConfig(method="consistency", map_size=48, batch=2, maps="attention", prepare=ONE),
        DiscoverConfig(map_size=64, batch=2, prepare=ONE),
        DiscoverConfig(batch=3, constellation=ConstellationConfig(angles=360), prepare=ONE),
    ],
)
def test_a_step_takes_what_was_estimated(config, backend, chairs):
    settled, objects = config.settled(backend), load_dataset(chairs)
    run = start_run(open_source(backend, objects, settled, Ranks(), lambda done, total: None), settled, Ranks())
    if hasattr(run, "places"):
        run.places = torch.randn(run.places.shape, generator=torch.Generator().manual_seed(0)) * 0.3
    run.step(0)
    needs = step_needs(settled, len(objects), backend.layout.num_views, run.side, 0)
    assert 0.5 < sum(size for size, _ in needs.values()) / peak(lambda: run.step(1)) < 2


def test_what_does_not_fit_is_refused_before_anything_is_done(backend, chairs, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "free_host_bytes", lambda: 10**9)
    for config, words in (
        (DiscoverConfig(map_size=4096), "the maps of 32 tokens, 4096 x 4096.* and 954 MiB are free: ask for a smaller"),
        (DiscoverConfig(prepare=PrepareConfig(warps=10**6)), "in 1000001 versions"),
        (DiscoverConfig(constellation=ConstellationConfig(angles=10**9)), "the search among 1000000000 turns"),
    ):
        with pytest.raises(InputError, match=words):
            discover(backend, load_dataset(chairs), config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_where_the_system_tells_of_no_limit_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(budget, "free_host_bytes", lambda: 0)
    budget.check_budget({"anything": (2**80, "")})
