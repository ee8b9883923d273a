"""Write shards, each all of it or nothing: tar with an index beside it, or Parquet."""

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from keyorbit.errors import InputError
from keyorbit.objects.shards.names import META, PARQUET, PICTURE, SHARD_SUFFIXES, is_object, picture_in
from keyorbit.objects.shards.packing import Files, Planned, plan_digest
from keyorbit.objects.shards.tar import BLOCK, index_place
from keyorbit.storage.addresses import ON_DISK, address_of, is_remote, shown
from keyorbit.storage.places import INSTALL, files_in, is_there, read_range, removed, whole_anywhere

# In the header of a shard: what it was packed of.
_MARK = "keyorbit.packed"
# Bytes and objects of a row group, all of which a reader holds.
_GROUP_BYTES, _GROUP_ROWS = 2**24, 100


def is_written(plan: Planned) -> bool:
    """Whether a shard is there whole, of the same objects.

    Raises:
        InputError: another one is there, or the place cannot be reached.
    """
    last = plan.path if plan.path.suffix == PARQUET else index_place(plan.path)
    if not is_there(last) or not is_there(plan.path):
        return False
    if _mark_of(plan.path) != plan_digest(plan):
        raise InputError(
            f"{shown(plan.path)} is a shard of other objects, or of files that were changed since: give another --out "
            "or --prefix, or --overwrite to replace it"
        )
    return True


def write_shard(plan: Planned, objects: Iterable[tuple[str, Files]]) -> None:
    """Write a shard, and then its index.

    Args:
        plan: which.
        objects: the key and the files of each of its objects.

    Raises:
        InputError: it cannot be written, or as ``objects`` does.
    """
    if plan.path.suffix == PARQUET:
        with whole_anywhere(plan.path) as partial:
            _write_parquet(partial, plan_digest(plan), objects)
        return
    index = index_place(plan.path)
    removed(index)  # it is the last to be written, and says that the shard is whole
    with whole_anywhere(plan.path) as partial:
        lines = list(_write_tar(partial, plan_digest(plan), objects))
    with whole_anywhere(index) as partial:
        partial.write_text("\n".join([f"v1.2 {len(lines)}", *lines, ""]), encoding="utf-8")


def _write_tar(path: Path, mark: str, objects: Iterable[tuple[str, Files]]) -> Iterator[str]:
    """Write a tar shard; yield the line of each object in the index."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": f"{_MARK} {mark}"}) as tape:
        for key, files in objects:
            words = []
            for name, data in files.items():
                # No owner and no time: the same objects make the same bytes.
                info = tarfile.TarInfo(f"{key}.{name}")
                info.size, info.mode = len(data), 0o644
                tape.addfile(info, io.BytesIO(data))
                start = tape.offset - -(-len(data) // BLOCK) * BLOCK
                words.append(f"{name} {start} {len(data)} {key}.{name}")
            yield " ".join(words)


def _mark_of(path: Path) -> str:
    if path.suffix != PARQUET:
        found = read_range(path, 0, 4 * BLOCK).partition(f"{_MARK} ".encode())[2]
        return found[:64].decode(errors="replace")
    import pyarrow.parquet as parquet

    from keyorbit.storage.places import opened

    with opened(path) as file:
        return str((parquet.read_schema(file).metadata or {}).get(_MARK.encode(), b"").decode(errors="replace"))


def check_format(name: str) -> None:
    """Raise InputError where the library for a format is missing."""
    if name == "parquet" and find_spec("pyarrow") is None:
        raise InputError(f"--format parquet needs pyarrow: {INSTALL}")


def other_shards(out: Path, name: str, shards: Sequence[Planned], overwrite: bool) -> list[Path]:
    """Find shards of this name that are none of those that are to be; none but with ``overwrite``.

    Raises:
        InputError: there are some without it, or some that are to be packed, or the place cannot be reached.
    """
    if not is_remote(out) and not out.is_dir():
        return []
    ours = {shard.path for shard in shards}
    pattern = f"{name.lower()}-[0-9][0-9][0-9][0-9][0-9][0-9]"
    others = [path for path in files_in(out, [f"{pattern}{suffix}" for suffix in SHARD_SUFFIXES]) if path not in ours]
    packed = {source.path for shard in shards for source in shard.sources if source.key is not None}
    if {_one(path) for path in packed} & {_one(path) for path in (*ours, *others)}:
        raise InputError(f"{shown(out)} holds the shards that are to be packed anew: give another --out or --prefix")
    if others and not overwrite:
        raise InputError(
            f"{shown(others[0])} is a shard of another packing under this name: give another --out or --prefix, or "
            "--overwrite to replace all of that name"
        )
    return others


def remove_shards(paths: Sequence[Path]) -> None:
    """Remove shards and their indices. Raises InputError where the place cannot be reached."""
    for path in paths:
        removed(index_place(path))
        removed(path)


def _one(path: Path) -> str:
    """What is the same for one file, whatever leads to it: links, ``..``, or an address of this disk."""
    scheme, _, inside = address_of(path).partition("://")
    if is_remote(path) and scheme not in ON_DISK:
        return address_of(path)
    return os.path.realpath(inside if is_remote(path) else path)


def _write_parquet(path: Path, mark: str, objects: Iterable[tuple[str, Files]]) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    file = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    columns = {"name": arrow.string(), "image": file, "views": arrow.list_(file), "meta": arrow.string()}
    columns["files"] = arrow.list_(file)
    schema = arrow.schema(list(columns.items()))
    schema = schema.with_metadata({"huggingface": json.dumps(_FEATURES), _MARK: mark})
    with parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        rows, size = list[dict[str, Any]](), 0
        for key, files in objects:
            rows.append(_row(key, files))
            size += sum(map(len, files.values()))
            if size > _GROUP_BYTES or len(rows) == _GROUP_ROWS:
                writer.write_table(arrow.Table.from_pylist(rows, schema))
                rows, size = [], 0
        if rows:
            writer.write_table(arrow.Table.from_pylist(rows, schema))


def _feature(kind: str) -> dict[str, str]:
    return {"dtype": kind, "_type": "Value"}


# How Hugging Face's datasets know which columns are pictures.
_FEATURES = {
    "info": {
        "features": {
            "name": _feature("string"),
            "image": {"_type": "Image"},
            "views": {"feature": {"_type": "Image"}, "_type": "List"},
            "meta": _feature("string"),
            "files": {"feature": {"bytes": _feature("binary"), "path": _feature("string")}, "_type": "List"},
        }
    }
}


def _row(key: str, files: Files) -> dict[str, Any]:
    """One object as a row: the picture that is shown first, its views, what is told of it, and all else."""
    left = dict(files)
    picture = PICTURE if is_object(files) else picture_in(files)
    image = None if picture is None else {"bytes": left.pop(picture), "path": _path(key, picture)}
    views = [name for name in left if name == "grid.png" or (name.startswith("view_") and name.endswith(".png"))]
    row = {"name": key, "image": image, "views": [{"bytes": left.pop(name), "path": name} for name in sorted(views)]}
    try:
        meta = left[META].decode() if META in left else None
        left.pop(META, None)
    except UnicodeDecodeError:
        meta = None  # it is kept as it is, and told where it is read
    return row | {"meta": meta, "files": [{"bytes": data, "path": name} for name, data in left.items()]}


def _path(key: str, name: str) -> str:
    return name if "." in name else f"{key}.{name}"
