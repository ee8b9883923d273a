"""A query cache on disk: shards that are read through the page cache, so there may be more objects than memory.

A folder of ``index.json``, ``model.safetensors`` (key matrices and text rows) and ``shard_00000.safetensors`` …, each
with its objects along the first axis. Every file carries the index's identity.
"""

import logging
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from keyorbit.devices import AUTO, usable_device
from keyorbit.diffusion.maps import LayerMaps
from keyorbit.diffusion.model_facts import ModelFacts
from keyorbit.diffusion.model_places import found_from
from keyorbit.diffusion.prepare import Shown
from keyorbit.diffusion.queries import LayerQueries, QueryCache
from keyorbit.discovery.cache.index import CacheIndex, read_index
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.views import Layout
from keyorbit.ranks import launched
from keyorbit.storage.files import write_bytes
from keyorbit.values import as_path

log = logging.getLogger(__name__)

# Where torch puts its own tensors: matrix products of others may differ in their last bits.
_ALIGNMENT = 64


@dataclass(frozen=True, eq=False)
class DiskCache:
    """An opened cache, a :class:`keyorbit.discovery.source.Source`.

    Queries are read from disk at each request, and not kept in memory.
    """

    folder: Path
    index: CacheIndex
    facts: ModelFacts
    device: torch.device
    keys: tuple[Tensor | None, ...]

    @property
    def versions(self) -> int:
        return self.index.versions

    @property
    def mark(self) -> str:
        return self.index.objects_mark

    def __len__(self) -> int:
        return len(self.index.objects)

    def shown(self, number: int) -> Shown:
        warps, masks, distance = self._read(number, ("warps", "masks", "distance"))
        return Shown(warps, masks.bool(), distance)

    def ahead(self, numbers: Sequence[int]) -> None:
        """The system reads ahead on its own."""

    def maps(self, number: int, tokens: Float[Tensor, "token width"]) -> list[LayerMaps]:
        return self.queries(number).maps(tokens, slice(None), self.index.maps)

    def queries(self, number: int) -> QueryCache:
        """One object's queries, as :func:`keyorbit.diffusion.recording.record` returned them.

        Queries of float32 are not copied.
        """
        return self.assembled([x.to(self.device, torch.float32) for x in self.stored(number)])

    def stored(self, number: int) -> list[Tensor]:
        """One object's tensors as they lie on the disk: queries of all layers, then their normalizers."""
        count, normalized = len(self.index.stored), self.index.maps == "attention"
        names = [f"query.{i}" for i in range(count)] + [f"normalizer.{i}" for i in range(count) if normalized]
        return self._read(number, names)

    def assembled(self, tensors: Sequence[Tensor]) -> QueryCache:
        """The queries that :meth:`stored` tensors are, wherever these were moved."""
        count = len(self.index.stored)
        normalizers: Sequence[Tensor | None] = tensors[count:] or [None] * count
        layers = (
            LayerQueries(layer.name, layer.size, query, normalizer, key)
            for layer, query, normalizer, key in zip(
                self.index.stored, tensors[:count], normalizers, self.keys, strict=True
            )
        )
        return QueryCache(tuple(layers), self.versions)

    def _read(self, number: int, names: tuple[str, ...] | list[str]) -> list[Tensor]:
        shard, place = divmod(number, self.index.objects_per_shard)
        path = shard_path(self.folder, shard)
        try:
            with safe_open(path, framework="pt") as file:
                _check_identity(path, file, self.index)
                found = [file.get_slice(name)[place : place + 1][0] for name in names]
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} can no longer be read ({error}); build the cache again") from error
        return [x if x.data_ptr() % _ALIGNMENT == 0 else x.clone() for x in found]


def open_cache(folder: str | Path, device: str = AUTO) -> DiskCache:
    """Open a finished cache for :func:`keyorbit.discover_cached`; every file's size is checked, none is read whole.

    Raises:
        InputError: naming the file that is missing, truncated or of another cache.
    """
    folder, place = as_path(folder, "folder"), usable_device(device, launched())
    index = read_index(folder)
    _check_shards(folder, index)
    path = folder / "model.safetensors"
    check_file(path, index, model_shapes(index))
    with safe_open(path, framework="pt") as file:
        rows = file.get_tensor("text_rows")
        if rows.ndim != 2 or not len(rows) or rows.shape[1] != index.width or not rows.isfinite().all():
            raise InputError(
                f"{path}: text_rows cannot be of shape {list(rows.shape)}, or not finite; it must hold rows of "
                f"{index.width} numbers: build the cache again"
            )
        keys = tuple(
            file.get_tensor(f"to_key.{i}").clone().to(place) if layer.key else None
            for i, layer in enumerate(index.stored)
        )
    cameras = None if index.cameras is None else Cameras.from_dict(index.cameras)
    layout = Layout(*index.layout)
    mark = index.model_fingerprint
    names = found_from(folder / "index.json", index.model, index.model_folder, mark), mark, index.layers
    facts = ModelFacts(
        *names, layout, cameras, index.latent_side, rows, index.cameras_of, cameras_mark=index.cameras_mark
    )
    held = (
        f"{len(index.objects)} objects in {index.versions} versions each, {index.bytes / 1e6:.1f} MB of {index.dtype}"
    )
    log.info("cache %s: %s, from model %s (%s)", folder, held, index.model, index.model_fingerprint)
    return DiskCache(folder, index, facts, place, keys)


