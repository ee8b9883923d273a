"""Every field of every class of settings, from a file and from Python: one sentence, or a value within its range."""

import json
import math
from dataclasses import fields, is_dataclass
from typing import get_args

import jaxtyping
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.hostile import WRONG, answer, hostile
from keyorbit.detection.config import DetectConfig
from keyorbit.diffusion.config import PrepareConfig, SettledPrepare
from keyorbit.discovery.config import DiscoverConfig, SettledConfig
from keyorbit.errors import InputError
from keyorbit.evaluation.choices import ProtocolConfig
from keyorbit.storage.settings import read_toml
from keyorbit.synthetic.plan import DatasetSpec
from keyorbit.training.config import TrainConfig
from keyorbit.training.schedule import OptimiseConfig
from keyorbit.values import _field_types, from_values

# One of each, from which hostile ones are made by a change of one field.
SETTLED = SettledPrepare(timestep=100, warps=0, noises=1, seed=0)
EXAMPLES = (
    DiscoverConfig(),
    SettledConfig(layers=("*",), maps="logits", prepare=SETTLED),
    TrainConfig(),
    OptimiseConfig(1, 0.1),
    DetectConfig(),
    PrepareConfig(),
    ProtocolConfig(),
    DatasetSpec("chair", 1),
)


def paths(example, above=()):
    """The names that lead to every field, also of settings within settings."""
    for item in fields(example):
        yield (*above, item.name)
        value = getattr(example, item.name)
        if is_dataclass(value):
            yield from paths(value, (*above, item.name))


FIELDS = [(example, path) for example in EXAMPLES for path in paths(example)]


def within(path, value):
    for name in reversed(path):
        value = {name: value}
    return value


def made(make):
    """What came of it: the two answers that there may be."""
    try:
        return make() and "accepted"
    except InputError as error:
        return "one sentence" if "\n" not in str(error) else "several lines"
    except jaxtyping.TypeCheckError:  # comes first, while tests run
        return "another type"


@pytest.mark.parametrize(
    ("example", "path"), FIELDS, ids=lambda x: ".".join(x) if isinstance(x, tuple) else type(x).__name__
)
def test_a_field_holds_what_its_range_allows_or_is_told(example, path, tally, chaos):
    kind, name = type(example), path[-1]
    given_so_far = {item.name: getattr(example, item.name) for item in fields(example)}

    def try_one(value):
        came = made(lambda: from_values(kind, within(path, value), "here", example))
        tally["settings", "a field in a file", came] += 1
        assert came in ("accepted", "one sentence"), value
        if len(path) == 1:
            here = made(lambda: kind(**given_so_far | {name: value}))
            if here != "another type":
                tally["settings", "a field in Python", here] += 1
                assert here == came, value

    for value in WRONG if chaos else WRONG[FIELDS.index((example, path)) % 3 :: 3]:
        try_one(value)
    tried = given(hostile() | st.integers() | st.floats())(try_one)
    (tried if chaos else settings(max_examples=4)(tried))()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda x: type(x).__name__)
def test_every_number_has_a_range(example):
    """NaN, a thousand digits and what float32 cannot hold are in none of them."""

    def bare(hint):
        if hint in (int, float):
            return True
        return hasattr(hint, "__args__") and not hasattr(hint, "__metadata__") and any(map(bare, get_args(hint)))

    for name, hint in _field_types(type(example)).items():
        assert not bare(hint), name
        if is_dataclass(value := getattr(example, name)):
            test_every_number_has_a_range(value)


def in_toml(value):
    """A value in TOML; None where it has no word for it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        items = [in_toml(item) for item in value]
        return None if None in items else f"[{', '.join(items)}]"
    return None if value is None or isinstance(value, dict) else json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize(("command", "kind"), [("discover", DiscoverConfig), ("train", TrainConfig)])
def test_a_wrong_file_is_told_at_the_door_and_leaves_nothing(command, kind, chairs, tmp_path, tally, chaos):
    """All that a file may hold in its fields, one at a time: what cannot be read is told in one sentence."""
    file, out = tmp_path / "c.toml", tmp_path / "new"
    for number, path in enumerate(paths(kind())):
        for value in WRONG if chaos else WRONG[number % 18 :: 18]:
            if (text := in_toml(value)) is None:
                continue
            file.write_bytes(f"{'.'.join(path)} = {text}".encode(errors="surrogatepass"))
            came = made(lambda: read_toml(file, kind))
            if came == "one sentence":
                said = answer(command, chairs, "--config", file, "--out", out)
                assert said.sentence, (text, said)
                assert str(file) in said.said
            tally["settings", f"a file for {command}", came] += 1
    assert sorted(tmp_path.iterdir()) == [file]
