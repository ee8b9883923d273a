"""Settings survive TOML, and a wrong file gets one sentence that names what is wrong."""

import sys
from dataclasses import dataclass, field
from typing import Annotated

import pytest
from msgspec import Meta

from keyorbit.errors import InputError
from keyorbit.storage.settings import differing, from_values, read_toml


@dataclass(frozen=True)
class PrepareConfig:
    """Some settings that need not be given."""

    timestep: int | tuple[int, ...] | None = None
    warps: int | None = None
    noises: int | None = None
    shift: float = 0.1


@dataclass(frozen=True)
class SettledPrepare(PrepareConfig):
    """Versions that are known."""

    timestep: int | tuple[int, ...] = 100
    warps: int = 0
    noises: int = 3


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
    assert from_values(OfThree, {"prepare": {"warps": 1}}, "here", base) == OfThree(PrepareConfig(100, 1, 3))
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


@dataclass(frozen=True)
class Holder:
    """A table whose table has a field without a default."""

    ranges: Ranges


@dataclass(frozen=True)
class Nested:
    """A table within a table within a table."""

    nested: Holder


def test_a_missing_value_without_a_default_is_told():
    with pytest.raises(InputError, match=r"^here lacks name$"):
        from_values(Ranges, {"rate": 1}, "here")
    with pytest.raises(InputError, match=r"^here: nested\.ranges lacks name$"):
        from_values(Nested, {"nested": {"ranges": {"rate": 1}}}, "here")


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
