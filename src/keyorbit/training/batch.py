"""The data of one training step: encoded objects with noise, and their conditions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from keyorbit.diffusion.backends.base import Condition
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.config import SettledPrepare
from keyorbit.diffusion.prepare import check_views, object_views, warped_versions
from keyorbit.diffusion.scores import without_autocast
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.heatmaps import resize
from keyorbit.geometry.hull import grown_masks, silhouette_distance
from keyorbit.objects.dataset import Objects
from keyorbit.training.config import TrainConfig

# Encoded objects are kept on the model's device up to this size: at full size one takes under a megabyte.
_KEPT_BYTES = 2**29


@dataclass(frozen=True, eq=False)
class Encoded:
    """What of an object in a training step is the same in every step. ``side`` is that of the tokens' maps.

    Attributes:
        clean: latents of the view grids; version 0 is not warped.
        condition: of the input picture.
        warps: of each version and view; the first version's are the identity.
        masks: silhouettes of each version and view, widened by a pixel of the maps.
        distance: of every pixel of the unwarped views from the silhouette.
        cameras: of the views.
    """

    clean: Float[Tensor, "version channel height width"]
    condition: Condition
    warps: Float[Tensor, "version view 2 3"]
    masks: Float[Tensor, "version view side side"]
    distance: Float[Tensor, "view side side"]
    cameras: Cameras

    @property
    def bytes(self) -> int:
        """Size of the tensors."""
        tensors = (self.clean, self.condition.latent, self.condition.context, self.masks, self.distance)
        return sum(tensor.nbytes for tensor in tensors)


@dataclass(frozen=True, eq=False)
class Example:
    """One object in a training step. Its versions share timestep, noise and condition; version 0 is not warped.

    Attributes:
        encoded: the object.
        noise: noise to be added to the latents of the view grids.
        timestep: of all versions.
        condition: of the input picture, or the empty one.
        condition_noise: noise to be added to the input picture's latent.
    """

    encoded: Encoded
    noise: Float[Tensor, "version channel height width"]
    timestep: int
    condition: Condition
    condition_noise: Float[Tensor, "version channel condition_height condition_width"]


def check_objects(objects: Objects, backend: Zero123PlusBackend) -> None:
    """Raise InputError unless there are objects, all with views of their own, as many as the model has."""
    if not len(objects):
        raise InputError("there are no objects to train on")
    for thing in objects:
        if thing.views is None:
            raise InputError(f"{thing.name} has no views: training needs the true ones (grid.png or view_0.png …)")
        check_views(thing, backend.layout.num_views)


def sample_generator(seed: int, sample: int) -> torch.Generator:
    """Return the generator of all random numbers of one sample, independent of how the run is cut into batches."""
    return torch.Generator().manual_seed((seed * 10**10 + sample) % 2**63)


def object_of(seed: int, sample: int, count: int) -> int:
    """Return which of ``count`` objects a sample uses: each object once in every pass over the data, in a new order."""
    epoch, place = divmod(sample, count)
    return int(torch.randperm(count, generator=sample_generator(seed, -1 - epoch))[place])


class ExampleLoader:
    """Loads the samples of a run, and keeps what it has encoded, as far as there is room.

    Args:
        backend: the model that encodes them.
        objects: the data.
        config: its seed, its range of timesteps (drawn uniformly, the last one excluded) and its probability of
            ``dropped`` conditions.
        side: of the tokens' maps, in pixels.
    """

    def __init__(self, backend: Zero123PlusBackend, objects: Objects, config: TrainConfig, side: int) -> None:
        self.backend, self.objects, self.config, self.side = backend, objects, config, side
        self.blank = backend.empty_condition(1)
        self._kept: dict[int, Encoded] = {}
        self._room = _KEPT_BYTES

    @torch.no_grad()
    def load(self, sample: int, warps: SettledPrepare) -> Example:
        """Load the sample of that number, with random numbers of its own.

        ``warps``: how many warped versions are added, and how far they are warped.

        Raises:
            InputError: the object has no cameras.
        """
        generator = sample_generator(self.config.seed, sample)
        number = object_of(self.config.seed, sample, len(self.objects))
        timestep = int(torch.randint(*self.config.timesteps, (1,), generator=generator))
        without = float(torch.rand(1, generator=generator)) < self.config.dropped
        with without_autocast(self.backend.device.type):
            encoded = self._encoded(number, warps, generator)
        clean = encoded.clean
        condition = (self.blank if without else encoded.condition).repeat(len(clean))

        def noise(like: Tensor) -> Tensor:
            drawn = moved(torch.randn(like.shape[1:], generator=generator), like.device)
            return repeat(drawn.to(like.dtype), "... -> n ...", n=len(like))

        return Example(encoded, noise(clean), timestep, condition, noise(condition.latent))

    def _encoded(self, number: int, warps: SettledPrepare, generator: torch.Generator) -> Encoded:
        if warps.warps:  # other ones in every step
            return self._encode(number, warps, generator)
        if number in self._kept:
            return self._kept[number]
        encoded = self._encode(number, warps, generator)
        if encoded.bytes <= self._room:
            self._room -= encoded.bytes
            self._kept[number] = encoded
        return encoded

    def _encode(self, number: int, warps: SettledPrepare, generator: torch.Generator) -> Encoded:
        backend, thing, size = self.backend, self.objects[number], (self.side, self.side)
        views, masks, cameras = object_views(thing, backend, generator)
        if cameras is None:
            raise InputError(f"{thing.name} has no cameras: training computes losses in space from them")
        matrices, grids, covered = warped_versions(views, masks, backend.layout, warps, generator)
        clean, condition = backend.encode_images(grids), backend.encode_condition([thing.framed_image])
        return Encoded(
            clean,
            condition,
            moved(matrices, backend.device),
            moved(grown_masks(covered, size), backend.device),
            moved(resize(silhouette_distance(covered[0]), size), backend.device),
            cameras.to(backend.device),
        )


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor of the CPU to a device, without waiting for a GPU to have done what it was given before."""
    if device.type == "cpu" or not torch.cuda.is_available():
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


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
        clean = torch.cat([e.encoded.clean for e in examples])
        timesteps = [torch.full((len(e.noise),), e.timestep, device=clean.device) for e in examples]
        return cls(
            clean,
            torch.cat([e.noise for e in examples]),
            torch.cat(timesteps),
            torch.cat([e.condition.latent for e in examples]),
            torch.cat([e.condition_noise for e in examples]),
            torch.cat([e.condition.context for e in examples]),
            tuple(examples),
        )
