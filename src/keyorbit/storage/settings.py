"""Write settings (dataclasses) as TOML and read them. Each nested dataclass is a table; None is left out."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from keyorbit.errors import InputError
from keyorbit.storage.content import toml_of
from keyorbit.values import from_values

T = TypeVar("T")


def to_toml(config: Any, table: str = "") -> str:
    """Write a dataclass of numbers, strings, booleans, tuples and further dataclasses as TOML text."""
    values = {item.name: getattr(config, item.name) for item in fields(config)}
    nested = {key: value for key, value in values.items() if is_dataclass(value)}
    lines = [f"[{table}]"] if table else []
    # JSON writes these values as TOML does.
    lines += [f"{k} = {json.dumps(v)}" for k, v in values.items() if v is not None and k not in nested]
    parts = ["\n".join(lines) + "\n"]
    parts += [to_toml(value, f"{table}.{key}" if table else key) for key, value in nested.items()]
    return "\n".join(parts)


def read_toml(path: Path, kind: type[T]) -> T:
    """Read the dataclass ``kind`` from a TOML file. Fields that are not in the file are as in ``kind()``.

    Raises:
        InputError: the file cannot be read, or holds a name or a value that the dataclass does not allow.
    """
    return from_values(kind, toml_of(path), str(path), kind())


def completed(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the defaults of those that they lack, also within tables; both as JSON keeps them."""
    both = {**defaults, **settings}
    nested = {k: completed(v, defaults[k]) for k, v in settings.items() if _tables(v, defaults.get(k))}
    return both | nested


def differing(
    now: Mapping[str, Any],
    then: Mapping[str, Any],
    older: Mapping[str, Callable[[], Any]] | None = None,
    under: str = "",
) -> list[str]:
    """Names of the settings that have another value in ``then``, both as JSON keeps them; one that is missing is None.

    A setting in a table is named ``table.name``; ``under`` comes before all names. Within tables, a name that only
    ``then`` has does not count where it is 0: it is of an older version. ``older`` gives, for some names, the value
    that older versions wrote; it is asked where ``then`` has another.
    """
    found = []
    for name, value in now.items():
        other = then.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            dropped = sorted(f"{under}{name}.{key}" for key in other.keys() - value.keys() if other[key])
            found += differing(value, other, under=f"{under}{name}.") + dropped
        elif value != other and not (older and name in older and older[name]() == other):
            found.append(under + name)
    return found


def goes_on_to(
    path: Path,
    now: Mapping[str, Any],
    then: Mapping[str, Any],
    done: int,
    older: Mapping[str, Callable[[], Any]] | None = None,
) -> int | None:
    """How many steps a run was to have, where it goes on to another number of them; None where it is the same run.

    Args:
        path: of the checkpoint, for error messages.
        now: the settings that are asked for, as JSON keeps them.
        then: those of the checkpoint; of all that ``now`` has, only ``steps`` may differ.
        done: steps that are done.
        older: as in :func:`differing`.

    Raises:
        InputError: another setting differs, or fewer steps are asked for than are done.
    """
    steps, before = now.get("steps"), then.get("steps")
    if other := differing({name: value for name, value in now.items() if name != "steps"}, then, older):
        raise InputError(
            f"{path} was made with other settings ({', '.join(other)}): give the same, or another folder; only a "
            "run's number of steps can change"
        )
    if steps is None or not isinstance(before, int):
        return None
    if steps < done:
        raise InputError(f"{path}: {done} steps are done, so the run cannot have {steps}: give {done} or more")
    return before if before != steps else None


def _tables(*values: Any) -> bool:
    return all(isinstance(value, Mapping) for value in values)
