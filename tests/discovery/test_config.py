"""Settings of a discovery: defaults, limits, and files of older versions."""

from pathlib import Path

import pytest

import keyorbit
from keyorbit.diffusion.config import PrepareConfig
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.config import DiscoverConfig, config_from_settings, plain_settings
from keyorbit.discovery.weights import LossWeights, SingleViewWeights
from keyorbit.errors import InputError
from keyorbit.storage.settings import read_toml, to_toml


@pytest.mark.parametrize(
    ("method", "asked", "expected"),
    [
        ("constellation", PrepareConfig(), (0, 3)),
        ("consistency", PrepareConfig(), (2, 1)),
        ("constellation", PrepareConfig(warps=1), (1, 1)),
        ("constellation", PrepareConfig(noises=2), (0, 2)),
        ("consistency", PrepareConfig(warps=0, noises=4), (0, 4)),
    ],
)
def test_what_was_not_asked_for_suits_the_method(backend, method, asked, expected):
    settled = DiscoverConfig(method=method, prepare=asked).settled(backend).prepare
    assert (settled.warps, settled.noises) == expected
    assert settled.versions == (1 + expected[0]) * expected[1]


def test_the_temperature_falls_and_then_holds():
    config = DiscoverConfig(steps=100, start_temperature=0.08, temperature=0.02)
    assert config.temperature_at(0) == pytest.approx(0.08)
    assert config.temperature_at(40) == pytest.approx(0.04)
    assert [config.temperature_at(step) for step in (80, 99)] == pytest.approx([0.02, 0.02])


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(InputError, match=r"^temperature cannot be 0\.0; it must be a number >= 1e-12"):
        DiscoverConfig(temperature=0.0)
    with pytest.raises(InputError, match="5 keypoints cannot be chosen from 4 tokens"):
        DiscoverConfig(num_tokens=5, num_candidates=4)
    with pytest.raises(InputError, match=r"^batch cannot be 0; it must be a whole number >= 1"):
        DiscoverConfig(batch=0)
    with pytest.raises(InputError, match=r"^exemplars cannot be 0"):
        DiscoverConfig(exemplars=0)


DISCOVERY = DiscoverConfig(
    layers=("up*",),
    maps="attention",
    prepare=PrepareConfig(timestep=(100, 300), warps=1),
    single_view=SingleViewWeights(),
    weights=LossWeights(margin=0.2),
)


@pytest.mark.parametrize("config", [DiscoverConfig(), DISCOVERY])
def test_settings_of_a_discovery_survive_toml(config, tmp_path):
    (tmp_path / "c.toml").write_text(to_toml(config))
    assert read_toml(tmp_path / "c.toml", DiscoverConfig) == config


SHIPPED = Path(keyorbit.__file__).parent / "assets/examples/tokens.safetensors"


def test_the_shipped_tokens_are_of_an_older_version_and_still_read():
    settings = Tokens.load(SHIPPED).info.settings
    assert settings["weights"]["epipolar"] == 0
    config = config_from_settings(settings)
    assert (config.weights, config.method, config.prepare.noises) == (LossWeights(), "constellation", 3)


@pytest.mark.parametrize("config", [DiscoverConfig(), DISCOVERY])
def test_settings_of_a_discovery_survive_the_tokens_file(config):
    assert config_from_settings(plain_settings(config)) == config


def test_a_removed_setting_is_no_hindrance_to_tokens_and_refused_where_it_would_count(tmp_path):
    settings = plain_settings(DISCOVERY)
    for weight in (0.0, 0.5):  # how old tokens were found changes nothing of how they are read
        settings["weights"]["epipolar"] = weight
        assert config_from_settings(settings) == DISCOVERY
    (tmp_path / "c.toml").write_text("[weights]\nepipolar = 0.0\n")
    assert read_toml(tmp_path / "c.toml", DiscoverConfig) == DiscoverConfig()
    (tmp_path / "c.toml").write_text("[weights]\nepipolar = 0.5\n")
    with pytest.raises(InputError, match=r"weights has epipolar = 0\.5.*removed"):
        read_toml(tmp_path / "c.toml", DiscoverConfig)


def test_settings_of_older_versions_that_do_not_count_in_reading_are_left_out():
    settings = plain_settings(DISCOVERY) | {"seed": -1, "save_every": -1, "weights": {"margin": -0.1}}
    assert config_from_settings(settings).num_tokens == DISCOVERY.num_tokens
    with pytest.raises(InputError, match="temperature cannot be -1"):
        config_from_settings(settings | {"temperature": -1})
    with pytest.raises(InputError, match="map_size cannot be 1"):
        DiscoverConfig(map_size=1)
