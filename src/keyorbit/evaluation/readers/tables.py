"""What the files of published data sets must hold: rows of text and of JSON as dataclasses, and arrays of numbers.

The dataclasses' types and :class:`Array` say it; what is wrong is found here, with the file, the place, and what is
allowed. A name that a file gives to another file never leads out of the data set's folder.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import numpy as np
from msgspec import Meta
from numpy import ndarray

from keyorbit.errors import InputError
from keyorbit.evaluation.readers.matlab import mat_variable
from keyorbit.storage.content import json_in, text_of
from keyorbit.storage.folder_names import on_disk
from keyorbit.values import from_values, short

T = TypeVar("T")
# COCO-WholeBody's lists have 1 GB.
LARGEST = 4 * 2**30
# Far outside of any picture, and still exact in float32.
FURTHEST = 2.0**24
_LONGEST_NAME = 255  # bytes, of all usual file systems

# Pixels, or units of a model's own: a coordinate or a length.
Coordinate = Annotated[float, Meta(ge=-FURTHEST, le=FURTHEST)]
Length = Annotated[float, Meta(ge=0, le=FURTHEST)]


@dataclass(frozen=True)
class Array:
    """What an array must be.

    Attributes:
        shape: length of each axis; None where any length from 1 on will do.
        low: least value. Default: as for :data:`Coordinate`.
        high: greatest value. Default: as for :data:`Coordinate`.
        unknown: whether NaN and None are allowed, for what is not known. Default False.
    """

    shape: tuple[int | None, ...]
    low: float = -FURTHEST
    high: float = FURTHEST
    unknown: bool = False

    def check_shape(self, shape: Sequence[int], where: str) -> None:
        """Raise InputError for another shape; ``where`` names the array."""
        fits = len(shape) == len(self.shape)
        if not fits or any(n != (n or 1 if w is None else w) for w, n in zip(self.shape, shape, strict=True)):
            wanted = " x ".join("any" if length is None else str(length) for length in self.shape)
            raise InputError(f"{where} is an array of {' x '.join(map(str, shape)) or 'no axes'}; it must be {wanted}")

    def checked(self, values: Any, where: str) -> ndarray:
        """The values as an array of float64.

        Raises:
            InputError: they have another shape, are no numbers, or one is out of range; ``where`` names them.
        """
        try:
            array: ndarray = np.array(values, float)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{where} cannot be {short(values)}; it must be an array of numbers") from error
        self.check_shape(array.shape, where)
        with np.errstate(invalid="ignore"):
            wrong = ~((array >= self.low) & (array <= self.high) | (self.unknown & np.isnan(array)))
        if wrong.any():
            place = tuple(np.argwhere(wrong)[0].tolist())
            allowed = f"a number >= {self.low:g} and <= {self.high:g}"
            raise InputError(f"{where}{list(place)} cannot be {array[place]}; it must be {allowed}")
        return array


def need_file(path: Path, what: str) -> Path:
    """Return the path if a file is there.

    Raises:
        InputError: it is missing; ``what`` names the data set.
    """
    if not path.is_file():
        raise InputError(f"{what} lacks {path.name}: there is no file at {path}")
    return path


def below(folder: Path, name: str, where: str) -> Path:
    """Return the path of a file in a folder, by the name that a file gives to it.

    Raises:
        InputError: the name leads out of the folder, or no file can have it; ``where`` says who gave it.
    """
    depth = 0
    for part in name.split("/"):
        depth += {"": 0, ".": 0, "..": -1}.get(part, 1)
        if depth < 0:
            break
        if not _possible(part):
            raise InputError(f"{where} names {short(name)}, which no file can be named")
    if depth <= 0 or name.startswith("/") or Path(name).drive:
        raise InputError(f"{where} names {short(name)}; it must be a file in {folder}")
    return folder / on_disk(name)


def _possible(part: str) -> bool:
    """Whether a file or folder can have that name."""
    try:
        return "\0" not in part and len(part.encode()) <= _LONGEST_NAME
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def lines_of(path: Path, what: str) -> list[tuple[int, str]]:
    """Read the lines of a text file, with their numbers from 1, without the empty ones.

    Raises:
        InputError: it is missing or not text.
    """
    lines = text_of(need_file(path, what), LARGEST).splitlines()
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def rows_of(path: Path, kind: type[T], what: str, skip: int = 0) -> list[T]:
    """Read a table of text, whose columns are separated by spaces: a dataclass for each line.

    Args:
        path: the file.
        kind: its fields are the columns, in order; the last one takes the rest of the line.
        what: names the data set.
        skip: number of lines at the beginning that are no rows. Default 0.

    Raises:
        InputError: it is missing or not text, or a row is not what the fields' types allow.
    """
    columns = get_type_hints(kind)
    return [
        _row(kind, columns, line.strip().split(maxsplit=len(columns) - 1), f"{path}, line {number}")
        for number, line in lines_of(path, what)[skip:]
    ]


def csv_rows_of(path: Path, kind: type[T], what: str) -> list[T]:
    """Read a table of comma-separated values after its header: a dataclass for each row, by the first columns.

    Raises:
        InputError: as :func:`rows_of`.
    """
    try:
        rows = list(csv.reader(io.StringIO(text_of(need_file(path, what), LARGEST), newline="")))
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as comma-separated values: {error}") from error
    columns = get_type_hints(kind)
    return [_row(kind, columns, row, f"{path}, row {i}") for i, row in enumerate(rows[1:], 1) if row]


def json_of(path: Path, what: str) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it is missing or not JSON.
    """
    return json_in(text_of(need_file(path, what), LARGEST), str(path))


def json_rows_of(path: Path, kind: type[T], what: str) -> list[T]:
    """Read a JSON file that holds a list: a dataclass for each item.

    Raises:
        InputError: it is missing or no list, or an item is not what the fields' types allow.
    """
    rows = json_of(path, what)
    if not isinstance(rows, list):
        raise InputError(f"{path} cannot be {short(rows)}; it must be a list")
    return [from_values(kind, row, f"{path}, item {i}", others=True) for i, row in enumerate(rows)]


def read_mat(path: Path, name: str, what: str, largest: int = LARGEST) -> Any:
    """Read a variable of a MATLAB file; see :func:`mat_variable`.

    Raises:
        InputError: the file is missing or damaged, or has no such variable.
    """
    return mat_variable(need_file(path, what), name, largest)


def _row(kind: type[T], columns: Mapping[str, Any], cells: Sequence[str], where: str) -> T:
    values = {name: _cell(hint, cell) for (name, hint), cell in zip(columns.items(), cells, strict=False)}
    return from_values(kind, values, where, others=True)


def _cell(hint: Any, cell: str) -> Any:
    """The number in a cell where the column holds numbers; the cell itself where there is none."""
    try:
        return hint(cell)
    except ValueError:
        return cell
