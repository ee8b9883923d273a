"""Typed values from plain ones: what a field may hold is said in its type, and checked in one way, wherever it is from.

Settings, model folders' configurations, objects' descriptions, cameras and headers are dataclasses, whose types carry
ranges (:class:`msgspec.Meta`). :func:`from_values` builds them from what a file holds; :func:`check_fields` checks
those that Python code and the command line make.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from numbers import Real
from os import PathLike, fspath
from pathlib import Path
from reprlib import repr as _repr
from typing import Annotated, Any, TypeVar, get_args, get_type_hints
from unicodedata import category

import msgspec
from msgspec import Meta, inspect

from keyorbit.errors import InputError

T = TypeVar("T")
_LARGEST = sys.float_info.max
_LONGEST, _DEEPEST = 100, 64

# The ranges that many fields share. A number is finite everywhere: NaN is in no range.
Finite = Annotated[float, Meta(ge=-_LARGEST, le=_LARGEST)]
Positive = Annotated[float, Meta(gt=0, le=_LARGEST)]
NotNegative = Annotated[float, Meta(ge=0, le=_LARGEST)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Amount = Annotated[int, Meta(ge=0, le=2**31 - 1)]
# What every generator of random numbers takes.
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]

# The same for numbers of older files, which could be negative.
AnySeed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]

# What may become a dataclass, besides itself; msgspec takes anything else with items for a table that is empty.
_PLAIN_KINDS = (type(None), bool, int, float, str, list, tuple, Mapping)

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


def from_values(kind: type[T], values: Any, where: str, base: Any = None, others: bool = False) -> T:
    """Build the dataclass from plain values.

    Args:
        kind: the dataclass.
        values: by the names of its fields.
        where: names the values in error messages.
        base: gives the fields that have no value, also within nested dataclasses. Default None: the class's defaults.
        others: whether there may be names that the dataclass has not, as in files of other programs; they are ignored.
            Default False.

    Raises:
        InputError: a value is missing or is not what its field's type allows, or a name is unknown.
    """
    if not others:
        values = _checked_names(kind, values, where, "")
    if base is not None:
        values = _over(asdict(base), values)
    made: T = _converted(kind, values, where)
    return made


def check_fields(config: Any) -> None:
    """Check what a dataclass holds against its fields' types; for ``__post_init__``.

    Lists, tables of names and numpy's numbers become what they would be if they were read from a file.

    Raises:
        InputError: a value is not what its field's type allows; the message names the field.
    """
    for name, hint in _field_types(type(config)).items():
        value, nested = getattr(config, name), _dataclass_in(hint)
        if is_dataclass(value):  # it was checked when it was made
            if nested is None or not isinstance(value, nested):
                must = _allowed(inspect.type_info(hint)) if nested is None else f"a {nested.__name__}"
                raise InputError(f"{name} cannot be {short(value)}; it must be {must}")
            continue
        plain = _plain(value, name)
        if nested is not None:
            check_kind(name, value, _PLAIN_KINDS, f"a {nested.__name__}")
            plain = _checked_names(hint, plain, name, "")
        made = _converted(hint, plain, name, inside=False)
        if not _is_plain(value):
            object.__setattr__(config, name, made)


def check_value(name: str, value: Any, hint: Any) -> None:
    """Check one value, such as an option's, against a type.

    Raises:
        InputError: it is not what the type allows; the message names it.
    """
    _converted(hint, _plain(value, name), name, inside=False)


def check_kind(name: str, value: object, kind: Any, remedy: str) -> None:
    """Check what an argument is, before anything is asked of it.

    Args:
        name: of the argument.
        value: what was given.
        kind: a class, a protocol that can be asked at run time, or a union of such.
        remedy: what to give instead, such as ``"a list of marks"``.

    Raises:
        InputError: the value is of another kind; the message names it, what was given and what to give.
    """
    if not isinstance(value, kind):
        raise InputError(f"{name} cannot be {short(value)}, of type {type(value).__name__}; give {remedy}")


def as_path(path: object, name: str = "path") -> Path:
    """Return the path of a file or folder.

    Raises:
        InputError: it is neither a text nor a path; the message names it.
    """
    place = fspath(path) if isinstance(path, str | PathLike) else None
    if isinstance(place, str):
        return Path(place)
    raise InputError(f"{name} cannot be {short(path)}, of type {type(path).__name__}; give a path, as a text or a Path")


def from_value(hint: Any, value: Any, name: str) -> Any:
    """One plain value as a type has it, such as a list as a tuple.

    Raises:
        InputError: it is not what the type allows; the message names it.
    """
    return _converted(hint, value, name, inside=False)


def _plain(value: Any, name: str, depth: int = 0) -> Any:
    """The value without numpy's own kinds of numbers, which msgspec does not know."""
    if isinstance(value, list | tuple):
        if depth > _DEEPEST:
            raise InputError(f"{name} is nested more than {_DEEPEST} deep")
        return tuple(_plain(item, name, depth + 1) for item in value)
    return value.item() if isinstance(value, Real) and hasattr(value, "item") else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _converted(hint: Any, values: Any, where: str, inside: bool = True) -> Any:
    """``inside``: whether ``where`` names what the values lie in; else it is the value's own name."""
    try:
        return msgspec.convert(values, hint)
    except msgspec.ValidationError as error:
        raise InputError(_sentence(error, hint, values, where, ": " if inside else "")) from error
    except UnicodeEncodeError as error:  # half a character, as JSON can write it, or a name of another encoding
        raise InputError(f"{where} holds {short(error.object)}, which is no text in Unicode") from error


