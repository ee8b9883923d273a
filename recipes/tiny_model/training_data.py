"""The tiny model's training set: rendered once from seeds, encoded once by its VAE, then kept in memory."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.errors import InputError
from keyorbit.geometry.views import merge_views
from keyorbit.storage.checkpoint import load_checkpoint, save_checkpoint
from keyorbit.synthetic.render import composite, object_surface, render
from keyorbit.synthetic.samples import SampleSpec, in_parallel, input_azimuth, make_sample, scene_of
from tiny_model.meshes import MeshSpec, Seen, mesh_azimuth, see_mesh
from tiny_model.variety import ground, light, recoloured

log = logging.getLogger(__name__)
AGAIN = "the same command goes on from it"  # after a failure
Made = tuple[dict[str, Tensor], dict[str, Any]]
Heading = tuple[str, float]  # a kind, and the azimuth of its input view about the object's front, in degrees


@dataclass(frozen=True, eq=False)
class Rendered:
    """Input pictures on their backgrounds and on grey, six views on grey, captions in rising detail."""

    inputs: UInt8[Tensor, "item background size size 3"]
    views: UInt8[Tensor, "item view size size 3"]
    captions: list[list[str]]


@dataclass(frozen=True, eq=False)
class Encoded:
    """What the UNet trains on: latents in half precision, the input pictures as the vision encoder will see them."""

    grids: Float[Tensor, "item channel height width"]
    conditions: Float[Tensor, "item background channel condition_height condition_width"]
    inputs: UInt8[Tensor, "item background size size 3"]
    captions: list[list[str]]

    def to(self, device: torch.device) -> "Encoded":
        """With all tensors on a device."""
        moved = {key: getattr(self, key).to(device) for key in ("grids", "conditions", "inputs")}
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class Meshes:
    """Pictures of meshes, what they show and where on its mesh each pixel lies, see :class:`tiny_model.meshes.Seen`."""

    pictures: Rendered
    shown: list[Heading]
    position: UInt8[Tensor, "item view side side 3"]
    on: Bool[Tensor, "item view side side"]


def training_seed(seed: int, index: int) -> int:
    """Objects that train the model have seeds from 10⁹ on; ``keyorbit dataset make`` never reaches them."""
    return 10**9 + seed * 10**6 + index


def kinds(categories: tuple[str, ...]) -> tuple[str, ...]:
    """The categories, each once: one may be named twice to be drawn twice as often."""
    return tuple(dict.fromkeys(categories))


def training_specs(categories: tuple[str, ...], objects: int, seed: int, size: int) -> list[SampleSpec]:
    """``objects`` of each kind, in turn."""
    return [SampleSpec(kind, training_seed(seed, i), size) for i in range(objects) for kind in kinds(categories)]


def all_kinds(categories: tuple[str, ...], meshes: Sequence[Heading]) -> tuple[str, ...]:
    """The different categories, then the kinds of meshes that are none of these."""
    return tuple(dict.fromkeys((*categories, *(kind for kind, _ in meshes))))


class Stock:
    """Draws items of a training set: :func:`training_specs`, then meshes. All draws are made where ``device`` is.

    Args:
        categories: one that is named twice is drawn twice as often.
        objects: of each of the different ones.
        meshes: how many items of meshes there are; as many of each kind, so that each kind is drawn as often.
        share: of meshes among what is drawn. Without meshes nothing is drawn for it.
    """

    def __init__(
        self,
        categories: tuple[str, ...],
        objects: int,
        device: torch.device | str = "cpu",
        meshes: int = 0,
        share: float = 0.0,
    ) -> None:
        self.different, self.objects, self.meshes = len(kinds(categories)), objects, meshes
        self.share = share if meshes else 0.0
        self.named = torch.tensor([kinds(categories).index(category) for category in categories]).to(device)

    def draw(self, count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
        """``count`` random items."""
        device = self.named.device
        category = torch.randint(len(self.named), (count,), generator=generator, device=device)
        of_kind = torch.randint(self.objects, (count,), generator=generator, device=device)
        items = self.different * of_kind + self.named[category]
        if not self.share:
            return items
        mesh = torch.randint(self.meshes, (count,), generator=generator, device=device)
        picked = torch.rand(count, generator=generator, device=device) < self.share
        return torch.where(picked, self.different * self.objects + mesh, items)

    def kind_of(self, items: Int[Tensor, " item"]) -> Int[Tensor, " item"]:
        """The number of each item's category among the different ones; of a mesh, how many there are."""
        return torch.where(items < self.different * self.objects, items % self.different, self.different)


