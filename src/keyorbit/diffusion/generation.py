"""Views generated from pictures, also through a ControlNet, written as object folders."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.choices import GUIDANCE, STEPS, Guidance, SamplingSteps
from keyorbit.diffusion.control import Control, depth_picture
from keyorbit.diffusion.prepare import object_views, same_cameras
from keyorbit.diffusion.recording import in_batches, settled_batch
from keyorbit.errors import InputError
from keyorbit.geometry.views import split_views
from keyorbit.objects.dataset import ObjectViews, write_object
from keyorbit.objects.pictures import to_uint8
from keyorbit.storage.content import json_of
from keyorbit.storage.folder_names import folder_names
from keyorbit.values import Count, Seed, check_fields, from_values

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


def object_folders(out: Path, names: Sequence[str], sets: int = 1) -> list[Path]:
    """A folder below ``out`` for each set of views of each object, named after the object."""
    names = [f"{name}_{k}" if sets > 1 else name for name, k in product(names, range(sets))]
    return [out / name for name in folder_names(names)]


def generate_objects(
    folders: Sequence[Path],
    things: Sequence[ObjectViews],
    backend: Zero123PlusBackend,
    sampling: Sampling | None = None,
    control: Control | None = None,
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
    digests: Sequence[str] = (),
) -> None:
    """Generate the views of objects from their input pictures, and write them to :func:`object_folders`.

    Each folder is written whole, as soon as its views are there.

    Args:
        folders: one for each set of views.
        things: the objects; views that they have are used for ``Control(depth="auto")`` only.
        backend: the model, with a ControlNet where ``control`` is given.
        sampling: how. Default None: as :class:`Sampling` says.
        control: what the ControlNet does. Normal maps are written as ``normals.png``, tiled as the grid is. Default
            None: nothing.
        batch: sets of views that go through the model together, 1 or more. Default 1 on the CPU and 8 elsewhere. It
            changes nothing but rounding.
        progress: called as ``progress(done, total)`` in denoising steps of all batches.
        overwrite: replace objects that are there already. Default False.
        digests: of what each set's object was read from, by which :func:`are_made` knows it. Default: none is kept.

    Raises:
        InputError: ``batch`` is below 1, there is no ControlNet, the depths are of another size than the grid, or as
            :func:`keyorbit.objects.dataset.write_object`.
    """
    sampling, began = sampling or Sampling(), time.monotonic()
    jobs = zip(folders, product(things, range(sampling.sets)), strict=True)
    known = dict(zip(folders, digests, strict=True)) if digests else {}
    batches = list(in_batches([(folder, *job) for folder, job in jobs], settled_batch(batch, backend.device)))
    told = _Told(progress, sampling.steps * sum(_runs([thing for _, thing, _ in some], control) for some in batches))
    for some in batches:
        seeds = [(sampling.seed + number) % 2**63 for _, _, number in some]
        made = _made([thing for _, thing, _ in some], seeds, backend, sampling, control, told)
        for (folder, thing, _), seed, (grid, beside) in zip(some, seeds, made, strict=True):
            views = split_views(grid, backend.layout).movedim(1, 0)
            beside = {f"view_{i}.png": _picture(view) for i, view in enumerate(views)} | beside
            meta = _meta(backend, sampling, control, seed, thing)
            meta |= {"source_sha256": known[folder]} if known else {}
            write_object(folder, thing.shown_image(), _picture(grid), backend.layout, meta, overwrite, beside)
    log.info("generated %d sets of views in %.1f s", len(folders), time.monotonic() - began)


class _Told:
    """Counts denoising steps over several runs of the sampler."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, step: int, steps: int) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)


def _runs(things: Sequence[ObjectViews], control: Control | None) -> int:
    """How often the sampler runs for objects that go through the model together."""
    first = control is not None and control.depth == "auto" and any(thing.views is None for thing in things)
    return 1 + first + (control is not None and control.normals)