def short(value: Any) -> str:
    """What a value looks like, on one line of at most 100 characters: one that is wrong may be of any size."""
    try:
        text = " ".join(_repr(value).split())
    except (ValueError, RecursionError):  # a whole number of thousands of digits, or what holds itself
        text = f"such {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


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
    if unknown := sorted(map(str, value.keys() - hints.keys() - set(retired))):
        few = ", ".join(short(name)[1:-1] for name in unknown[:3]) + (" and more" if unknown[3:] else "")
        raise InputError(f"{inside} has {few}; there are: {', '.join(hints)}")
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


def _sentence(error: msgspec.ValidationError, kind: Any, values: Any, where: str, colon: str) -> str:
    """What is wrong: the file, the field, the value that it has and what it may have."""
    problem, _, place = str(error).partition(" - at ")
    # As in `$.lora.layers[0]`; what follows within a table of free names is told as `[...]`, and left out.
    path = place.strip("`").removeprefix("$").partition("[...]")[0]
    inside = f"{where}{colon}{path.lstrip('.') if colon else path}" if path else where
    if error.__cause__ is not None:  # raised by the dataclass itself
        return f"{inside}: {error.__cause__}"
    if missing := re.fullmatch(r"Object missing required field `(.*)`", problem):
        return f"{inside} lacks {missing[1]}"
    if not problem.startswith(("Expected", "Invalid enum value", "Number out of range")):
        return f"{inside}: {problem}"
    there = inspect.type_info(kind)
    for name, number in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        there = _part(there, name, number)
        values = list(values)[int(number)] if number else values[name]
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
        inspect.AnyType: "anything",
        inspect.CustomType: "anything",
    }
    limits = {name: getattr(there, name, None) for name in _BOUNDS}
    # That a number is finite goes without saying.
    bounds = [f"{_BOUNDS[name]}{v}" for name, v in limits.items() if v not in (None, _LARGEST, -_LARGEST)]
    return " ".join([words.get(type(there), type(there).__name__), " and ".join(bounds)]).rstrip()


def is_text(words: str) -> bool:
    """Whether ``words`` can be written and shown: no control characters, and no halves of a character."""
    return not any(category(letter) in ("Cc", "Cs") for letter in words)
