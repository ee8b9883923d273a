"""Settings survive TOML, and a wrong file gets one sentence that names what is wrong."""

import tomllib
from dataclasses import dataclass, field, replace

import pytest

from keyorbit.diffusion.prepare import PrepareConfig
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.objective import LossWeights, SingleViewWeights
from keyorbit.errors import InputError
from keyorbit.storage.settings import from_values, read_toml, to_toml
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