def recipe_of(specs: Sequence[SampleSpec | MeshSpec]) -> str:
    """What tells one list of specs from another; a mesh is told by its file's name, wherever that lies."""
    named = [replace(spec, path=Path(spec.path).name) if isinstance(spec, MeshSpec) else spec for spec in specs]
    return hashlib.sha256(json.dumps([astuple(spec) for spec in named]).encode()).hexdigest()[:16]


def made_once(path: Path, what: str, recipe: object, make: Callable[[], Made]) -> Made:
    """Tensors and metadata of ``path``, where a run that is resumed finds what ``make`` made by ``recipe``.

    Raises:
        InputError: ``path`` was made by another recipe; ``what`` as in "pictures of" other objects.
    """
    if not path.exists():
        tensors, metadata = make()
        save_checkpoint(path, tensors, {**metadata, "recipe": recipe}, digest=True)
    tensors, metadata = load_checkpoint(path)
    known = metadata.get("recipe")
    if known != recipe:
        raise InputError(f"{path} holds {what} other objects, made by {known}, not by {recipe}; choose another folder")
    return tensors, metadata


def render_training_set(
    categories: tuple[str, ...],
    objects: int,
    seed: int,
    size: int,
    workers: int,
    path: Path,
    variety: float = 0.0,
) -> Rendered:
    """``objects`` of each kind, in turn, kept in ``path``: a run that is resumed finds them there.

    ``variety``: the share of them in other colours, lights and grounds than data sets have; their captions then say no
    colours.

    Raises:
        InputError: ``path`` holds another training set.
    """
    recipe = {"categories": list(kinds(categories)), "objects": objects, "seed": seed, "size": size}
    recipe |= {"variety": variety} if variety else {}
    specs = training_specs(categories, objects, seed, size)
    return _rendered(partial(_see, variety=variety), specs, workers, path, recipe)


def render_meshes(specs: list[MeshSpec], workers: int, path: Path) -> None:
    """Keep the pictures of meshes in ``path``.

    Raises:
        InputError: it holds other ones, or a mesh cannot be read.
    """
    shown = [(spec.kind, mesh_azimuth(spec)) for spec in specs]
    _rendered(see_mesh, specs, workers, path, recipe_of(specs), {"shown": shown})


def load_meshes(path: Path) -> Meshes:
    """The pictures of meshes that are kept in ``path``; on another machine than theirs too.

    Raises:
        InputError: it is damaged, or an earlier version's.
    """
    tensors, metadata = load_checkpoint(path)
    if "shown" not in metadata or "position" not in tensors:
        raise InputError(f"{path} does not say what its pictures show: remove it, it is made again")
    shown = [(str(kind), float(azimuth)) for kind, azimuth in metadata["shown"]]
    pictures = Rendered(tensors["inputs"], tensors["views"], metadata["captions"])
    return Meshes(pictures, shown, tensors["position"], tensors["on"])


def together(*sets: Rendered) -> Rendered:
    """One training set of several, in their order."""
    captions = [own for one in sets for own in one.captions]
    return Rendered(torch.cat([one.inputs for one in sets]), torch.cat([one.views for one in sets]), captions)


