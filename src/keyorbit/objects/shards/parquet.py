"""Parquet shards, as Hugging Face's ``datasets`` writes and shows them: a row is an object, a picture or a mesh.

A picture is a struct of its ``bytes`` and its ``path``, or plain bytes. What ``keyorbit dataset pack`` writes has all
files of an object: ``image``, ``views``, ``meta`` and ``files``. pyarrow reads them, and is imported here only.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from keyorbit.errors import InputError
from keyorbit.objects.paths import IMAGE_SUFFIXES
from keyorbit.objects.shards.names import META, PICTURE, is_wanted
from keyorbit.storage.addresses import is_remote, shown
from keyorbit.storage.places import INSTALL, opened, reaching

# Columns that say what an object is called, the first that is there.
_KEYS = ("__key__", "key", "name", "id", "image_id", "file_name")
# Columns of pictures that are taken before others.
_PICTURES = ("image", "img", "picture", "jpg", "png")
# Rows that are in memory together.
_ROWS = 8


@dataclass(frozen=True)
class Columns:
    """What a Parquet file has for us.

    Attributes:
        key: column of names. None: a row goes by its number, or by the path of its picture.
        image: column of pictures; None where there is none.
        packed: whether it is of ``keyorbit dataset pack``, with all files of objects.
        path: whether pictures have paths.
    """

    key: str | None
    image: str | None
    packed: bool
    path: bool

    @property
    def read(self) -> list[str]:
        """The columns that are read for an object."""
        return ["image", "views", "meta", "files"] if self.packed else [str(self.image)]


def columns_of(schema: Any, where: str) -> Columns:
    """Choose the columns of a schema.

    Raises:
        InputError: there are neither pictures nor meshes.
    """
    import pyarrow.types as kinds

    def is_bytes(kind: Any) -> bool:
        return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind))

    def is_file(kind: Any) -> bool:
        return bool(kinds.is_struct(kind)) and any(f.name == "bytes" and is_bytes(f.type) for f in kind)

    def is_text(kind: Any) -> bool:
        return bool(kinds.is_string(kind) or kinds.is_large_string(kind))

    def is_files(kind: Any) -> bool:
        return bool(kinds.is_list(kind) or kinds.is_large_list(kind)) and is_file(kind.value_type)

    # Equal values may be told once, in a dictionary.
    types = {field.name: field.type for field in schema}
    names = {name: kind.value_type if kinds.is_dictionary(kind) else kind for name, kind in types.items()}
    packed = {"name", "image", "views", "meta", "files"} <= names.keys() and is_file(names["image"])
    packed = packed and is_text(names["meta"]) and all(is_files(names[name]) for name in ("views", "files"))
    structs = [name for name, kind in names.items() if is_file(kind)]
    plain = [name for name, kind in names.items() if is_bytes(kind)]
    image = next((n for n in _PICTURES if n in structs), None) or next(iter(structs), None)
    image = image or next((n for n in _PICTURES if n in plain), None) or (plain[0] if len(plain) == 1 else None)
    if image is None:
        raise InputError(
            f"{where} has no column of pictures (bytes, or a struct of bytes and path), but {', '.join(names)[:200]}"
        )
    key = next((name for name in _KEYS if name in names and not is_bytes(names[name]) and name != image), None)
    has_path = image in structs and any(field.name == "path" for field in names[image])
    return Columns(key, image, packed, has_path)


def parquet_keys(shard: Path) -> list[str]:
    """The names of a shard's rows: of a column of names, of the pictures' paths, or their numbers.

    Raises:
        InputError: pyarrow is missing, or the file is missing, damaged or has no pictures.
    """
    with _Reader(shard) as reader:
        file, columns = reader.file, reader.columns
        total = int(file.metadata.num_rows)
        told = list[Any]()
        wanted = columns.key or (f"{columns.image}.path" if columns.path else None)
        with reaching(shard):
            for batch in file.iter_batches(columns=[wanted], batch_size=1024) if wanted else ():
                values = batch.column(0).to_pylist()
                told += values if columns.key else [value and value["path"] for value in values]
    told += [None] * (total - len(told))
    return [_key(value, i, columns.key is None) for i, value in enumerate(told)]


def _key(value: Any, number: int, is_path: bool) -> str:
    text = "" if value is None else str(value)
    return (Path(text).stem if is_path or text.lower().endswith(IMAGE_SUFFIXES) else text) or f"{number:06d}"


class _Reader:
    """An opened shard, and how far its rows were read: objects are asked for one after the other."""

    def __init__(self, shard: Path) -> None:
        try:
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise InputError(f"{shown(shard)} cannot be read without pyarrow: {INSTALL}") from error
        self.shard = shard
        self._stack = ExitStack()
        stream = self._stack.enter_context(opened(shard))
        with reaching(shard):
            try:
                self.file = parquet.ParquetFile(stream)
            except Exception as error:
                self._stack.close()
                raise InputError(f"{shown(shard)} cannot be read as Parquet: {str(error).strip()[:200]}") from error
        self.columns = columns_of(self.file.schema_arrow, shown(shard))
        groups = (self.file.metadata.row_group(i).num_rows for i in range(self.file.metadata.num_row_groups))
        self._firsts, total = list[int](), 0
        for rows in groups:
            self._firsts.append(total)
            total += rows
        self._next = 0
        self._rows: Iterator[dict[str, Any]] = iter(())

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def row(self, number: int) -> dict[str, Any]:
        """The columns of one row. Those behind the last one that are in its row group are passed over."""
        group = max(i for i, first in enumerate(self._firsts) if first <= number)
        if not self._firsts[group] <= self._next <= number or self._next == 0:
            groups = range(group, len(self._firsts))
            batches = self.file.iter_batches(_ROWS, row_groups=groups, columns=self.columns.read)
            self._rows = (row for batch in batches for row in batch.to_pylist())
            self._next = self._firsts[group]
        while True:
            row = next(self._rows)
            self._next += 1
            if self._next > number:
                return row


def _stamp(path: Path) -> tuple[int, int]:
    facts = None if is_remote(path) or not path.exists() else path.stat()
    return (0, 0) if facts is None else (facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=1)
def _kept(shard: Path, stamp: tuple[int, int]) -> _Reader:
    return _Reader(shard)


def forget() -> None:
    """Let go of the shard that is open."""
    _kept.cache_clear()


def read_row(shard: Path, number: int, where: str) -> dict[str, bytes]:
    """The files of one row, by their names.

    Raises:
        InputError: as :func:`parquet_keys`, or the row has no picture and no mesh.
    """
    reader = _kept(shard, _stamp(shard))
    try:
        with reaching(shard):
            row = reader.row(number)
    except InputError as error:
        forget()  # how far it was read is not known any more
        raise InputError(f"{where} cannot be read: {error}") from error
    if not reader.columns.packed:
        data, path = _file(row[str(reader.columns.image)])
        return {} if data is None else {_suffix(path): data}
    data, path = _file(row["image"])
    found = {} if data is None else {PICTURE if path == PICTURE else _suffix(path): data}
    for value in (*(row["views"] or ()), *(row["files"] or ())):
        data, path = _file(value)
        if data is not None and is_wanted(path):
            found[path] = data
    return found if row["meta"] is None else {**found, META: row["meta"].encode()}


def _file(value: Any) -> tuple[bytes | None, str]:
    """The bytes of a picture, and the last part of its path."""
    if not isinstance(value, dict):
        return value, ""
    return value["bytes"], Path(str(value.get("path") or "")).name


def _suffix(path: str) -> str:
    """What a picture is called here; whose path tells no kind goes as a PNG, for its bytes tell it."""
    suffix = Path(path).suffix.lower()
    return suffix[1:] if suffix in IMAGE_SUFFIXES else "png"
