"""Fill a query cache on disk, a shard at a time: little memory, and what is finished stays when the rest is killed."""

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from keyorbit.diffusion.backends.base import Backend, Weighed, check_backend
from keyorbit.diffusion.model_facts import model_facts
from keyorbit.diffusion.model_places import seen_from
from keyorbit.diffusion.prepare import object_generator
from keyorbit.diffusion.recording import Recording, check_recordings, layer_outlines, record_each, settled_batch
from keyorbit.diffusion.weights import same_weights
from keyorbit.discovery.cache.disk import DiskCache, check_file, open_cache, shard_path, shard_shapes, write_tensors
from keyorbit.discovery.cache.index import STORED, CacheIndex, read_index
from keyorbit.discovery.choices import CACHE, check_cache_place
from keyorbit.errors import InputError
from keyorbit.objects.dataset import Objects, ObjectViews
from keyorbit.objects.fingerprint import object_fingerprint
from keyorbit.objects.given import check_given
from keyorbit.ranks import Ranks
from keyorbit.storage.files import write_text
from keyorbit.storage.lock import in_use
from keyorbit.storage.outputs import begin_output
from keyorbit.values import as_path, check_kind

log = logging.getLogger(__name__)


def build_cache(
    backend: Backend,
    objects: Objects,
    index: CacheIndex,
    folder: str | Path,
    progress: Callable[[int, int], None] | None = None,
    ranks: Ranks | None = None,
    batch: int | None = None,
) -> DiskCache:
    """Run every object once and keep its queries in ``folder``, or finish a build that was stopped there.

    Each missing shard is built by one of the processes; memory is that of one shard and of ``batch`` objects, which go
    through the model together (default 1 on the CPU and 8 elsewhere). ``index`` comes from
    :func:`keyorbit.discovery.cache.index.plan_cache`, for these objects.

    Raises:
        InputError: the folder holds a cache of other settings, another process builds it, the disk cannot hold this
            one, an object has changed since the plan, values do not fit the type they are to be stored in, ``batch`` is
            below 1, or a process is gone.
    """
    check_backend(backend)
    check_given(objects)
    check_kind("index", index, CacheIndex, "what keyorbit.plan_cache returns")
    if len(objects) != (planned := len(index.objects)):
        raise InputError(f"the cache was planned for {planned} objects, not {len(objects)}: plan it for these")
    folder, ranks = as_path(folder, "folder"), ranks or Ranks()
    together = min(settled_batch(batch, backend.device), len(objects))
    check_recordings(backend, index.recording, together, min(index.objects_per_shard, len(objects)))
    with in_use(folder, ranks.main):
        return _build(backend, objects, index, folder, progress, ranks, batch)


def _build(
    backend: Backend,
    objects: Objects,
    index: CacheIndex,
    folder: Path,
    progress: Callable[[int, int], None] | None,
    ranks: Ranks,
    batch: int | None,
) -> DiskCache:
    index = begun(index, folder, backend)
    if ranks.main:
        check_room(index, folder)
        _begin(backend, index, folder)
    ranks.wait()
    missing = missing_shards(index, folder)
    ranks.wait()  # for all to have looked, before any has written
    mine = missing[ranks.index :: ranks.count]
    log.info("shards to build: %d of %d, %d of them here", len(missing), index.shards, len(mine))
    numbers = [number for shard in mine for number in index.in_shard(shard)]
    recordings = record_each(_unchanged(objects, index, numbers), backend, index.recording, batch)
    done, total = 0, len(numbers)
    for shard in mine:
        kept = []
        for recording in islice(recordings, len(index.in_shard(shard))):
            kept.append(_object_tensors(recording, index))
            done += 1
            if progress is not None:
                progress(done, total)
        stacked = {name: torch.stack([tensors[name] for tensors in kept]) for name in kept[0]}
        write_tensors(shard_path(folder, shard), stacked, index)
        log.info("wrote %s", shard_path(folder, shard))
    ranks.wait()
    return open_cache(folder, str(backend.device))


def begun(index: CacheIndex, folder: Path, model: Weighed) -> CacheIndex:
    """The index of the same cache in ``folder``, if one was begun there; else ``index`` itself.

    The same model may have had another name when the cache was begun, and the fingerprint of an earlier version.
    """
    if not (folder / "index.json").is_file():
        return index
    there = read_index(folder)
    same = {"model", "model_fingerprint"}.issuperset(index.differing(there))
    return there if same and same_weights(there.model_fingerprint, model) else index


def check_room(index: CacheIndex, folder: Path) -> None:
    """Raise InputError, with advice, if the folder is somebody else's or the disk cannot hold what is missing of it."""
    check_cache_place(folder)
    if (folder / "index.json").is_file() and (there := read_index(folder)) != index:
        raise InputError(
            f"{folder} holds another cache (it differs in {', '.join(index.differing(there))}): "
            "give another folder, or remove it"
        )
    needed = sum(len(index.in_shard(shard)) for shard in missing_shards(index, folder)) * index.object_bytes
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise InputError(
            f"the cache needs {needed / 1e9:.2f} GB more, and the disk of {folder} has {free / 1e9:.2f} GB free: store "
            "float16 instead of float32, take fewer warps, layers or objects, or another disk"
        )


def missing_shards(index: CacheIndex, folder: Path) -> list[int]:
    """Shards that are not there, or not whole."""
    missing = []
    for shard in range(index.shards):
        try:
            check_file(shard_path(folder, shard), index, shard_shapes(index, shard))
        except InputError:
            missing.append(shard)
    return missing


def _begin(backend: Backend, index: CacheIndex, folder: Path) -> None:
    """Marker, index and key matrices."""
    begin_output(folder, CACHE, resume=True)
    path = folder / "index.json"
    write_text(path, index.to_json(seen_from(path, backend.name)))
    tensors = {"text_rows": model_facts(backend, index.layers, None).text_rows}
    for i, outline in enumerate(layer_outlines(backend, index.pattern, index.maps)):
        if outline.to_key is not None:
            tensors[f"to_key.{i}"] = outline.to_key
    write_tensors(folder / "model.safetensors", tensors, index)


def _unchanged(
    objects: Objects, index: CacheIndex, numbers: Iterable[int]
) -> Iterator[tuple[ObjectViews, torch.Generator]]:
    """These objects, each with its generator."""
    for number in numbers:
        thing = objects[number]
        if object_fingerprint(thing, index.layout[0] * index.layout[1] > 1) != index.objects[number][1]:
            raise InputError(f"{thing.name} has changed since the cache was begun; build it again in another folder")
        yield thing, object_generator(index.prepare.seed, number)


def _object_tensors(recording: Recording, index: CacheIndex) -> dict[str, Tensor]:
    """One object's part of its shard."""
    shown = recording.shown
    tensors = {"warps": shown.warps, "masks": shown.masks.to(torch.uint8), "distance": shown.distance}
    for i, layer in enumerate(recording.queries["grid"].layers):
        query = layer.query.to(STORED[index.dtype])
        if not query.isfinite().all():
            raise InputError(
                f"the queries of {recording.thing.name} do not fit {index.dtype}; store bfloat16 or float32"
            )
        tensors[f"query.{i}"] = query
        if layer.text_normalizer is not None:
            tensors[f"normalizer.{i}"] = layer.text_normalizer.float()
    return tensors