def _rendered(
    see: Callable[[Any], Seen],
    specs: list[Any],
    workers: int,
    path: Path,
    recipe: object,
    more: dict[str, Any] | None = None,
) -> Rendered:
    def make() -> Made:
        inputs, views, captions = [], [], []
        places: dict[str, list[Tensor]] = {"position": [], "on": []}
        for count, seen in enumerate(in_parallel(see, specs, workers), 1):
            both = [composite(seen.input_image, seen.background), composite(seen.input_image)]
            inputs.append(torch.from_numpy(np.stack(both)))
            views.append(torch.from_numpy(composite(seen.views)))
            captions.append(list(seen.captions))
            for name, own in places.items():
                if (found := getattr(seen, name)) is not None:
                    own.append(torch.from_numpy(found))
            if count % 1000 == 0:
                log.info("rendered %d of %d objects", count, len(specs))
        tensors = {"inputs": inputs, "views": views, **{name: own for name, own in places.items() if own}}
        return {name: torch.stack(own) for name, own in tensors.items()}, {"captions": captions, **(more or {})}

    tensors, metadata = made_once(path, "pictures of", recipe, make)
    return Rendered(tensors["inputs"], tensors["views"], metadata["captions"])


def _see(spec: SampleSpec, variety: float) -> Seen:
    rng = np.random.default_rng([3, spec.seed])
    if not rng.random() < variety:
        sample = make_sample(spec)
        azimuth = sample.input_azimuth_deg
        return Seen(sample.input_image, sample.views, sample.background, sample.captions, azimuth)
    scene = scene_of(spec)
    surface = recoloured(object_surface(scene.thing), rng)
    pictures = render(surface, scene.all_cameras, spec.size, light(rng))
    return Seen(pictures[0], pictures[1:], ground(rng), scene.thing.captions[:2], input_azimuth(spec))


@torch.no_grad()
def encode_training_set(data: Rendered, backend: Zero123PlusBackend, path: Path, batch: int = 50) -> Encoded:
    """The rendered set through the VAE, kept in ``path``: it takes minutes on a CPU.

    Raises:
        InputError: ``path`` holds another number of objects.
    """
    if not path.exists():
        grids, conditions = [], []
        for start in range(0, len(data.inputs), batch):
            views = rearrange(data.views[start : start + batch], "i v h w c -> i c v h w").float() / 255
            grids.append(backend.encode_images(merge_views(views, backend.layout)).half().cpu())
            pictures = rearrange(data.inputs[start : start + batch], "i b h w c -> (i b) c h w").float() / 255
            pixels = ((pictures - 0.5) / 0.8).to(backend.device, backend.dtype)
            latent = backend.parts.vae.encode(pixels).latent_dist.mean
            conditions.append(rearrange(latent, "(i b) c h w -> i b c h w", b=2).half().cpu())
            if start % (20 * batch) == 0:
                log.info("encoded %d of %d objects", start, len(data.inputs))
        save_checkpoint(path, {"grids": torch.cat(grids), "conditions": torch.cat(conditions)}, {}, digest=True)
    tensors, _ = load_checkpoint(path)
    if len(tensors["grids"]) != len(data.inputs):
        count = len(tensors["grids"])
        raise InputError(f"{path} holds {count} objects, not {len(data.inputs)}: remove it, it is made again")
    return Encoded(tensors["grids"], tensors["conditions"], data.inputs, data.captions)


class VisionInput:
    """Brings pictures to what the backend's own preparation makes of them for its vision encoder."""

    def __init__(self, backend: Zero123PlusBackend) -> None:
        own, device = backend.parts.feature_extractor_clip, backend.device
        self.mean, self.std = (torch.tensor(v, device=device).reshape(3, 1, 1) for v in (own.image_mean, own.image_std))

    def __call__(self, pictures: UInt8[Tensor, "item size size 3"]) -> Float[Tensor, "item 3 size size"]:
        return (rearrange(pictures, "i h w c -> i c h w").float() / 255 - self.mean) / self.std
