"""Configuration dataclasses as TOML: one table for each, None left out."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from keyorbit.errors import InputError

T = TypeVar("T")


def to_toml(config: Any, table: str = "") -> str:
    """A dataclass of numbers, strings, booleans, tuples and further dataclasses as TOML text."""
    values = {item.name: getattr(config, item.name) for item in fields(config)}
    nested = {key: value for key, value in values.items() if is_dataclass(value)}
    lines = [f"[{table}]"] if table else []
    # JSON writes these values as TOML does.
    lines += [f"{k} = {json.dumps(v)}" for k, v in values.items() if v is not None and k not in nested]
    parts = ["\n".join(lines) + "\n"]
    parts += [to_toml(value, f"{table}.{key}" if table else key) for key, value in nested.items()]
    return "\n".join(parts)


def read_toml(path: Path, kind: type[T]) -> T:
    """The dataclass ``kind`` from a TOML file; what is not there is as in ``kind()``.

    Raises:
        InputError: the file cannot be read, or holds a name or a value that the dataclass has not.
    """
    return from_values(kind, toml_values(path), str(path), kind())


def toml_values(path: Path) -> dict[str, Any]:
    """What a TOML file holds.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}") from error


def from_values(kind: type[T], values: Mapping[str, Any], where: str, base: T | None = None) -> T:
    """The dataclass from plain values; ``where`` names them in complaints.

    base: what has no value stays as it is there, also within nested dataclasses; else it gets the class's defaults.
    """
    hints = get_type_hints(kind)
    unknown = values.keys() - hints.keys()
    if unknown:
        raise InputError(f"{where} has {', '.join(sorted(unknown))}; there are: {', '.join(hints)}")
    given = {k: _converted(hints[k], value, f"{where}: {k}", getattr(base, k, None)) for k, value in values.items()}
    try:
        return kind(**given) if base is None else replace(base, **given)  # type: ignore[type-var]
    except TypeError as error:
        raise InputError(f"{where} does not say all of {kind.__name__}: {error}") from error


def _converted(hint: Any, value: Any, where: str, base: Any = None) -> Any:
    if get_origin(hint) in (Union, UnionType):
        return _first_fit([choice for choice in get_args(hint) if choice is not NoneType], value, where)
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return from_values(hint, value, where, base if isinstance(base, hint) else None)
    if get_origin(hint) is tuple and isinstance(value, list):
        kinds = get_args(hint)
        if kinds[-1] is Ellipsis or len(kinds) == len(value):
            return tuple(_converted(kinds[0], item, where) for item in value)
    if get_origin(hint) is Literal and value in get_args(hint):
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise InputError(f"{where} cannot be {value!r}")


def _first_fit(choices: list[Any], value: Any, where: str) -> Any:
    for choice in choices[:-1]:
        try:
            return _converted(choice, value, where)
        except InputError:
            continue
    return _converted(choices[-1], value, where)
