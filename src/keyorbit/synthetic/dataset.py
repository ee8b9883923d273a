"""Write procedural objects as dataset folders."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from keyorbit.objects.dataset import write_object
from keyorbit.storage.lock import in_use
from keyorbit.synthetic.choices import MAX_OBJECTS
from keyorbit.synthetic.grids import LAYOUT, check_rendering, grid_of
from keyorbit.synthetic.meshes.objects import render_mesh
from keyorbit.synthetic.plan import DatasetSpec
from keyorbit.synthetic.render import composite
from keyorbit.synthetic.samples import Sample, SampleSpec, make_samples

log = logging.getLogger(__name__)

__all__ = ["check_rendering", "make_dataset", "render_mesh", "write_sample"]


def make_dataset(
    out: Path,
    spec: DatasetSpec,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Render the objects of ``spec`` by ``workers`` processes, and write one folder for each below ``out``.

    Args:
        progress: called as ``progress(done, total)`` after each object.
        overwrite: replace objects that are there already; default False.

    Returns:
        The objects' folders.

    Raises:
        InputError: as :meth:`DatasetSpec.folders`, views so large do not fit into memory, or another process makes the
            same objects.
    """
    folders = spec.folders(out, overwrite)
    check_rendering(spec.size, workers)
    specs = [SampleSpec(spec.category, spec.seed * MAX_OBJECTS + i, spec.size, spec.turn_deg) for i in folders]
    written, began = list[Path](), time.monotonic()
    # Not the folder itself: other shards are written at the same time.
    with in_use(out / "{}_{}, shard {} of {}".format(spec.category, spec.seed, *spec.shard)):
        for folder, sample in zip(folders.values(), make_samples(specs, workers), strict=True):
            write_sample(folder, sample, overwrite)
            written.append(folder)
            if progress is not None:
                progress(len(written), len(specs))
    drawn = f"{len(written)} of category {spec.category}, seed {spec.seed}, views of {spec.size} pixels"
    log.info("rendered into %s: %s, in %.1f s", out, drawn, time.monotonic() - began)
    return written


def write_sample(folder: Path, sample: Sample, overwrite: bool = False) -> None:
    """Write one sample as an object folder: the input picture on its background, the grid with its alpha channel.

    Raises:
        InputError: as :func:`keyorbit.objects.dataset.write_object`.
    """
    meta = {
        "category": sample.category,
        "seed": sample.seed,
        "caption": sample.caption,
        "captions": list(sample.captions),
        "background": sample.background.tolist(),
        "cameras": sample.cameras.to_dict(),
        "input_camera": sample.input_camera.to_dict(),
        "input_azimuth_deg": sample.input_azimuth_deg,
        "input_elevation_deg": sample.input_elevation_deg,
        "keypoint_names": list(sample.names),
        "pairs": [list(pair) for pair in sample.pairs],
        "known": sample.known.tolist(),
        "keypoints_3d": sample.keypoints_3d.tolist(),
        "keypoints_2d": sample.keypoints_2d.tolist(),
        "visible": sample.visible.tolist(),
        "surface": sample.surface.round(4).tolist(),
    }
    picture = Image.fromarray(composite(sample.input_image, sample.background))
    write_object(folder, picture, grid_of(sample.views), LAYOUT, meta, overwrite)
