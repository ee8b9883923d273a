"""``keyorbit dataset pack``: objects, pictures and meshes as shards."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from keyorbit.cli.inputs import given_paths
from keyorbit.cli.options import OverwriteOption
from keyorbit.cli.telling import JsonOption, tell_json
from keyorbit.cli.terminal import console, progress
from keyorbit.errors import InputError, one_of
from keyorbit.objects.paths import without_meshes
from keyorbit.objects.sources import mesh_sources, object_sources
from keyorbit.ranks import start_ranks
from keyorbit.storage.addresses import shown
from keyorbit.storage.folder_names import folder_names, readable
from keyorbit.values import Count

FORMATS = ("tar", "parquet")
Format = Literal["tar", "parquet"]


def dataset_pack(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Dataset folders, pictures, meshes, folders or patterns of such, shards, addresses, or - for a list."
        ),
    ],
    out: Annotated[Path, typer.Option(help="A folder, or an address such as s3://bucket/chairs.")],
    format: Annotated[
        str, typer.Option(help="tar: as WebDataset reads it; parquet: as Hugging Face's datasets do."), Format
    ] = "tar",
    per_shard: Annotated[int, typer.Option(help="Objects in a shard."), Count] = 1000,
    prefix: Annotated[str, typer.Option(help="What the shards' names begin with.")] = "objects",
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
) -> None:
    """Pack objects, pictures and meshes into shards: OUT/PREFIX-000000.tar and an index beside each.

    Files stay as they are, byte for byte. A shard is written whole or not at all, and one that is there stays: the same
    command goes on where it was stopped. The processes of a launcher share the shards.
    """
    one_of("--format", format, FORMATS)
    if folder_names([prefix]) != [prefix]:
        raise InputError(f"--prefix cannot be {readable(prefix)!r:.80}; it must be a name for files on any system")
    others, meshes = without_meshes(given_paths(data))
    sources = object_sources(others) + mesh_sources(meshes)

    from keyorbit.objects.shards.packing import packed_files, planned_shards
    from keyorbit.objects.shards.writing import check_format, is_written, other_shards, remove_shards, write_shard

    check_format(format)
    shards = planned_shards(sources, out, prefix, f".{format}", per_shard)
    earlier = other_shards(out, prefix, shards, overwrite)

    from keyorbit.synthetic.meshes.bundle import bundled

    ranks, done = start_ranks("cpu"), 0
    left = [shard for shard in shards if overwrite or not is_written(shard)]
    ranks.wait()  # for all to have looked, before any has written
    mine = left[ranks.index :: ranks.count]
    total = sum(len(shard.keys) for shard in mine)
    with progress(ranks.main) as tick:
        for shard in mine:
            files = (packed_files(source, bundled) for source in shard.sources)
            write_shard(shard, zip(shard.keys, files, strict=True))
            done += len(shard.keys)
            tick("pack", done, total, {})
    ranks.wait()
    if ranks.main:
        remove_shards(earlier)  # not before the new ones are whole
        there = f" ({len(shards) - len(left)} of them were there already)" if len(left) < len(shards) else ""
        made = {"out": shown(out), "objects": len(sources), "shards": [shown(shard.path) for shard in shards]}
        tell_json(json_file, "dataset pack", made)
        words = f"{len(sources):,} objects in {len(shards):,} shards in {shown(out)}{there}"
        console.print(readable(words), markup=False, highlight=False, soft_wrap=True)
