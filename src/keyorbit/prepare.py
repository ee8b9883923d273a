"""From objects to what the UNet is shown: views (also warped ones) encoded, noised and paired with their condition."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from keyorbit.backends.base import Backend
from keyorbit.cameras import Cameras
from keyorbit.data import GREY, Objects, ObjectViews
from keyorbit.errors import InputError
from keyorbit.heatmaps import resize
from keyorbit.views import merge_views, split_views
from keyorbit.warps import Warp, random_warps, warp_image


@dataclass(frozen=True)
class PrepareConfig:
    """How objects are shown to the UNet.

    warps: further versions of every object, each view warped by its own random rotation (± ``rotation_deg``), scale
    and shift (sides of the view); noises: draws of noise per version; timestep: 0…999, how much noise, None for the
    model's own.
    """

    timestep: int | None = None
    warps: int = 0
    noises: int = 1
    rotation_deg: float = 15.0
    scale: tuple[float, float] = (0.85, 1.1)
    shift: float = 0.1


@dataclass(frozen=True, eq=False)
class Prepared:
    """One object in all its versions, ready for :meth:`Backend.denoise`; version 0 is not warped."""

    latents: Float[Tensor, "version channel height width"]
    condition_latent: Float[Tensor, "version condition_channel condition_height condition_width"]
    condition_noise: Float[Tensor, "version condition_channel condition_height condition_width"]
    context: Float[Tensor, "version text context_width"]
    timestep: int
    warps: Float[Tensor, "version view 2 3"]
    masks: Bool[Tensor, "version view view_height view_width"]


def object_views(
    thing: ObjectViews, backend: Backend, generator: torch.Generator
) -> tuple[Float[Tensor, "view 3 height width"], Bool[Tensor, "view height width"], Cameras | None]:
    """The object's own views at the model's size, or views generated from its input picture, with silhouettes.

    A model of a single view looks at the input picture, whatever views there are; it has no cameras.

    Raises:
        InputError: the object has another number of views than the model.
    """
    single = backend.layout.num_views == 1
    if thing.views is None or single:
        grid = backend.generate([thing.input_image], generator)[0]
        views, cameras = split_views(grid, backend.layout).movedim(1, 0), backend.cameras
    else:
        views, cameras = thing.views, thing.cameras or backend.cameras
    if len(views) != backend.layout.num_views:
        raise InputError(f"{thing.name} has {len(views)} views; the model has {backend.layout.num_views}")
    masks = silhouettes(views) if thing.masks is None or single else thing.masks
    size = (backend.view_size, backend.view_size)
    if views.shape[-2:] != size:
        views = F.interpolate(views, size=size, mode="bilinear", antialias=True)
        masks = resize(masks.float(), size) > 0.5
    return views, masks, cameras


def silhouettes(
    views: Float[Tensor, "view 3 height width"], threshold: float = 0.06
) -> Bool[Tensor, "view height width"]:
    """Where a view differs from its background, which is taken to be the median colour of its border."""
    border = torch.cat([views[..., 0, :], views[..., -1, :], views[..., :, 0], views[..., :, -1]], dim=-1)
    ground = border.median(dim=-1).values[..., None, None]
    return (views - ground).abs().amax(1) > threshold


def silhouette_distance(masks: Bool[Tensor, "*batch height width"]) -> Float[Tensor, "*batch height width"]:
    """How far every pixel is from the nearest pixel of the silhouette, in sides of the view; 0 on it.

    A view without any silhouette is 0 everywhere: it says nothing of where the object is.
    """
    height, width = masks.shape[-2:]
    fields = [
        distance_transform_edt(~mask, sampling=(1 / height, 1 / width)) if mask.any() else np.zeros(mask.shape)
        for mask in masks.reshape(-1, height, width).cpu().numpy()
    ]
    return torch.from_numpy(np.stack(fields)).float().reshape(masks.shape).to(masks.device)


@torch.no_grad()
def prepare(
    thing: ObjectViews, backend: Backend, config: PrepareConfig, generator: torch.Generator
) -> tuple[Prepared, Float[Tensor, "view 3 height width"], Cameras | None]:
    """Encode one object in all its versions; also returns its views and cameras.

    Versions are counted warps first, noises inside: ``(1 + warps) · noises`` in all.
    """
    views, masks, cameras = object_views(thing, backend, generator)
    count = config.warps
    moved = random_warps((count, len(views)), generator, config.rotation_deg, config.scale, config.shift)
    warps = torch.cat([Warp.identity((1, len(views))).matrix, moved.matrix.float()])
    shown = [views, *(warp_image(views, Warp(matrix), fill=GREY) for matrix in warps[1:])]
    covered = [
        masks.float(),
        *(warp_image(masks[:, None].float(), Warp(m), fill=0.0)[:, 0] for m in warps[1:]),
    ]
    grids = merge_views(rearrange(torch.stack(shown), "n v c h w -> n c v h w"), backend.layout)
    clean = repeat(backend.encode_images(grids), "n c h w -> (n k) c h w", k=config.noises)
    noisiness = backend.default_timestep if config.timestep is None else config.timestep
    timestep = torch.full((len(clean),), noisiness, device=backend.device)
    noise = torch.randn(clean.shape, generator=generator).to(clean)
    condition = backend.encode_condition([thing.input_image]).repeat(len(clean))
    condition_noise = torch.randn(condition.latent.shape, generator=generator).to(condition.latent)
    prepared = Prepared(
        backend.add_noise(clean, noise, timestep),
        condition.latent,
        condition_noise,
        condition.context,
        noisiness,
        repeat(warps, "n v i j -> (n k) v i j", k=config.noises),
        repeat(torch.stack(covered) > 0.5, "n v h w -> (n k) v h w", k=config.noises),
    )
    return prepared, views, cameras


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
    for i, thing in enumerate(objects):
        generator = torch.Generator().manual_seed(seed * 10**6 + i)
        item, _, own = prepare(thing, backend, config, generator)
        if prepared and not same_cameras(own, cameras):
            raise InputError(
                f"{thing.name} has other cameras than the objects before it; discover on one rig at a time"
            )
        cameras = own
        prepared.append(item)
        if progress is not None:
            progress(i + 1, len(objects))
    if not prepared:
        raise InputError("there are no objects to work on")
    return prepared, cameras


def same_cameras(first: Cameras | None, second: Cameras | None) -> bool:
    """Whether both stand in the same places, or there are none."""
    if first is None or second is None:
        return first is second
    ours, theirs = first.world_to_camera.cpu(), second.world_to_camera.cpu()
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, atol=1e-4)
