"""Views generated from pictures, written as object folders."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.choices import GUIDANCE, STEPS, Guidance, SamplingSteps
from keyorbit.diffusion.recording import in_batches, settled_batch
from keyorbit.objects.dataset import ObjectViews, write_object
from keyorbit.objects.pictures import to_uint8
from keyorbit.storage.folder_names import folder_names
from keyorbit.values import Count, Seed, check_fields

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sampling:
    """How views are generated.

    Attributes:
        seed: of the noise of each picture's first set of views, which are those that
            :func:`keyorbit.diffusion.prepare.object_views` makes from a generator of that seed. Default 0.
        sets: of views for each picture, 1 or more; each is drawn from the seed after that of the one before. Default 1.
        steps: Euler ancestral steps, 1…1000. Default 28.
        guidance: classifier-free guidance, 0 or more; at 1 or less the UNet runs without the negative condition.
            Default 4.

    Raises:
        InputError: one of them is out of range.
    """

    seed: Seed = 0
    sets: Count = 1
    steps: SamplingSteps = STEPS
    guidance: Guidance = GUIDANCE

    def __post_init__(self) -> None:
        check_fields(self)


def object_folders(out: Path, things: Sequence[ObjectViews], sets: int = 1) -> list[Path]:
    """A folder below ``out`` for each set of views of each object, named after the object."""
    names = [f"{thing.name}_{k}" if sets > 1 else thing.name for thing, k in product(things, range(sets))]
    return [out / name for name in folder_names(names)]


def generate_objects(
    folders: Sequence[Path],
    things: Sequence[ObjectViews],
    backend: Zero123PlusBackend,
    sampling: Sampling | None = None,
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
) -> None:
    """Generate the views of objects from their input pictures, and write them to :func:`object_folders`.

    Each folder is written whole, as soon as its views are there.

    Args:
        folders: one for each set of views.
        things: the objects; views that they have are not used.
        backend: the model.
        sampling: how. Default None: as :class:`Sampling` says.
        batch: sets of views that go through the model together, 1 or more. Default 1 on the CPU and 8 elsewhere. It
            changes nothing but rounding.
        progress: called as ``progress(done, total)`` in denoising steps of all batches.
        overwrite: replace objects that are there already. Default False.

    Raises:
        InputError: ``batch`` is below 1, or as :func:`keyorbit.objects.dataset.write_object`.
    """
    sampling, together = sampling or Sampling(), settled_batch(batch, backend.device)
    each = list(zip(folders, product(things, range(sampling.sets)), strict=True))
    total, done, began = -(-len(each) // together) * sampling.steps, 0, time.monotonic()

    def told(step: int, steps: int) -> None:
        if progress is not None:
            progress(done + step, total)

    for some in in_batches(each, together):
        seeds = [(sampling.seed + number) % 2**63 for _, (_, number) in some]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        pictures = [thing.input_image for _, (thing, _) in some]
        grids = backend.generate(pictures, generators, sampling.steps, sampling.guidance, told)
        done += sampling.steps
        for (folder, (thing, _)), grid, seed in zip(some, grids, seeds, strict=True):
            picture = Image.fromarray(to_uint8(grid))
            meta = _meta(backend, sampling, seed)
            write_object(folder, thing.input_image, picture, backend.layout, meta, overwrite, views=True)
    log.info("generated %d sets of views in %.1f s", len(each), time.monotonic() - began)


def _meta(backend: Zero123PlusBackend, sampling: Sampling, seed: int) -> dict[str, Any]:
    """What an object's file says of where its views are from."""
    made: dict[str, Any] = {"model": backend.name, "model_fingerprint": backend.fingerprint}
    made |= {"dtype": backend.precision.dtype, "seed": seed, "steps": sampling.steps, "guidance": sampling.guidance}
    return {"cameras": backend.cameras.to_dict(), "generated": made}
