"""Settings survive TOML, and a wrong file gets one sentence that names what is wrong."""

import sys
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta

import keyorbit
from keyorbit.diffusion.config import PrepareConfig
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
        ("steps = " + 5000 * "1", "cannot be read as TOML"),
        ("stepz = 3", "has stepz; there are: train, num_tokens, "),
        ("[terms.nvs]\nweigth = 3", "terms.nvs has weigth; there are: weight, start, warmup, shape, end"),
        ("steps = 2.5", "steps cannot be 2.5; it must be a whole number"),
        ("steps = 2024-01-01", "steps cannot be datetime.date"),
        ("checkpointing = 1", "checkpointing cannot be 1; it must be true or false"),
        ("dropped = true", "dropped cannot be True; it must be a number"),
        ("unet_rate = '1'", "unet_rate cannot be '1'; it must be a number"),
        ("timesteps = [1, 2, 3]", r"timesteps cannot be \[1, 2, 3\]; it must be a list of length 2"),
        ("layers = [1]", r"layers\[0\] cannot be 1; it must be a string"),
        ("layers = 1", "layers cannot be 1; it must be a string or a list"),
        ('train = "all"', "train cannot be 'all'; it must be 'full' or 'lora' or 'tokens'"),
        ("[terms]\nnvs = 1.0", "terms.nvs cannot be 1.0; it must be a table"),
        ("[terms.nvs]\nweight = -1", "c.toml: terms.nvs: .*negative"),
        ("token_rate = 1" + 400 * "0", "token_rate: Number out of range"),
        ("batch = 0", "batch"),
        ("tokens_first = 2.0", "tokens_first"),
        ("timesteps = [700, 900]", "keypoint_timesteps"),
    ],
)
def test_a_wrong_file_gets_one_sentence(text, words, tmp_path):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_toml(tmp_path / "c.toml", TrainConfig)
    assert str(tmp_path / "c.toml") in str(caught.value)


def test_what_is_not_said_keeps_its_default():
    config = from_values(TrainConfig, tomllib.loads("steps = 7\n[terms]\nkeypoint = 2"), "here")
    assert config == TrainConfig(steps=7, terms=Terms(keypoint=2.0))


@dataclass(frozen=True)
class SettledPrepare(PrepareConfig):
    """Versions that are known."""

    timestep: int | tuple[int, ...] = 100
    warps: int = 0
    noises: int = 3
    seed: int = 0


@dataclass(frozen=True)
class OfThree:
    """A config whose default for a nested one is not the nested class's own."""

    prepare: PrepareConfig = field(default_factory=lambda: PrepareConfig(noises=3))


def test_a_table_in_part_keeps_the_rest_of_the_default(tmp_path):
    (tmp_path / "c.toml").write_text("[prepare]\ntimestep = 50\n")
    assert read_toml(tmp_path / "c.toml", OfThree) == OfThree(PrepareConfig(timestep=50, noises=3))


@dataclass(frozen=True)
class Settled(OfThree):
    """A config that allows less than the one that it is made from."""

    prepare: SettledPrepare = field(default_factory=SettledPrepare)


@dataclass(frozen=True)
class Ranges:
    """Fields that say what is allowed."""

    name: str
    rate: Annotated[float, Meta(gt=0, le=sys.float_info.max)] = 1.0
    several: int | Annotated[tuple[Annotated[int, Meta(ge=0, lt=1000)], ...], Meta(min_length=1)] | None = None
    parts: tuple[OfThree, ...] = ()
    free: dict[str, int] = field(default_factory=dict)


def test_values_fit_a_subclass_of_what_they_were_made_from():
    base = Settled()
    assert from_values(Settled, {"prepare": {"warps": 1}}, "here", base) == Settled(SettledPrepare(warps=1))
    assert from_values(OfThree, {"prepare": {"warps": 1}}, "here", base) == OfThree(PrepareConfig(100, 1, 3, seed=0))
    with pytest.raises(InputError, match=r"prepare\.warps cannot be None; it must be a whole number"):
        from_values(Settled, {"prepare": {"warps": None}}, "here")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rate": 0}, "here: rate cannot be 0; it must be a number > 0 and <= 1.79"),
        ({"rate": float("nan")}, "here: rate cannot be nan; it must be a number > 0"),
        ({"rate": float("inf")}, "here: rate cannot be inf; it must be a number > 0"),
        ({"several": []}, r"here: several cannot be \[\]; it must be a whole number or a list of length >= 1"),
        ({"several": [1, 1000]}, r"here: several\[1\] cannot be 1000; it must be a whole number >= 0 and < 1000"),
        ({"parts": [{}, {"prepare": {"shift": "x"}}]}, r"here: parts\[1\]\.prepare\.shift cannot be 'x'; it must be"),
        ({"parts": [{}, {"prepare": {"shitf": 1}}]}, r"here: parts\[1\]\.prepare has shitf; there are: timestep, "),
        ({"free": {"a": "b"}}, "here: free cannot be {'a': 'b'}; it must be a table, each value a whole number"),
        ({1: 2}, "here has 1; there are: name"),
        (None, "here cannot be None; it must be a table"),
        ([{}], "here cannot be .*; it must be a table"),
    ],
)
def test_what_a_field_says_is_allowed_is_told(values, words):
    with pytest.raises(InputError, match=f"^{words}"):
        from_values(Ranges, values | {"name": "x"} if isinstance(values, dict) else values, "here")


def test_a_missing_value_without_a_default_is_told():
    with pytest.raises(InputError, match=r"^here lacks name$"):
        from_values(Ranges, {"rate": 1}, "here")
    with pytest.raises(InputError, match=r"^here: terms\.nvs lacks weight$"):
        from_values(TrainConfig, {"terms": {"nvs": {"start": 1}}}, "here")


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