def _made(
    things: Sequence[ObjectViews],
    seeds: Sequence[int],
    backend: Zero123PlusBackend,
    sampling: Sampling,
    control: Control | None,
    told: _Told,
) -> list[tuple[Tensor, dict[str, Image.Image]]]:
    """The grid of each object, and the pictures beside it."""

    def run(chosen: Sequence[int], controls: Sequence[Image.Image] | None = None) -> list[Tensor]:
        pictures = [things[i].framed_image for i in chosen]
        generators = [torch.Generator().manual_seed(seeds[i]) for i in chosen]
        weight = 1.0 if control is None else control.weight
        steered: dict[str, Any] = {"depth_images": controls, "conditioning_scale": weight}
        return list(backend.generate(pictures, generators, sampling.steps, sampling.guidance, told, **steered).cpu())

    everything = range(len(things))
    if control is None:
        return [(grid, {}) for grid in run(everything)]
    if control.normals:
        grids = run(everything)
        normals = run(everything, [_picture(grid) for grid in grids])
        return [(grid, {"normals.png": _picture(normal)}) for grid, normal in zip(grids, normals, strict=True)]
    if isinstance(control.depth, Image.Image):
        return [(grid, {"depth.png": control.depth}) for grid in run(everything, [control.depth] * len(things))]
    bare = [i for i in everything if things[i].views is None]
    first = dict(zip(bare, run(bare), strict=True)) if bare else {}
    depths = [_depth(things[i], first.get(i), backend) for i in everything]
    return [(grid, {"depth.png": depth}) for grid, depth in zip(run(everything, depths), depths, strict=True)]


def _depth(thing: ObjectViews, grid: Tensor | None, backend: Zero123PlusBackend) -> Image.Image:
    """The depths of the object's own views, or of those in a grid that was generated."""
    if grid is not None:
        thing = replace(thing, views=split_views(grid, backend.layout).movedim(1, 0), masks=None, cameras=None)
    _, masks, cameras = object_views(thing, backend, torch.Generator())  # it has views, and none are generated
    if cameras is None or not same_cameras(cameras, backend.cameras):
        raise InputError(f"{thing.name} has other cameras than the model, whose views cannot follow its depths")
    return depth_picture(masks, cameras, backend.layout)


def _picture(values: Tensor) -> Image.Image:
    return Image.fromarray(to_uint8(values))


@dataclass(frozen=True)
class _Made:
    """What an object's file says of where its views are from."""

    source_sha256: str = ""
    generated: dict[str, Any] | None = None


def are_made(
    folder: Path, number: int, fingerprint: str, sampling: Sampling, control: Control | None, digest: str
) -> bool:
    """Whether set ``number`` of the views of an object is there, from the same object and made in the same way.

    ``fingerprint`` is the model's.

    Raises:
        InputError: another is there.
    """
    path = folder / "meta.json"
    if not path.is_file():
        return False
    made = from_values(_Made, json_of(path, infinite=True), str(path), others=True)
    asked = _way(fingerprint, sampling, control, (sampling.seed + number) % 2**63)
    there = made.generated or {}
    same = all(there.get(name) == value for name, value in asked.items())
    if not same or ("control" in there) != ("control" in asked) or made.source_sha256 != digest:
        raise InputError(
            f"{folder} holds a set of views of another picture, or made with other settings: replace it (--overwrite), "
            "or give another folder"
        )
    return True


def _meta(
    backend: Zero123PlusBackend, sampling: Sampling, control: Control | None, seed: int, thing: ObjectViews
) -> dict[str, Any]:
    """What an object's file says of where its views are from."""
    how: dict[str, Any] = {"model": backend.name, "model_fingerprint": backend.fingerprint}
    how |= {"dtype": backend.precision.dtype} | _way(backend.fingerprint, sampling, control, seed)
    steered = {name: how.pop(name) for name in ("control", "control_scale") if name in how}
    made = how | {"recentred": thing.framing.recentred}
    made |= {} if thing.framing.cut_out_by is None else {"cut_out_by": thing.framing.cut_out_by}
    return {"cameras": backend.cameras.to_dict(), "generated": made | steered}


def _way(fingerprint: str, sampling: Sampling, control: Control | None, seed: int) -> dict[str, Any]:
    """How views are made, whatever they are of; all but what changes them by rounding alone."""
    how: dict[str, Any] = {"model_fingerprint": fingerprint, "seed": seed}
    how |= {"steps": sampling.steps, "guidance": sampling.guidance}
    if control is not None:
        how |= {"control": "normals" if control.normals else "depth", "control_scale": control.weight}
    return how