def _check_shards(folder: Path, index: CacheIndex) -> None:
    """Raise InputError, naming the file, unless all shards are there and whole.

    Only the first and the last are opened, since there may be a hundred thousand: all others are as long as the first.
    Whether they are of this cache is seen as they are read.
    """
    with os.scandir(folder) as entries:
        sizes = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    paths = [shard_path(folder, shard) for shard in range(index.shards)]
    if missing := sum(path.name not in sizes for path in paths):
        raise InputError(
            f"{folder} is not finished: {missing} of its {index.shards} shards are missing; "
            "run the same 'keyorbit cache' again, it goes on where it was"
        )
    for shard in sorted({0, index.shards - 1}):
        check_file(paths[shard], index, shard_shapes(index, shard))
    right = sizes[paths[0].name]
    for path in paths[:-1]:
        if sizes[path.name] != right:
            raise InputError(
                f"{path} is truncated or damaged (it has {sizes[path.name]} bytes for {right}); remove it and run the "
                "same 'keyorbit cache' again"
            )


def shard_path(folder: Path, shard: int) -> Path:
    """Where a shard lies."""
    return folder / f"shard_{shard:05d}.safetensors"


def shard_shapes(index: CacheIndex, shard: int) -> dict[str, tuple[str, list[int]]]:
    """Type and shape of every tensor of a shard, in safetensors' words."""
    count, views, side = len(index.in_shard(shard)), index.layout[0] * index.layout[1], index.view_size
    kind = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[index.dtype]
    shapes = {
        "warps": ("F32", [count, index.versions, views, 2, 3]),
        "masks": ("U8", [count, index.versions, views, side, side]),
        "distance": ("F32", [count, views, side, side]),
    }
    for i, layer in enumerate(index.stored):
        positions = layer.size[0] * layer.size[1]
        shapes[f"query.{i}"] = (kind, [count, index.versions, layer.heads, positions, layer.channels])
        if index.maps == "attention":
            shapes[f"normalizer.{i}"] = ("F32", [count, index.versions, layer.heads, positions])
    return shapes


def model_shapes(index: CacheIndex) -> dict[str, tuple[str, list[int] | None]]:
    """The same of the file beside the shards; the number of text rows is the model's own affair."""
    keys = {
        f"to_key.{i}": ("F32", [layer.heads * layer.channels, index.width])
        for i, layer in enumerate(index.stored)
        if layer.key
    }
    return {"text_rows": ("F32", None), **keys}


def check_file(path: Path, index: CacheIndex, shapes: Mapping[str, tuple[str, list[int] | None]]) -> None:
    """Raise InputError, naming the file, unless it is whole and of this cache."""
    if not path.is_file():
        raise InputError(f"{path} is missing; build the cache again")
    try:
        with safe_open(path, framework="pt") as file:
            _check_identity(path, file, index)
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: (part.get_dtype(), list(part.get_shape())) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is truncated or damaged ({error}); remove it and run the same 'keyorbit cache' again"
        ) from error
    right = found.keys() == shapes.keys() and all(
        found[name][0] == kind and shape in (None, found[name][1]) for name, (kind, shape) in shapes.items()
    )
    if not right:
        raise InputError(f"{path} does not hold what {path.parent / 'index.json'} says; build the cache again")


def _check_identity(path: Path, file: Any, index: CacheIndex) -> None:
    if (file.metadata() or {}).get("keyorbit") != index.identity:
        raise InputError(f"{path} belongs to another cache than {path.parent / 'index.json'}; build the cache again")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], index: CacheIndex) -> None:
    """Write one file of a cache, whole or not at all; its data start at a multiple of 64 bytes.

    Raises:
        InputError: the disk refuses.
    """
    data = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, {"keyorbit": index.identity})
    header = 8 + struct.unpack("<Q", data[:8])[0]
    padding = -header % _ALIGNMENT  # the header is JSON, to which spaces add nothing
    whole = memoryview(data)
    length = struct.pack("<Q", header - 8 + padding)
    write_bytes(path, length, whole[8:header], b" " * padding, whole[header:])
