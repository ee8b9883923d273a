"""From objects to what the UNet is shown: views (also warped ones) encoded, noised and paired with their condition."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from keyorbit.diffusion.backends.base import Backend
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.heatmaps import resize
from keyorbit.geometry.hull import silhouette_distance, silhouettes
from keyorbit.geometry.views import Layout, merge_views, split_views
from keyorbit.geometry.warps import Warp, random_warps, warp_image
from keyorbit.objects.dataset import Objects, ObjectViews
from keyorbit.objects.pictures import GREY


@dataclass(frozen=True)
class PrepareConfig:
    """How objects are shown to the UNet.

    warps: further versions of every object, each view warped by its own random rotation (± ``rotation_deg``), scale
    and shift (sides of the view); noises: draws of noise per version; timestep: 0…999, how much noise, or several,
    each of which makes versions of its own, None for the model's own; seed: of warps and noise, None for that of the
    work they are for. Numbers of warps and noises that are None are what suits the work, or none and one.
    """

    timestep: int | tuple[int, ...] | None = None
    warps: int | None = None
    noises: int | None = None
    rotation_deg: float = 15.0
    scale: tuple[float, float] = (0.85, 1.1)
    shift: float = 0.1
    seed: int | None = None

    def timesteps(self, default: int) -> tuple[int, ...]:
        """One or several; ``default`` stands in for the model's own."""
        chosen = default if self.timestep is None else self.timestep
        return chosen if isinstance(chosen, tuple) else (chosen,)

    def versions(self, default: int) -> int:
        """How many versions of each object there are."""
        return (1 + self.warped) * len(self.timesteps(default)) * self.drawn

    @property
    def warped(self) -> int:
        """The number of warps."""
        return self.warps or 0

    @property
    def drawn(self) -> int:
        """The draws of noise per version."""
        return 1 if self.noises is None else self.noises


