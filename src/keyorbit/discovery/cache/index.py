"""What a query cache on disk holds, as its index.json says: enough to tell whether it is whole, stale or another's."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
from msgspec import Meta
from torch import nn

from keyorbit.diffusion.backends.base import Backend, check_backend
from keyorbit.diffusion.choices import MapKind
from keyorbit.diffusion.config import RecordConfig, SettledPrepare
from keyorbit.diffusion.layers import cross_attention_layers
from keyorbit.diffusion.model_facts import file_mark
from keyorbit.diffusion.prepare import on_one_rig
from keyorbit.diffusion.queries import LayerQueries
from keyorbit.diffusion.recording import layer_outlines
from keyorbit.discovery.choices import STORED_TYPES, StoredType, check_stored, index_file
from keyorbit.discovery.config import DiscoverConfig, checked_config
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.objects.dataset import Objects
from keyorbit.objects.fingerprint import feed, mark_of, object_fingerprint
from keyorbit.objects.given import check_given
from keyorbit.storage.content import json_of
from keyorbit.values import Count, check_value, from_values

FORMAT: Literal["keyorbit-queries-1"] = "keyorbit-queries-1"
STORED: dict[str, torch.dtype] = {name: getattr(torch, name) for name in STORED_TYPES}
_SHARD_BYTES = 128 * 2**20
# Positions or pixels along a side, channels or heads, and views along a side: more than any model has.
_Side = Annotated[int, Meta(ge=1, le=2**15)]
_Width = Annotated[int, Meta(ge=1, le=2**20)]
_Tiles = Annotated[int, Meta(ge=1, le=64)]


@dataclass(frozen=True)
class CachedLayer:
    """One layer's queries for a version, [head query channel]; key: whether a matrix makes tokens into their keys."""

    name: str
    size: tuple[_Side, _Side]
    heads: _Width
    channels: _Width
    key: bool


