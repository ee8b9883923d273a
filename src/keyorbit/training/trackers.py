"""Experiment trackers, through Accelerate; none of their packages is needed otherwise."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from keyorbit.errors import InputError

PROJECT = "keyorbit"
# What TensorBoard writes below a folder of that name; the others write elsewhere.
TRACKED = ("*events.out.tfevents.*", "*hparams.yml")


def check_tracker(name: str) -> None:
    """Raise InputError where the package of the tracker is not installed; ``none`` needs none."""
    if name != "none" and find_spec(name) is None:
        raise InputError(f"the tracker {name} needs a package of that name: pip install {name}, or give none")


def plain_values(values: Mapping[str, Any], under: str = "") -> dict[str, int | float | str | bool]:
    """Nested settings as one level of ``outer.inner``, of the types that every tracker takes."""
    flat: dict[str, int | float | str | bool] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= plain_values(value, f"{under}{key}.")
        else:
            flat[under + key] = value if isinstance(value, int | float | str | bool) else str(value)
    return flat