@dataclass(frozen=True, eq=False)
class Shown:
    """What a discovery knows of one object besides its queries.

    warps: of each version's views; masks: True on the object, warped likewise; distance: of every pixel of the unwarped
    views from the silhouette, in sides of the view (:func:`keyorbit.geometry.hull.silhouette_distance`).
    """

    warps: Float[Tensor, "version view 2 3"]
    masks: Bool[Tensor, "version view view_height view_width"]
    distance: Float[Tensor, "view view_height view_width"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """One object in all its versions, ready for :meth:`Backend.denoise`; version 0 is not warped."""

    latents: Float[Tensor, "version channel height width"]
    condition_latent: Float[Tensor, "version condition_channel condition_height condition_width"]
    condition_noise: Float[Tensor, "version condition_channel condition_height condition_width"]
    context: Float[Tensor, "version text context_width"]
    timestep: Int[Tensor, " version"]
    warps: Float[Tensor, "version view 2 3"]
    masks: Bool[Tensor, "version view view_height view_width"]

    def shown(self) -> Shown:
        """The part that is not for the UNet."""
        return Shown(self.warps, self.masks, silhouette_distance(self.masks[0]))

    def split(self, count: int) -> list["Prepared"]:
        """At most ``count`` versions at a time, in order."""
        parts = zip(*(getattr(self, field.name).split(count) for field in fields(self)), strict=True)
        return [Prepared(*part) for part in parts]

    @classmethod
    def join(cls, items: Sequence["Prepared"]) -> "Prepared":
        """All versions of the first, then of the next."""
        return cls(*(torch.cat([getattr(item, field.name) for item in items]) for field in fields(cls)))


def object_cameras(thing: ObjectViews, backend: Backend) -> Cameras | None:
    """The cameras of the views that :func:`object_views` gives: the object's own where its own views are looked at.

    Raises:
        InputError: the object has another number of views than the model.
    """
    count = backend.layout.num_views
    if thing.views is None or count == 1:
        return backend.cameras
    if len(thing.views) != count:
        raise InputError(f"{thing.name} has {len(thing.views)} views; the model has {count}")
    return thing.cameras or backend.cameras


def object_views(
    thing: ObjectViews, backend: Backend, generator: torch.Generator
) -> tuple[Float[Tensor, "view 3 height width"], Bool[Tensor, "view height width"], Cameras | None]:
    """The object's own views at the model's size, or views generated from its input picture, with silhouettes.

    A model of a single view looks at the input picture, whatever views there are; it has no cameras.

    Raises:
        InputError: the object has another number of views than the model.
    """
    cameras, single = object_cameras(thing, backend), backend.layout.num_views == 1
    if thing.views is None or single:
        grid = backend.generate([thing.input_image], generator)[0]
        views = split_views(grid, backend.layout).movedim(1, 0)
    else:
        views = thing.views
    masks = silhouettes(views) if thing.masks is None or single else thing.masks
    size = (backend.view_size, backend.view_size)
    if views.shape[-2:] != size:
        views = F.interpolate(views, size=size, mode="bilinear", antialias=True)
        masks = resize(masks.float(), size) > 0.5
    return views, masks, cameras


def warped_versions(
    views: Float[Tensor, "view 3 height width"],
    masks: Bool[Tensor, "view height width"],
    layout: Layout,
    config: PrepareConfig,
    generator: torch.Generator,
) -> tuple[
    Float[Tensor, "version view 2 3"],
    Float[Tensor, "version 3 grid_height grid_width"],
    Bool[Tensor, "version view height width"],
]:
    """The warps of an object's versions, the first the identity, and its grids and silhouettes under them."""
    moved = random_warps((config.warped, len(views)), generator, config.rotation_deg, config.scale, config.shift)
    warps = torch.cat([Warp.identity((1, len(views))).matrix, moved.matrix.float()])
    shown, covered = views[None], masks[None]
    if config.warped:
        pictures = views.expand(config.warped, *views.shape)
        channel = masks[:, None].float().expand(config.warped, -1, -1, -1, -1)
        shown = torch.cat([shown, warp_image(pictures, moved, fill=GREY)])
        covered = torch.cat([covered, warp_image(channel, moved, fill=0.0)[:, :, 0] > 0.5])
    return warps, merge_views(rearrange(shown, "n v c h w -> n c v h w"), layout), covered


@torch.no_grad()
def prepare(
    thing: ObjectViews, backend: Backend, config: PrepareConfig, generator: torch.Generator
) -> tuple[Prepared, Float[Tensor, "view 3 height width"], Cameras | None]:
    """Encode one object in all its versions; also returns its views and cameras.

    Versions are counted warps first, timesteps next, noises inside: :meth:`PrepareConfig.versions` in all.
    """
    views, masks, cameras = object_views(thing, backend, generator)
    warps, grids, covered = warped_versions(views, masks, backend.layout, config, generator)
    noisiness = torch.tensor(config.timesteps(backend.default_timestep), device=backend.device)
    several = len(noisiness) * config.drawn
    clean = repeat(backend.encode_images(grids), "n c h w -> (n k) c h w", k=several)
    timestep = repeat(noisiness, "t -> (n t k)", n=len(grids), k=config.drawn)
    noise = torch.randn(clean.shape, generator=generator).to(clean)
    condition = backend.encode_condition([thing.input_image]).repeat(len(clean))
    condition_noise = torch.randn(condition.latent.shape, generator=generator).to(condition.latent)
    prepared = Prepared(
        backend.add_noise(clean, noise, timestep),
        condition.latent,
        condition_noise,
        condition.context,
        timestep,
        repeat(warps, "n v i j -> (n k) v i j", k=several),
        repeat(covered, "n v h w -> (n k) v h w", k=several),
    )
    return prepared, views, cameras


def prepare_numbered(
    thing: ObjectViews, number: int, backend: Backend, config: PrepareConfig, seed: int = 0
) -> Prepared:
    """The ``number``-th object from a generator of its own: the same whatever the others are."""
    seed = seed if config.seed is None else config.seed
    return prepare(thing, backend, config, torch.Generator().manual_seed(seed * 10**6 + number))[0]


def prepare_all(
    objects: Objects,
    backend: Backend,
    config: PrepareConfig,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Prepared], Cameras | None]:
    """Every object prepared, each from its own generator: the same whatever the others are.

    Raises:
        InputError: there is no object, or the objects do not share one set of cameras.
    """
    prepared: list[Prepared] = []
    cameras: Cameras | None = None
    for i, (thing, cameras) in enumerate(on_one_rig(objects, backend)):  # noqa: B007 (the cameras are read after it)
        prepared.append(prepare_numbered(thing, i, backend, config, seed))
        if progress is not None:
            progress(i + 1, len(objects))
    if not prepared:
        raise InputError("there are no objects to work on")
    return prepared, cameras


def on_one_rig(objects: Objects, backend: Backend) -> Iterator[tuple[ObjectViews, Cameras | None]]:
    """Every object with the cameras that all of them share; None where the backend has none.

    Raises:
        InputError: an object has other cameras than those before it.
    """
    cameras: Cameras | None = None
    for number, thing in enumerate(objects):
        own = object_cameras(thing, backend)
        if number and not same_cameras(own, cameras):
            raise InputError(f"{thing.name} has other cameras than those before it; discover on one rig at a time")
        cameras = own
        yield thing, cameras


def same_cameras(first: Cameras | None, second: Cameras | None) -> bool:
    """Whether both are the same to within 1e-4, or there are none."""
    if first is None or second is None:
        return first is second
    if len(first) != len(second) or first.orthographic != second.orthographic:
        return False
    pairs = (first.world_to_camera, second.world_to_camera), (first.intrinsics, second.intrinsics)
    return all(torch.allclose(ours.cpu(), theirs.cpu(), atol=1e-4) for ours, theirs in pairs)
