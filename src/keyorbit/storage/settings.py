"""Write settings (dataclasses) as TOML and read them. Each nested dataclass is a table; None is left out."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

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


def differing(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """Names of the settings that have another value in ``then``, both as JSON keeps them; one that is missing is None.

    Within tables of settings, a name that only ``then`` has does not count where it is 0: it is of an older version.
    """
    return [name for name, value in now.items() if not _same(value, then.get(name))]


def _same(now: Any, then: Any) -> bool:
    if not _tables(now, then):
        return bool(now == then)
    return not differing(now, then) and not any(then[name] for name in then.keys() - now.keys())


def _tables(*values: Any) -> bool:
    return all(isinstance(value, Mapping) for value in values)