@dataclass(frozen=True)
class CacheIndex:
    """A cache's contents. Two caches with equal indices are the same.

    model and model_fingerprint: as the tokens will say; unet_fingerprint: of the weights in memory when it was built;
    layers: names of those read; pattern: what was asked for; stored: the layers as they are kept, which for maps of
    kind logits are one for each size; prepare: with its timestep and seed; objects: name and fingerprint of each, in
    order.
    """

    model: str
    model_fingerprint: str
    unet_fingerprint: str
    layers: Annotated[tuple[str, ...], Meta(min_length=1)]
    pattern: Annotated[tuple[str, ...], Meta(min_length=1)]
    maps: MapKind
    dtype: StoredType
    prepare: SettledPrepare
    versions: Count
    layout: tuple[_Tiles, _Tiles]
    cameras: dict[str, Any] | None
    view_size: _Side
    latent_side: _Side
    width: _Width
    stored: Annotated[tuple[CachedLayer, ...], Meta(min_length=1)]
    objects: Annotated[tuple[tuple[str, str], ...], Meta(min_length=1)]
    objects_per_shard: Count
    program: str
    format: Literal["keyorbit-queries-1"] = FORMAT
    cameras_of: str = ""
    cameras_mark: str = ""

    def __post_init__(self) -> None:
        if self.versions != self.prepare.versions:
            raise InputError(f"versions cannot be {self.versions}; as prepare says there are {self.prepare.versions}")

    @cached_property
    def identity(self) -> str:
        """A short hash of everything above; every file of the cache carries it."""
        return hashlib.sha256(json.dumps(self._plain, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def objects_mark(self) -> str:
        """The same of what the model was shown of the objects, whatever their names."""
        return mark_of(mark for _, mark in self.objects)

    @property
    def object_bytes(self) -> int:
        """Bytes of one object."""
        item = STORED[self.dtype].itemsize
        positions = [(x, x.size[0] * x.size[1]) for x in self.stored]
        queries = sum(x.heads * n * x.channels * item for x, n in positions)
        normalizers = sum(x.heads * n * 4 for x, n in positions) if self.maps == "attention" else 0
        views, pixels = self.layout[0] * self.layout[1], self.view_size**2
        return self.versions * (queries + normalizers + views * (pixels + 24)) + 4 * views * pixels

    @property
    def bytes(self) -> int:
        """Predicted size of all shards; headers and key matrices come on top and are small."""
        return len(self.objects) * self.object_bytes

    @property
    def shards(self) -> int:
        """How many files the objects lie in."""
        return -(-len(self.objects) // self.objects_per_shard)

    def in_shard(self, shard: int) -> range:
        """The numbers of its objects."""
        start = shard * self.objects_per_shard
        return range(start, min(start + self.objects_per_shard, len(self.objects)))

    def to_json(self, model_folder: str = "") -> str:
        """What ``index.json`` holds; the model's folder is told as seen from it, and is no part of the identity."""
        place = {"model_folder": model_folder} if model_folder else {}
        return json.dumps({"identity": self.identity, **place, **self._plain}, indent=1) + "\n"

    @cached_property
    def model_folder(self) -> str:
        """The model's folder as seen from the cache's, if the index was read from a file that tells it; else empty."""
        return ""

    @property
    def recording(self) -> RecordConfig:
        """What is recorded of each object."""
        return RecordConfig(self.pattern, self.maps, self.prepare)

    @cached_property
    def _plain(self) -> dict[str, Any]:
        """All fields; without cameras of somebody's choice as versions wrote it that had no choice."""
        later = ("cameras_of", "cameras_mark")
        return {name: value for name, value in asdict(self).items() if value or name not in later}

    def differing(self, other: "CacheIndex") -> list[str]:
        """Names of what two caches differ in."""
        return [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]


def read_index(folder: Path) -> CacheIndex:
    """The index of a cache folder.

    Raises:
        InputError: there is none, or it is damaged or not keyorbit's.
    """
    path = index_file(folder)
    try:
        values = json_of(path)
        identity = values.pop("identity", None) if isinstance(values, dict) else None
        place = values.pop("model_folder", "") if isinstance(values, dict) else ""
        index = from_values(CacheIndex, values, str(path))
        check_value(f"{path}: model_folder", place, str)
        vars(index)["model_folder"] = place
        # As it was written, by which it is known: there a float may be a whole number.
        vars(index)["_plain"] = values
        if index.identity != identity:
            raise InputError(f"{path} was changed by hand")
        check_layout(index, path)
    except InputError as error:
        raise InputError(f"{error}; build the cache again") from error
    return index


def check_layout(index: CacheIndex, path: Path) -> None:
    """Raise InputError where the cameras are not those of the layout, or a layer does not divide into it."""
    rows, cols = index.layout
    if index.cameras is not None:
        try:
            count = len(Cameras.from_dict(index.cameras))
        except ValueError as error:
            raise InputError(f"{path}: cameras: {error}") from error
        if count != rows * cols:
            raise InputError(f"{path} has {count} cameras for {rows} rows of {cols} views")
    for layer in index.stored:
        if layer.size[0] % rows or layer.size[1] % cols:
            raise InputError(
                f"{path}: the layer {layer.name} of size {layer.size} does not divide into {rows} x {cols}"
            )


def plan_cache(
    backend: Backend,
    objects: Objects,
    config: DiscoverConfig | None = None,
    dtype: str = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> CacheIndex:
    """What a cache of these objects would hold, without running the model; reads every object once.

    Of the discovery's settings, those of layers, maps, preparation and seed count.

    Raises:
        InputError: there is no object, one is damaged or does not fit the model, they share no set of cameras, or there
            is no such dtype.
    """
    check_backend(backend)
    check_given(objects)
    settled = checked_config(config).settled(backend)
    layers, maps = settled.layers, settled.maps
    stored = check_stored(dtype)
    cameras: Cameras | None = None
    listed = []
    for number, (thing, cameras) in enumerate(on_one_rig(objects, backend)):  # noqa: B007 (the cameras are read after it)
        listed.append((thing.name, object_fingerprint(thing, backend.layout.num_views > 1)))
        if progress is not None:
            progress(number + 1, len(objects))
    if not listed:
        raise InputError("there are no objects to work on")
    width = int(backend.unet.config.cross_attention_dim)
    index = CacheIndex(
        model=backend.name,
        model_fingerprint=backend.fingerprint,
        unet_fingerprint=weights_fingerprint(backend.unet),
        layers=tuple(cross_attention_layers(backend.unet, layers)),
        pattern=layers,
        maps=maps,
        dtype=cast(StoredType, stored),
        prepare=settled.prepare,
        versions=settled.prepare.versions,
        layout=(backend.layout.rows, backend.layout.cols),
        cameras=None if cameras is None else cameras.to_dict(),
        view_size=backend.view_size,
        latent_side=backend.latent_size(backend.view_size, backend.view_size)[0],
        width=width,
        stored=tuple(_cached_layer(outline) for outline in layer_outlines(backend, layers, maps)),
        objects=tuple(listed),
        objects_per_shard=1,
        program=version("keyorbit"),
        cameras_of=backend.cameras_of,
        cameras_mark=file_mark(backend.cameras_of, backend.cameras),
    )
    return replace(index, objects_per_shard=max(1, _SHARD_BYTES // index.object_bytes))


def _cached_layer(outline: LayerQueries) -> CachedLayer:
    _, heads, _, channels = outline.query.shape
    return CachedLayer(outline.name, outline.size, heads, channels, outline.to_key is not None)


def weights_fingerprint(unet: nn.Module) -> str:
    """A short hash of the weights in memory, adapters too: every tensor's name, type and shape, and 4096 of its values.

    The values are spread evenly, so that any training step shows.
    """
    digest = hashlib.sha256()
    for name, tensor in unet.state_dict().items():
        flat = tensor.detach().flatten()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        feed(digest, flat[:: max(1, len(flat) // 4096)])
    return digest.hexdigest()[:16]
