"""From objects to what the UNet is shown: views (also warped ones) encoded, noised and paired with their condition."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from keyorbit.diffusion.backends.base import Backend, Watch
from keyorbit.diffusion.config import SettledPrepare
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.heatmaps import resize
from keyorbit.geometry.hull import Silhouette, silhouettes
from keyorbit.geometry.views import Layout, merge_views, split_views
from keyorbit.geometry.warps import Warp, random_warps, warp_image
from keyorbit.objects.dataset import Objects, ObjectViews
from keyorbit.objects.pictures import GREY

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Shown:
    """What a discovery knows of one object besides its queries.

    Attributes:
        warps: of each version's views; version 0 is not warped.
        masks: True on the object, warped likewise.
        distance: of every pixel of the unwarped views from the object, see :class:`keyorbit.geometry.hull.Silhouette`.
    """

    warps: Float[Tensor, "version view 2 3"]
    masks: Bool[Tensor, "version view view_height view_width"]
    distance: Float[Tensor, "view view_height view_width"]

    @property
    def silhouette(self) -> Silhouette:
        """Of the unwarped views."""
        return Silhouette(self.masks[0], self.distance)


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

    def reading(self, rows: Float[Tensor, "row context_width"]) -> "Prepared":
        """The same with these rows in place of the text, in every version."""
        return replace(self, context=rows.to(self.context).expand(len(self.latents), -1, -1))

    def shown(self) -> Shown:
        """The part that is not for the UNet."""
        return Shown(self.warps, self.masks, Silhouette.of(self.masks[0]).distance)

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
    check_views(thing, count)
    return thing.cameras or backend.cameras


def check_views(thing: ObjectViews, count: int) -> None:
    """Raise InputError where an object has views, and not as many as the model."""
    if thing.views is not None and len(thing.views) != count:
        raise InputError(
            f"{thing.name} has {len(thing.views)} views; the model has {count}: give objects with {count}, or load a "
            "model with as many views as these have (--layout and --rig; layout= and rig=)"
        )


def model_image(thing: ObjectViews, backend: Backend) -> Image.Image:
    """The picture that the model is shown: cut out and recentred, unless it looks at a single view, and so at all.

    Raises:
        InputError: the picture is transparent everywhere.
    """
    return thing.shown_image(False) if backend.layout.num_views == 1 else thing.framed_image


@dataclass(frozen=True, eq=False)
class Seen:
    """What the model looks at of one object, at its own size.

    Attributes:
        views: 0…1.
        masks: True on the object.
        cameras: of the views; None for a model of a single view.
    """

    views: Float[Tensor, "view 3 height width"]
    masks: Bool[Tensor, "view height width"]
    cameras: Cameras | None


def object_views(
    thing: ObjectViews, backend: Backend, generator: torch.Generator
) -> tuple[Float[Tensor, "view 3 height width"], Bool[Tensor, "view height width"], Cameras | None]:
    """The object's own views at the model's size, or views generated from its input picture, with silhouettes.

    A model of a single view looks at the input picture, whatever views there are; it has no cameras.

    Raises:
        InputError: the object has another number of views than the model.
    """
    (seen,) = several_views([thing], backend, [generator])
    return seen.views, seen.masks, seen.cameras


def several_views(
    things: Sequence[ObjectViews], backend: Backend, generators: Sequence[torch.Generator], watch: Watch | None = None
) -> list[Seen]:
    """The same of several objects, with a generator for each; the views that have to be generated are so together.

    ``watch`` is called while they are.

    Raises:
        InputError: as :func:`object_views`.
    """
    cameras, single = [object_cameras(thing, backend) for thing in things], backend.layout.num_views == 1
    bare = [i for i, thing in enumerate(things) if thing.views is None or single]
    grids = {}
    if bare:
        images, drawn = [model_image(things[i], backend) for i in bare], [generators[i] for i in bare]
        # A backend of somebody else's may take no `watch`.
        made = backend.generate(images, drawn) if watch is None else backend.generate(images, drawn, watch=watch)
        made = made.cpu()  # where given views are, beside which they are put
        grids = dict(zip(bare, made, strict=True))
    found = []
    for i, thing in enumerate(things):
        given = None if i in grids else thing.views
        views = split_views(grids[i], backend.layout).movedim(1, 0) if given is None else given
        masks = silhouettes(views) if thing.masks is None or single else thing.masks
        size = (backend.view_size, backend.view_size)
        if views.shape[-2:] != size:
            views = F.interpolate(views, size=size, mode="bilinear", antialias=True)
            masks = resize(masks.float(), size) > 0.5
        found.append(Seen(views, masks, cameras[i]))
    return found


def warped_versions(
    views: Float[Tensor, "view 3 height width"],
    masks: Bool[Tensor, "view height width"],
    layout: Layout,
    config: SettledPrepare,
    generator: torch.Generator,
) -> tuple[
    Float[Tensor, "version view 2 3"],
    Float[Tensor, "version 3 grid_height grid_width"],
    Bool[Tensor, "version view height width"],
]:
    """The warps of an object's versions, the first the identity, and its grids and silhouettes under them."""
    backwards = config.backwards
    shape = (config.warps, len(views))
    moved = random_warps(shape, generator, config.rotation_deg, config.scale, config.shift, backwards=backwards)
    warps = torch.cat([Warp.identity((1, len(views))).matrix, moved.matrix.float()])
    shown, covered = views[None], masks[None]
    if config.warps:
        pictures = views.expand(config.warps, *views.shape)
        channel = masks[:, None].float().expand(config.warps, -1, -1, -1, -1)
        shown = torch.cat([shown, warp_image(pictures, moved, fill=0.0 if backwards else GREY)])
        covered = torch.cat([covered, warp_image(channel, moved, fill=0.0)[:, :, 0] > 0.5])
    return warps, merge_views(rearrange(shown, "n v c h w -> n c v h w"), layout), covered


