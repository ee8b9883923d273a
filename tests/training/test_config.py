"""Settings of a training survive TOML, and a wrong file gets one sentence that names what is wrong."""

import tomllib
from dataclasses import replace

import pytest

from keyorbit.discovery.weights import LossWeights
from keyorbit.errors import InputError
from keyorbit.storage.settings import read_toml, to_toml
from keyorbit.training.config import Lora, Term, Terms, TrainConfig
from keyorbit.values import from_values

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
        ("[terms.nvs]\nweight = -1", "c.toml: terms.nvs.weight cannot be -1; it must be a number >= 0"),
        ("token_rate = 1" + 400 * "0", "token_rate cannot be 10"),
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


def test_a_removed_setting_can_be_read_while_it_was_off(tmp_path):
    (tmp_path / "c.toml").write_text("[weights]\nmargin = 0.5\nuncovered = 0.0\n")
    assert read_toml(tmp_path / "c.toml", TrainConfig).weights == LossWeights(margin=0.5)
    (tmp_path / "c.toml").write_text("[weights]\nuncovered = 2\n")
    with pytest.raises(InputError, match=r"c\.toml.*weights has uncovered = 2"):
        read_toml(tmp_path / "c.toml", TrainConfig)
