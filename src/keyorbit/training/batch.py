"""The data of one training step: encoded objects with noise, and their conditions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from keyorbit.diffusion.attention import without_autocast
from keyorbit.diffusion.backends.base import Condition
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.config import SettledPrepare
from keyorbit.diffusion.prepare import object_views, warped_versions
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.objects.dataset import Objects
from keyorbit.training.config import TrainConfig


@dataclass(frozen=True, eq=False)
class Example:
    """One object in a training step. Its versions share timestep, noise and condition; version 0 is not warped.

    Attributes:
        clean: latents of the view grids.
        noise: noise to be added to them.
        timestep: one for each version, all the same.
        condition_latent: latent of the input picture.
        condition_noise: noise to be added to it.
        context: the text rows.
        warps: of each version and view; the first version's are the identity.
        masks: silhouettes of each version and view.
        cameras: of the views.
    """

    clean: Float[Tensor, "version channel height width"]
    noise: Float[Tensor, "version channel height width"]
    timestep: Int[Tensor, " version"]
    condition_latent: Float[Tensor, "version channel condition_height condition_width"]
    condition_noise: Float[Tensor, "version channel condition_height condition_width"]
    context: Float[Tensor, "version text context_width"]
    warps: Float[Tensor, "version view 2 3"]
    masks: Bool[Tensor, "version view view_height view_width"]
    cameras: Cameras


def check_objects(objects: Objects, backend: Zero123PlusBackend) -> None:
    """Raise InputError unless there are objects, all with views of their own, as many as the model has."""
    if not len(objects):
        raise InputError("there are no objects to train on")
    for thing in objects:
        if thing.views is None:
            raise InputError(f"{thing.name} has no views: training needs the true ones (grid.png or view_0.png …)")
        if len(thing.views) != backend.layout.num_views:
            raise InputError(f"{thing.name} has {len(thing.views)} views; the model has {backend.layout.num_views}")


def sample_generator(seed: int, sample: int) -> torch.Generator:
    """Return the generator of all random numbers of one sample, independent of how the run is cut into batches."""
    return torch.Generator().manual_seed((seed * 10**10 + sample) % 2**63)


def object_of(seed: int, sample: int, count: int) -> int:
    """Return which of ``count`` objects a sample uses: each object once in every pass over the data, in a new order."""
    epoch, place = divmod(sample, count)
    return int(torch.randperm(count, generator=sample_generator(seed, -1 - epoch))[place])


@torch.no_grad()
def load_example(
    backend: Zero123PlusBackend,
    objects: Objects,
    sample: int,
    config: TrainConfig,
    warps: SettledPrepare,
    blank: Condition,
) -> Example:
    """Load the sample of that number, with random numbers of its own.

    Args:
        backend: the model that encodes it.
        objects: the data.
        sample: its number, counted over the whole run.
        config: its seed, its range of timesteps (drawn uniformly, the last one excluded) and its probability of
            ``dropped`` conditions.
        warps: how many warped versions are added, and how far they are warped.
        blank: the empty condition (:meth:`Zero123PlusBackend.empty_condition`) of one item, used in place of a dropped
            one.

    Raises:
        InputError: the object has no cameras.
    """
    generator = sample_generator(config.seed, sample)
    thing = objects[object_of(config.seed, sample, len(objects))]
    timestep = int(torch.randint(*config.timesteps, (1,), generator=generator))
    without = float(torch.rand(1, generator=generator)) < config.dropped
    views, masks, cameras = object_views(thing, backend, generator)
    if cameras is None:
        raise InputError(f"{thing.name} has no cameras: training computes losses in space from them")
    matrices, grids, covered = warped_versions(views, masks, backend.layout, warps, generator)
    with without_autocast(backend.device.type):
        clean = backend.encode_images(grids)
        condition = (blank if without else backend.encode_condition([thing.input_image])).repeat(len(clean))

    def noise(like: Tensor) -> Tensor:
        drawn = torch.randn(like.shape[1:], generator=generator).to(like)
        return repeat(drawn, "... -> n ...", n=len(like))

    return Example(
        clean,
        noise(clean),
        torch.full((len(clean),), timestep, device=clean.device),
        condition.latent,
        noise(condition.latent),
        condition.context,
        matrices.to(clean),
        covered.to(clean.device),
        cameras.to(clean.device),
    )


@dataclass(frozen=True, eq=False)
class Batch:
    """Several examples, item by item: all versions of the first object, then of the next. Fields: :class:`Example`."""

    clean: Float[Tensor, "item channel height width"]
    noise: Float[Tensor, "item channel height width"]
    timestep: Int[Tensor, " item"]
    condition_latent: Float[Tensor, "item channel condition_height condition_width"]
    condition_noise: Float[Tensor, "item channel condition_height condition_width"]
    context: Float[Tensor, "item text context_width"]
    examples: tuple[Example, ...]

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "Batch":
        """Concatenate examples."""
        return cls(
            torch.cat([e.clean for e in examples]),
            torch.cat([e.noise for e in examples]),
            torch.cat([e.timestep for e in examples]),
            torch.cat([e.condition_latent for e in examples]),
            torch.cat([e.condition_noise for e in examples]),
            torch.cat([e.context for e in examples]),
            tuple(examples),
        )
