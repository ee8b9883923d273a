"""Write synthetic objects and rendered mesh files as dataset folders."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from einops import rearrange
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from keyorbit.budget import check_budget
from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.geometry.views import Layout
from keyorbit.objects.dataset import write_object
from keyorbit.storage.lock import in_use
from keyorbit.storage.outputs import OBJECT, check_output
from keyorbit.synthetic.choices import MAX_OBJECTS
from keyorbit.synthetic.plan import DatasetSpec
from keyorbit.synthetic.render import composite, load_surface, render
from keyorbit.synthetic.samples import Sample, SampleSpec, make_samples
from keyorbit.synthetic.shapes import rotation_about

log = logging.getLogger(__name__)

LAYOUT = Layout(3, 2)
WHITE = 1.0
# Memory while an object is rendered, for each pixel of a view; measured, see tests/synthetic/test_dataset_make.py.
_PIXEL_BYTES = 2600


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


def check_rendering(size: int, workers: int = 1) -> None:
    """Raise InputError where the views of that many pixels a side, rendered by so many processes, do not fit memory."""
    needed = _PIXEL_BYTES * size**2 * workers
    check_budget({f"rendering views of {size} x {size} pixels": (needed, "ask for smaller views, or fewer workers")})


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
    write_object(folder, picture, _grid(sample.views), LAYOUT, meta, overwrite)


def render_mesh(
    mesh: Path,
    folder: Path,
    size: int = 64,
    elevation_deg: float = 20.0,
    azimuth_deg: float = 0.0,
    up: str = "y",
    overwrite: bool = False,
) -> None:
    """Render a mesh file as an object folder: the input view and the six Zero123++ v1.2 views.

    Args:
        mesh: the file.
        folder: the object folder to write.
        size: pixels a side of a view. Default 64.
        elevation_deg: of the input view. Default 20.
        azimuth_deg: of the input view, about the mesh. Default 0.
        up: the file's upward axis, ``y`` (default) or ``z``.
        overwrite: replace an object that is there already. Default False.

    Raises:
        InputError: the mesh cannot be read, or as :func:`keyorbit.objects.dataset.write_object`.
    """
    check_output(folder, OBJECT, overwrite)
    check_rendering(size)
    surface = load_surface(mesh, up)
    if azimuth_deg:
        turn = np.eye(4)
        turn[:3, :3] = rotation_about("z", -azimuth_deg)
        surface.mesh.apply_transform(turn)
    input_camera, cameras = orbit_cameras([0.0], [elevation_deg]), zero123plus_cameras("v1.2")
    pictures = render(surface, input_camera.join(cameras), size, supersample=3)
    meta = {
        "mesh": mesh.name,
        "cameras": cameras.to_dict(),
        "input_camera": input_camera.to_dict(),
        "input_elevation_deg": elevation_deg,
    }
    picture = Image.fromarray(composite(pictures[0], WHITE))
    write_object(folder, picture, _grid(pictures[1:]), LAYOUT, meta, overwrite)


def _grid(views: UInt8[ndarray, "view size size 4"]) -> Image.Image:
    return Image.fromarray(rearrange(views, "(r c) h w k -> (r h) (c w) k", r=LAYOUT.rows, c=LAYOUT.cols))