@torch.no_grad()
def prepare(
    thing: ObjectViews, backend: Backend, config: SettledPrepare, generator: torch.Generator
) -> tuple[Prepared, Float[Tensor, "view 3 height width"], Cameras | None]:
    """Encode one object in all its versions; also returns its views and cameras.

    Versions are counted warps first, timesteps next, noises inside: :attr:`SettledPrepare.versions` in all.
    """
    ((prepared, seen),) = prepare_together([thing], backend, config, [generator])
    return prepared, seen.views, seen.cameras


@torch.no_grad()
def prepare_together(
    things: Sequence[ObjectViews],
    backend: Backend,
    config: SettledPrepare,
    generators: Sequence[torch.Generator],
    blind: int = 0,
    watch: Watch | None = None,
) -> list[tuple[Prepared, Seen]]:
    """The same of several objects, with a generator for each: what one draws does not depend on its neighbours.

    Their views are generated together, and their input pictures encoded together. The last ``blind`` draws of noise of
    each version are without the input picture. ``watch`` is called while views are generated.

    Raises:
        InputError: an object has another number of views than the model.
    """
    for thing in things:
        if backend.layout.num_views > 1 and thing.framing.recentred:
            log.info("%s: %s", thing.name, thing.framing.words)
    seen = several_views(things, backend, generators, watch)
    conditions = backend.encode_condition([model_image(thing, backend) for thing in things])
    noisiness = torch.tensor(config.timesteps, device=backend.device)
    several = len(noisiness) * config.noises
    found = []
    for i, (one, generator) in enumerate(zip(seen, generators, strict=True)):
        warps, grids, covered = warped_versions(one.views, one.masks, backend.layout, config, generator)
        # Of one object at a time: a whole grid keeps the VAE busy, and many together would only take more memory.
        clean = repeat(backend.encode_images(grids), "n c h w -> (n k) c h w", k=several)
        timestep = repeat(noisiness, "t -> (n t k)", n=len(grids), k=config.noises)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        condition = conditions.select(i).repeat(len(clean))
        if blind:
            hidden = torch.arange(len(clean), device=backend.device) % config.noises >= config.noises - blind
            condition = condition.where(hidden, backend.empty_condition(1))
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
        found.append((prepared, one))
    return found


def object_generator(seed: int, number: int) -> torch.Generator:
    """Of the warps and noise of the ``number``-th object: the same whatever the other objects are."""
    return torch.Generator().manual_seed((seed * 10**6 + number) % 2**63)


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
