"""Plain values become dataclasses, or one sentence that names what is wrong and what is allowed."""

import sys
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import pytest
from msgspec import Meta

from keyorbit.errors import InputError
from keyorbit.values import Amount, Count, Finite, NotNegative, Positive, Seed, Share, check_fields, from_values


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
        ({"rate": 0}, "here: rate cannot be 0; it must be a number > 0$"),
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


@dataclass(frozen=True)
class OneOfEach:
    """The shared ranges, checked however it is made."""

    amount: Amount = 0
    count: Count = 1
    finite: Finite = 0.0
    not_negative: NotNegative = 0.0
    positive: Positive = 1.0
    share: Share = 0.5
    seed: Seed = 0
    several: tuple[Count, ...] | None = None
    inner: OfThree | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("amount", -1, "-1; it must be a whole number >= 0 and <= 2147483647"),
        ("amount", 2**31, "2147483648; it must be a whole number >= 0"),
        ("count", 0, "0; it must be a whole number >= 1"),
        ("count", True, "True; it must be a whole number"),
        ("count", 1.0, "1.0; it must be a whole number"),
        ("finite", float("nan"), "nan; it must be a number"),
        ("finite", float("-inf"), "-inf; it must be a number"),
        ("finite", "1", "'1'; it must be a number"),
        ("not_negative", -1e-9, "-1e-09; it must be a number >= 0"),
        ("not_negative", float("inf"), "inf; it must be a number >= 0"),
        ("positive", 0.0, "0.0; it must be a number > 0"),
        ("positive", np.float32("nan"), "nan; it must be a number > 0"),
        ("share", 1.01, "1.01; it must be a number >= 0 and <= 1"),
        ("seed", -1, "-1; it must be a whole number >= 0 and <= 9223372036854775807"),
        ("seed", 2**64, "18446744073709551616; it must be a whole number >= 0"),
        ("several", (3, 0), "0; it must be a whole number >= 1"),
        ("inner", 3, "3; it must be a table"),
    ],
)
def test_the_same_ranges_hold_in_python_and_in_files(name, value, words):
    path = f"{name}[1]" if isinstance(value, tuple) else name
    with pytest.raises(InputError) as caught:
        OneOfEach(**{name: value})
    assert str(caught.value).startswith(f"{path} cannot be {words}")
    if not isinstance(value, np.generic):  # which no file holds
        with pytest.raises(InputError) as caught:
            from_values(OneOfEach, {name: value}, "here")
        assert str(caught.value).startswith(f"here: {path} cannot be {words}")


def test_numbers_of_numpy_are_numbers():
    made = OneOfEach(count=np.int64(3), share=np.float32(0.5), several=[np.int32(2)], inner=OfThree())
    assert made.count == 3


def test_names_of_other_programs_are_ignored_where_they_may_be():
    assert from_values(OneOfEach, {"theirs": {"a": 1}, "count": 2}, "here", others=True) == OneOfEach(count=2)
    with pytest.raises(InputError, match="here has theirs; there are: amount"):
        from_values(OneOfEach, {"theirs": 1}, "here")


@dataclass(frozen=True)
class Chosen:
    """A field with a few allowed values."""

    mode: Literal["a", "b"] | None = None


def test_a_name_that_is_no_text_is_one_sentence():
    with pytest.raises(InputError, match=r"^here holds '\\udcff', which is no text in Unicode"):
        from_values(Chosen, {"mode": "\udcff"}, "here")


def test_what_python_gives_becomes_what_a_file_would_give():
    made = OneOfEach(count=np.int64(3), share=np.float32(0.5), several=[np.int32(2)], inner={"prepare": {"noises": 2}})
    assert (type(made.count), type(made.share), made.several) == (int, float, (2,))
    assert made.inner == OfThree(PrepareConfig(noises=2))


def test_a_dataclass_of_another_kind_is_none_of_those_that_fit():
    itself = []
    itself.append(itself)
    for name, value, words in (
        ("inner", PrepareConfig(), "it must be a OfThree"),
        ("count", PrepareConfig(), "it must be a whole number >= 1"),
        ("count", 10**5000, "count cannot be such int; it must be"),
        ("several", itself, "several is nested more than 64 deep"),
        ("several", {"a"}, "it must be a"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            OneOfEach(**{name: value})
        assert "\n" not in str(caught.value)
