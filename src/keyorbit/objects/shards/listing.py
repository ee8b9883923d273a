"""What shards hold: their names, and the files of one object."""

from collections.abc import Mapping
from pathlib import Path

from keyorbit.errors import InputError
from keyorbit.objects.shards.names import TAR
from keyorbit.objects.shards.parquet import parquet_keys, read_row
from keyorbit.objects.shards.tar import read_members, tar_entries
from keyorbit.storage.addresses import plain


def keys_in(shard: Path) -> list[str]:
    """The keys of the objects in a shard, in their order.

    Raises:
        InputError: it is missing, damaged or cannot be reached.
    """
    if plain(shard).suffix.lower() == TAR:
        return [entry.key or "cut" for entry in tar_entries(shard)]
    return parquet_keys(shard)


def files_in_shard(shard: Path, number: int, where: str) -> Mapping[str, bytes]:
    """The files of one object by their names; nothing but pictures, meshes and JSON is read.

    Args:
        shard: the shard.
        number: of the object in it, from 0.
        where: names the object in errors.

    Raises:
        InputError: it is cut, damaged, or not there any more.
    """
    if plain(shard).suffix.lower() != TAR:
        return read_row(shard, number, where)
    entries = tar_entries(shard)
    if number >= len(entries):
        raise InputError(f"{where} is not there any more: the shard holds {len(entries)} objects now")
    return read_members(shard, entries[number], where)
