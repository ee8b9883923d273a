"""What shards hold: their names, and the files of one object."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from keyorbit.errors import InputError
from keyorbit.objects.shards import parquet, tar
from keyorbit.objects.shards.names import TAR
from keyorbit.objects.shards.parquet import parquet_keys, read_row
from keyorbit.objects.shards.tar import entries_by, index_place, read_members, tar_entries
from keyorbit.storage.addresses import plain
from keyorbit.storage.places import read_if_there

# Indexes that are in memory together. All shards of one word are in one file system.
_AT_ONCE = 64


def keys_of(shards: Sequence[Path]) -> Iterator[list[str]]:
    """The keys of the objects in each shard, in their order. Indexes are read, some at once, and no other bytes.

    Raises:
        InputError: one is missing, damaged or cannot be reached.
    """
    tar.forget()  # who lists anew wants to see what is there now
    parquet.forget()
    for first in range(0, len(shards), _AT_ONCE):
        some = shards[first : first + _AT_ONCE]
        tars = [shard for shard in some if _is_tar(shard)]
        indexes = dict(zip(tars, read_if_there([index_place(shard) for shard in tars]), strict=True))
        for shard in some:
            if shard in indexes:
                yield [entry.key for entry in entries_by(indexes[shard], shard)]
            else:
                yield parquet_keys(shard)


def _is_tar(shard: Path) -> bool:
    return plain(shard).suffix.lower() == TAR


def files_in_shard(shard: Path, number: int, where: str) -> Mapping[str, bytes]:
    """The files of one object by their names; nothing but pictures, meshes and JSON is read.

    Args:
        shard: the shard.
        number: of the object in it, from 0.
        where: names the object in errors.

    Raises:
        InputError: it is cut, damaged, or not there any more.
    """
    if not _is_tar(shard):
        return read_row(shard, number, where)
    entries = tar_entries(shard)
    if number >= len(entries):
        raise InputError(f"{where} is not there any more: the shard holds {len(entries)} objects now")
    return read_members(shard, entries[number], where)
