"""Settings survive TOML, and are compared with those of a run."""

from dataclasses import dataclass, field

import pytest

from keyorbit.storage.settings import differing, read_toml


@dataclass(frozen=True)
class PrepareConfig:
    """Some settings that need not be given."""

    timestep: int | tuple[int, ...] | None = None
    noises: int | None = None


@dataclass(frozen=True)
class OfThree:
    """A config whose default for a nested one is not the nested class's own."""

    prepare: PrepareConfig = field(default_factory=lambda: PrepareConfig(noises=3))


def test_a_table_in_part_keeps_the_rest_of_the_default(tmp_path):
    (tmp_path / "c.toml").write_text("[prepare]\ntimestep = 50\n")
    assert read_toml(tmp_path / "c.toml", OfThree) == OfThree(PrepareConfig(timestep=50, noises=3))


@pytest.mark.parametrize(
    ("older", "words"),
    [
        ({}, []),
        ({"seed": 1}, ["seed"]),
        ({"weights": {"margin": 0.2, "epipolar": 0.0}}, []),
        ({"weights": {"margin": 0.2, "epipolar": 0.1}}, ["weights.epipolar"]),
        ({"weights": {"margin": 0.3}}, ["weights.margin"]),
        ({"weights": {}}, ["weights.margin"]),
        ({"weights": None}, ["weights"]),
        ({"dropped": 1}, []),
    ],
)
def test_a_removed_setting_that_was_off_is_no_difference(older, words):
    now = {"seed": 0, "weights": {"margin": 0.2}, "cameras_of": None}
    assert differing(now, {"seed": 0, "weights": {"margin": 0.2}} | older) == words
