"""Settings survive TOML, and a wrong file gets one sentence that names what is wrong."""

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import keyorbit
from keyorbit.diffusion.prepare import PrepareConfig
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.config import DiscoverConfig, config_from_settings, plain_settings
from keyorbit.discovery.objective import LossWeights, SingleViewWeights
from keyorbit.errors import InputError
from keyorbit.storage.settings import differing, from_values, read_toml, to_toml
from keyorbit.training.config import Lora, Term, Terms, TrainConfig

CHANGED = TrainConfig(
    train="full",
    layers=("up_blocks.*", "mid*"),
    timesteps=(10, 900),
    unet_rate=2e-6,
    checkpointing=True,
    lora=Lora(layers=("to_q",)),
    terms=Terms(consistency=Term(0.5, warmup=3, shape="cosine", end=0.1)),
    weights=LossWeights(margin=0.5),
)


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


@pytest.mark.parametrize("config", [TrainConfig(), CHANGED, replace(CHANGED, layers="*")])
def test_settings_survive_toml(config, tmp_path):
    (tmp_path / "c.toml").write_text(to_toml(config))
    assert read_toml(tmp_path / "c.toml", TrainConfig) == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps = ", "cannot be read as TOML"),
        ("stepz = 3", "stepz"),
        ("steps = 2.5", "steps cannot be 2.5"),
        ("checkpointing = 1", "checkpointing"),
        ("dropped = true", "dropped"),
        ("timesteps = [1, 2, 3]", "timesteps"),
        ('train = "all"', "train cannot be 'all'"),
        ("[terms]\nnvs = 1.0", "nvs"),
        ("[terms.nvs]\nweight = -1", "negative"),
        ("batch = 0", "batch"),
        ("tokens_first = 2.0", "tokens_first"),
        ("timesteps = [700, 900]", "keypoint_timesteps"),
    ],
)
def test_a_wrong_file_gets_one_sentence(text, words, tmp_path):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(InputError, match=words):
        read_toml(tmp_path / "c.toml", TrainConfig)


def test_what_is_not_said_keeps_its_default():
    config = from_values(TrainConfig, tomllib.loads("steps = 7\n[terms]\nkeypoint = 2"), "here")
    assert config == TrainConfig(steps=7, terms=Terms(keypoint=2.0))


@dataclass(frozen=True)
class OfThree:
    """A config whose default for a nested one is not the nested class's own."""

    prepare: PrepareConfig = field(default_factory=lambda: PrepareConfig(noises=3))


def test_a_table_in_part_keeps_the_rest_of_the_default(tmp_path):
    (tmp_path / "c.toml").write_text("[prepare]\ntimestep = 50\n")
    assert read_toml(tmp_path / "c.toml", OfThree) == OfThree(PrepareConfig(timestep=50, noises=3))


SHIPPED = Path(keyorbit.__file__).parent / "assets/examples/tokens.safetensors"


def test_the_shipped_tokens_are_of_an_older_version_and_still_read():
    settings = Tokens.load(SHIPPED).info.settings
    assert settings["weights"]["epipolar"] == 0
    config = config_from_settings(settings)
    assert (config.weights, config.method, config.prepare.noises) == (LossWeights(), "constellation", 3)


@pytest.mark.parametrize("config", [DiscoverConfig(), DISCOVERY])
def test_settings_of_a_discovery_survive_the_tokens_file(config):
    assert config_from_settings(plain_settings(config)) == config


def test_a_removed_setting_can_be_read_while_it_was_off(tmp_path):
    settings = plain_settings(DISCOVERY)
    settings["weights"]["epipolar"] = 0.0
    assert config_from_settings(settings) == DISCOVERY
    settings["weights"]["epipolar"] = 0.5
    with pytest.raises(InputError, match=r"weights has epipolar = 0\.5.*removed"):
        config_from_settings(settings)
    (tmp_path / "c.toml").write_text("[weights]\nmargin = 0.5\nuncovered = 0.0\n")
    for kind in (DiscoverConfig, TrainConfig):
        assert read_toml(tmp_path / "c.toml", kind).weights == LossWeights(margin=0.5)
    (tmp_path / "c.toml").write_text("[weights]\nuncovered = 2\n")
    with pytest.raises(InputError, match=r"c\.toml.*weights has uncovered = 2"):
        read_toml(tmp_path / "c.toml", TrainConfig)


@pytest.mark.parametrize(
    ("older", "words"),
    [
        ({}, []),
        ({"seed": 1}, ["seed"]),
        ({"weights": {"margin": 0.2, "epipolar": 0.0}}, []),
        ({"weights": {"margin": 0.2, "epipolar": 0.1}}, ["weights"]),
        ({"weights": {"margin": 0.3}}, ["weights"]),
        ({"weights": {}}, ["weights"]),
        ({"weights": None}, ["weights"]),
        ({"dropped": 1}, []),
    ],
)
def test_a_removed_setting_that_was_off_is_no_difference(older, words):
    now = {"seed": 0, "weights": {"margin": 0.2}, "cameras_of": None}
    assert differing(now, {"seed": 0, "weights": {"margin": 0.2}} | older) == words
