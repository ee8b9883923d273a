"""Write settings (dataclasses) as TOML and read them. Each nested dataclass is a table; None is left out."""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import inspect

from keyorbit.errors import InputError

T = TypeVar("T")
# How msgspec names what a type allows, and how we do.
_BOUNDS = {
    "gt": "> ",
    "ge": ">= ",
    "lt": "< ",
    "le": "<= ",
    "multiple_of": "that is a multiple of ",
    "pattern": "that matches ",
    "min_length": "of length >= ",
    "max_length": "of length <= ",
}


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
    return from_values(kind, toml_values(path), str(path), kind())


def toml_values(path: Path) -> dict[str, Any]:
    """What a TOML file holds.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}") from error


def from_values(kind: type[T], values: Any, where: str, base: Any = None) -> T:
    """Build the dataclass from plain values.

    Args:
        kind: the dataclass.
        values: by the names of its fields.
        where: names the values in error messages.
        base: gives the fields that have no value, also within nested dataclasses. Default None: the class's defaults.
    """
    values = _checked_names(kind, values, where, "")
    if base is not None:
        values = _over(asdict(base), values)
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise InputError(_sentence(error, kind, values, where)) from error


def differing(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """Names of the settings that have another value in ``then``, both as JSON keeps them; one that is missing is None.

    Within tables of settings, a name that only ``then`` has does not count where it is 0: it is of an older version.
    """
    return [name for name, value in now.items() if not _same(value, then.get(name))]


def _same(now: Any, then: Any) -> bool:
    if not (isinstance(now, Mapping) and isinstance(then, Mapping)):
        return bool(now == then)
    return not differing(now, then) and not any(then[name] for name in then.keys() - now.keys())


def _checked_names(hint: Any, value: Any, where: str, path: str) -> Any:
    """The value without retired names, after a comparison of all its tables with their dataclasses' fields.

    msgspec itself ignores unknown names.
    """
    kind = _dataclass_in(hint)
    if kind is not None and isinstance(value, list | tuple):
        return [_checked_names(hint, item, where, f"{path}[{i}]") for i, item in enumerate(value)]
    if kind is None or not isinstance(value, Mapping):
        return value
    hints, retired = _field_types(kind), getattr(kind, "RETIRED", ())
    inside = f"{where}: {path}" if path else where
    for name, item in value.items():
        if name in retired and item:
            raise InputError(
                f"{inside} has {name} = {short(item)}, but that setting was removed; only settings in which it is 0 "
                "(off) can still be read"
            )
    unknown = sorted(map(str, value.keys() - hints.keys() - set(retired)))
    if unknown:
        raise InputError(f"{inside} has {', '.join(unknown)}; there are: {', '.join(hints)}")
    return {
        name: _checked_names(hints[name], item, where, f"{path}.{name}".lstrip("."))
        for name, item in value.items()
        if name in hints
    }


def _field_types(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {item.name: hints[item.name] for item in fields(kind)}


def _dataclass_in(hint: Any) -> type | None:
    """The dataclass that a type is, or holds as one of a union or as a tuple's items."""
    if isinstance(hint, type) and is_dataclass(hint):
        return hint
    return next((found for part in get_args(hint) if (found := _dataclass_in(part))), None)


def _over(base: Mapping[str, Any], given: Any) -> Any:
    """The given values, and those of ``base`` where there are none."""
    if not isinstance(given, Mapping):
        return given
    return {**base, **{k: _over(base[k], v) if isinstance(base.get(k), Mapping) else v for k, v in given.items()}}


def _sentence(error: msgspec.ValidationError, kind: type, values: Any, where: str) -> str:
    """What is wrong: the file, the field, the value that it has and what it may have."""
    problem, _, place = str(error).partition(" - at ")
    # As in `$.lora.layers[0]`; what follows within a table of free names is told as `[...]`, and left out.
    path = place.strip("`").removeprefix("$").partition("[...]")[0]
    inside = f"{where}: {path.lstrip('.')}" if path else where
    if error.__cause__ is not None:  # raised by the dataclass itself
        return f"{inside}: {error.__cause__}"
    if missing := re.fullmatch(r"Object missing required field `(.*)`", problem):
        return f"{inside} lacks {missing[1]}"
    if not problem.startswith(("Expected", "Invalid enum value")):
        return f"{inside}: {problem}"
    there = inspect.type_info(kind)
    for name, number in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        there, values = _part(there, name, number), values[name or int(number)]
    return f"{inside} cannot be {short(values)}; it must be {_allowed(there)}"


def _part(whole: inspect.Type, name: str, number: str) -> inspect.Type:
    """The type of a dataclass's field, or of a list's item."""
    for choice in whole.types if isinstance(whole, inspect.UnionType) else (whole,):
        match choice:
            case inspect.DataclassType() if name:
                return next(item.type for item in choice.fields if item.name == name)
            case inspect.VarTupleType() if number:
                return choice.item_type
            case inspect.TupleType() if number:
                return choice.item_types[int(number)]
    raise LookupError(f"{whole} has no part {name or number}")


def _allowed(there: inspect.Type) -> str:
    """What a type allows, in words."""
    match there:
        case inspect.UnionType():  # None is what is left out
            return " or ".join(_allowed(choice) for choice in there.types if not isinstance(choice, inspect.NoneType))
        case inspect.LiteralType():
            return " or ".join(map(repr, there.values))
        case inspect.TupleType():
            return f"a list of length {len(there.item_types)}"
        case inspect.DictType():
            return f"a table, each value {_allowed(there.value_type)}"
    words = {
        inspect.IntType: "a whole number",
        inspect.FloatType: "a number",
        inspect.StrType: "a string",
        inspect.BoolType: "true or false",
        inspect.VarTupleType: "a list",
        inspect.DataclassType: "a table",
    }
    bounds = [f"{sign}{limit}" for name, sign in _BOUNDS.items() if (limit := getattr(there, name, None)) is not None]
    return " ".join([words.get(type(there), type(there).__name__), " and ".join(bounds)]).rstrip()
